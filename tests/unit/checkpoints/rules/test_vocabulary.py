from pathlib import Path

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.vocabulary import judge_vocabulary
from tests.support.safetensors_files import VOCABULARY, edit_json, write_checkpoint, write_tokenizer


def judge(folder: Path) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in judge_vocabulary(read_contents(folder))]


def test_fewer_tokens_than_rows_are_usual(tmp_path: Path) -> None:
    write_tokenizer(write_checkpoint(tmp_path), trained=3, added={"<a>": 3})
    assert judge(tmp_path) == []


def test_more_trained_tokens_than_rows(tmp_path: Path) -> None:
    write_tokenizer(write_checkpoint(tmp_path), trained=VOCABULARY + 1, added={"<a>": 99})
    assert judge(tmp_path) == [("error", "tokenizer-misfit")]


def test_added_token_without_a_row(tmp_path: Path) -> None:
    write_tokenizer(write_checkpoint(tmp_path), added={"<a>": VOCABULARY})
    assert judge(tmp_path) == [("warning", "token-without-row")]


def test_added_token_without_a_row_that_every_chat_needs(tmp_path: Path) -> None:
    write_tokenizer(write_checkpoint(tmp_path), added={"<a>": VOCABULARY})
    edit_json(tmp_path / "tokenizer_config.json", eos_token="<a>")
    assert judge(tmp_path) == [("error", "tokenizer-misfit")]


def test_rows_are_taken_from_the_configuration_without_weights(tmp_path: Path) -> None:
    write_tokenizer(write_checkpoint(tmp_path), trained=VOCABULARY + 1)
    (tmp_path / "model.safetensors").unlink()
    assert judge(tmp_path) == [("error", "tokenizer-misfit")]


def test_models_that_need_no_template(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path) / "chat_template.jinja").unlink()
    assert judge(tmp_path) == [("warning", "template-missing")]
    edit_json(tmp_path / "config.json", architectures=["BertModel"])
    assert judge(tmp_path) == []
    edit_json(tmp_path / "config.json", architectures=["PaliGemmaForConditionalGeneration"], model_type="paligemma")
    assert judge(tmp_path) == []
