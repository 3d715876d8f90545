from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.generation import judge_generation
from tests.support.safetensors_files import edit_json, write_checkpoint


def judge(folder: Path, **changes: object) -> list[str]:
    edit_json(write_checkpoint(folder) / "generation_config.json", **changes)
    return [finding.code for finding in judge_generation(read_contents(folder))]


@pytest.mark.parametrize("changes", [{}, {"top_k": -1}, {"top_k": 0}, {"temperature": 0}, {"top_p": 1.0}, {"min_p": 0}])
def test_usable_defaults(tmp_path: Path, changes: dict[str, object]) -> None:
    assert judge(tmp_path, **changes) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -0.1}, {"temperature": "hot"}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -5}, {"min_p": 2},
        {"repetition_penalty": 0}, {"max_new_tokens": 0}, {"temperature": float("inf")},
    ],
)  # fmt: skip
def test_defaults_that_would_refuse_every_request(tmp_path: Path, changes: dict[str, object]) -> None:
    assert judge(tmp_path, **changes) == ["generation-value"]


@pytest.mark.parametrize("place", ["config.json", "generation_config.json", "tokenizer_config.json", None])
def test_one_place_for_the_end_is_enough(tmp_path: Path, place: str | None) -> None:
    folder = write_checkpoint(tmp_path)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if name != place:
            edit_json(folder / name, eos_token_id=None, eos_token=None)
    codes = [finding.code for finding in judge_generation(read_contents(folder))]
    assert codes == ([] if place else ["end-missing"])


def test_pooling_models_need_no_end(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        edit_json(folder / name, eos_token_id=None, eos_token=None)
    edit_json(folder / "config.json", architectures=["BertModel"])
    assert list(judge_generation(read_contents(folder))) == []
