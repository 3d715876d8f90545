from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.comparison import Change, compare
from gateway.checkpoints.contents import read_contents
from tests.support.safetensors_files import (
    edit_json,
    list_shapes,
    write_checkpoint,
    write_json,
    write_tensors,
    write_tokenizer,
)

CONFIG, GENERATION = "config.json", "generation_config.json"


def changes(one: Path, other: Path) -> list[str]:
    return [str(change) for change in compare(read_contents(other), read_contents(one))]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_checkpoint(tmp_path / "one"), write_checkpoint(tmp_path / "other")


def test_two_of_a_kind_do_not_differ_whatever_their_weights(pair: tuple[Path, Path]) -> None:
    write_tensors(pair[1] / "model.safetensors", list_shapes(), fill=b"\0\0\0\0")
    assert changes(*pair) == []


@pytest.mark.parametrize(
    ("file", "edit", "expected"),
    [
        (CONFIG, {"architectures": ["Qwen2ForCausalLM"]}, ["architecture: LlamaForCausalLM → Qwen2ForCausalLM"]),
        (CONFIG, {"max_position_embeddings": 64}, ["context tokens: 128 → 64"]),
        (CONFIG, {"tie_word_embeddings": True}, ["tied: no → yes"]),
        (CONFIG, {"quantization_config": {"quant_method": "awq"}}, ["quantization: none → awq"]),
        (GENERATION, {"temperature": 0.1, "top_k": 5}, ["temperature: 0.7 → 0.1", "top_k: none → 5"]),
        (GENERATION, {"eos_token_id": [2, 3]}, ["eos_token_id: 2 → [2, 3]"]),
        ("tokenizer_config.json", {"eos_token": {"content": "t3"}}, ["eos_token: t2 → t3"]),
    ],
)
def test_settings_that_clients_notice(
    pair: tuple[Path, Path], file: str, edit: dict[str, Any], expected: list[str]
) -> None:
    edit_json(pair[1] / file, **edit)
    assert changes(*pair) == expected


def test_a_template_is_told_by_its_lines(pair: tuple[Path, Path]) -> None:
    (pair[0] / "chat_template.jinja").write_text("a\nb\nc\n")
    (pair[1] / "chat_template.jinja").write_text("a\nc\nd\n  e\n")
    assert changes(*pair) == ["chat template: 1 lines gone, first 'b' → 2 lines new, first 'd'"]
    (pair[1] / "chat_template.jinja").unlink()
    assert changes(*pair) == ["chat template: present → none"]


def test_tokenizers_are_told_apart(pair: tuple[Path, Path]) -> None:
    write_tokenizer(pair[1], added={"<end>": 14, "<new>": 15})
    assert changes(*pair) == ["added tokens <new>: none → present", "numbers of tokens: <end> 15 → <end> 14"]
    assert changes(pair[1], pair[0])[0] == "added tokens <new>: present → none"
    write_tokenizer(pair[1], trained=9)
    assert changes(*pair) == ["tokenizer's words and rules: as they were → others"]


def test_picture_settings_are_told_one_by_one(tmp_path: Path) -> None:
    one, other = (write_checkpoint(tmp_path / name, is_visual=True) for name in ("one", "other"))
    write_json(one / "preprocessor_config.json", {"max_pixels": 100, "processor_class": "A"})
    write_json(other / "preprocessor_config.json", {"max_pixels": 50, "do_resize": True, "processor_class": "B"})
    assert changes(one, other) == ["picture setting do_resize: none → yes", "picture setting max_pixels: 100 → 50"]


def test_what_comes_from_a_checkpoint_cannot_reach_the_terminal(pair: tuple[Path, Path]) -> None:
    edit_json(pair[1] / CONFIG, architectures=["\x1b[2J"])
    (pair[1] / "chat_template.jinja").write_text("\x1b[31m" + "x" * 500)
    shown = "".join(changes(*pair))
    assert "\x1b" not in shown
    assert len(shown) < 400


def test_nothing_to_compare_with_is_survived(tmp_path: Path) -> None:
    assert "architecture: none → LlamaForCausalLM" in changes(tmp_path / "gone", write_checkpoint(tmp_path / "one"))


def test_a_change_is_plain_data() -> None:
    assert Change("layers", "2", "3").to_dict() == {"what": "layers", "before": "2", "now": "3"}
