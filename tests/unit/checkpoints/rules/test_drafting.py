import json
from pathlib import Path

import pytest

from gateway.checkpoints.admission import check_draft
from tests.support.safetensors_files import (
    VOCABULARY,
    edit_json,
    list_shapes,
    write_checkpoint,
    write_tensors,
    write_tokenizer,
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_checkpoint(tmp_path / "draft"), write_checkpoint(tmp_path / "base")


def test_a_smaller_model_of_the_same_words_is_a_draft(pair: tuple[Path, Path]) -> None:
    write_tensors(pair[0] / "model.safetensors", list_shapes(layers=1))
    edit_json(pair[0] / "config.json", num_hidden_layers=1)
    assert check_draft(*pair) is None


def test_a_draft_head_needs_neither_words_nor_embeddings(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    (draft / "tokenizer.json").unlink()
    (draft / "tokenizer_config.json").unlink()
    edit_json(draft / "config.json", architectures=["Eagle3LlamaForCausalLM"], num_hidden_layers=1)
    write_tensors(draft / "model.safetensors", {"midlayer.mlp.up_proj.weight": (16, 8), "fc.weight": (8, 24)})
    assert check_draft(draft, base) is None


def test_another_vocabulary_is_refused(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    write_tensors(draft / "model.safetensors", list_shapes(rows=VOCABULARY + 8))
    edit_json(draft / "config.json", vocab_size=VOCABULARY + 8)
    fault = check_draft(draft, base)
    assert fault is not None
    assert fault.code == "draft-misfit"
    assert "the draft draft has 24 tokens in its config.json, the model 16" in str(fault)
    assert "ngram" in fault.mend


def test_the_same_numbers_for_other_words_are_refused(pair: tuple[Path, Path]) -> None:
    write_tokenizer(pair[0], trained=VOCABULARY - 2)
    fault = check_draft(*pair)
    assert fault is not None
    assert fault.code == "draft-misfit"
    assert "under the same numbers" in fault.message


def test_a_head_of_fewer_words_is_a_draft(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    edit_json(draft / "config.json", architectures=["LlamaForCausalLMEagle3"], draft_vocab_size=10)
    write_tensors(draft / "model.safetensors", list_shapes() | {"lm_head.weight": (10, 8)})
    assert check_draft(draft, base) is None


def test_the_same_words_written_otherwise_are_the_same(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    assert check_draft(*pair) is None


def test_code_of_a_draft_is_to_be_trusted(pair: tuple[Path, Path]) -> None:
    edit_json(pair[0] / "config.json", model_type="mine", auto_map={"AutoConfig": "m.M"})
    assert "trust-remote-code" in str(check_draft(*pair))
    assert check_draft(*pair, trusts_code=True) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_draft_is_refused(pair: tuple[Path, Path], name: str) -> None:
    (pair[0] / name).unlink()
    fault = check_draft(*pair)
    assert fault is not None
    assert fault.code == "draft-unusable"
    assert f"cannot be used: {name} is missing" in fault.message


def test_a_folder_that_is_not_there_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    fault = check_draft(tmp_path / "gone", pair[1])
    assert "does not exist" in str(fault)
