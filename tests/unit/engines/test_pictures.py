from pathlib import Path

import pytest

from gateway.engines.pictures import list_picture_flags
from tests.support.safetensors_files import edit_json, write_checkpoint, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, is_visual=True)
    settings = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 50176}
    write_json(tmp_path / "preprocessor_config.json", settings)
    return tmp_path


def told(least: int, most: int) -> dict[str, object]:
    return {"images_kwargs": {"size": {"shortest_edge": least, "longest_edge": most}}}


def test_a_bound_that_is_not_given_stays_the_checkpoints(folder: Path) -> None:
    trusting = {"trust-request-mm-kwargs": True}
    assert list_picture_flags(folder, {"max_pixels": 9000}) == {"mm-processor-kwargs": told(3136, 9000)} | trusting
    assert list_picture_flags(folder, {"min_pixels": 4000}) == {"mm-processor-kwargs": told(4000, 50176)}
    both = list_picture_flags(folder, {"min_pixels": 10, "max_pixels": 20})
    assert both == {"mm-processor-kwargs": told(10, 20)} | trusting


def test_bounds_that_cannot_be_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 3,136 pixels and at most 1,000 cannot be: give the other one too"):
        list_picture_flags(folder, {"max_pixels": 1000})
    write_json(folder / "preprocessor_config.json", {})
    with pytest.raises(ValueError, match="has no bounds of its own, so give both"):
        list_picture_flags(folder, {"max_pixels": 1000})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("InternVLForConditionalGeneration", "it cuts pictures into tiles: set engine_args {mm-processor-kwargs: "),
        ("LlamaForCausalLM", "mean nothing to LlamaForCausalLM: take them out"),
    ],
)
def test_where_they_mean_nothing_they_are_refused(folder: Path, name: str, words: str) -> None:
    edit_json(folder / "config.json", architectures=[name])
    with pytest.raises(ValueError, match="min_pixels and max_pixels mean nothing to") as refused:
        list_picture_flags(folder, {"max_pixels": 9000})
    assert words in str(refused.value)
