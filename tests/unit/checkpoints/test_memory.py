from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.memory import USABLE_SHARE, MemoryPlan, PictureCost, count_picture_tokens, plan_memory
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import edit_json, write_adapter, write_checkpoint, write_json

DEMO = Path(__file__).parents[3] / "gateway" / "demo" / "shapes-v2"


def plan(folder: Path, **changes: Any) -> MemoryPlan:
    write_checkpoint(folder)
    edit_json(folder / "config.json", **changes)
    made = plan_memory(read_contents(folder))
    assert made is not None
    return made


def test_weights_and_cache_follow_from_the_configuration(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.weights_bytes == read_contents(tmp_path).weights.size_bytes
    assert made.cache_bytes_per_token == 2 * 2 * 2 * 4 * 4, "two layers, keys and values, two heads of four float32"
    assert (made.context_tokens, made.picture) == (128, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dtype": "bfloat16"}, 64),
        ({"dtype": None, "torch_dtype": "torch.float16"}, 64),
        ({"dtype": None}, 64),
        ({"num_key_value_heads": 1}, 64),
        ({"head_dim": 16}, 512),
        ({"layer_types": ["linear_attention", "full_attention"]}, 64),
        ({"layer_types": ["linear_attention", "linear_attention"]}, 0),
        ({"layer_types": ["full_attention"]}, 128),
        ({"kv_lora_rank": 10, "qk_rope_head_dim": 6, "dtype": "bfloat16"}, 64),
        ({"num_attention_heads": None}, None),
        ({"num_hidden_layers": None}, None),
    ],
)
def test_the_cache_of_one_token(tmp_path: Path, changes: dict[str, Any], expected: int | None) -> None:
    assert plan(tmp_path, **changes).cache_bytes_per_token == expected


def test_of_a_real_model_it_is_what_its_engine_says() -> None:
    made = plan_memory(read_contents(DEMO))
    assert made is not None
    assert made.cache_bytes_per_token == 4 * 2 * 4 * 32 * 2
    assert made.picture == PictureCost(10, 16, 7800, 13000)


def test_a_context_fits_where_weights_and_cache_do() -> None:
    made = MemoryPlan(weights_bytes=900, cache_bytes_per_token=10, context_tokens=50, picture=None)
    assert made.fit_context(10_000) == 50, "no longer than training allows"
    assert made.fit_context(1_200) == (int(1_200 * USABLE_SHARE) - 900) // 10
    assert made.fit_context(1_000) == made.fit_context(5) == 0
    assert MemoryPlan(900, None, 50, None).fit_context(10_000) is None


def test_without_a_cache_the_context_fits_where_the_weights_do(tmp_path: Path) -> None:
    for changes in ({"layer_types": ["linear_attention"] * 2}, {"kv_lora_rank": -64, "qk_rope_head_dim": 64}):
        made = plan(tmp_path, **changes)
        assert made.cache_bytes_per_token == 0
        assert (made.fit_context(10**9), made.fit_context(10)) == (128, 0)


def test_there_is_no_plan_for_anything_but_a_whole_checkpoint(tmp_path: Path) -> None:
    assert plan_memory(read_contents(write_adapter(tmp_path / "adapter"))) is None
    assert plan_memory(read_contents(tmp_path / "gone")) is None


def visual(folder: Path, settings: dict[str, Any], **changes: Any) -> Contents:
    write_checkpoint(folder, is_visual=True)
    edit_json(folder / "config.json", **changes)
    write_json(folder / "preprocessor_config.json", settings)
    return read_contents(folder)


PATCHES = {"patch_size": 14, "merge_size": 2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PATCHES | {"min_pixels": 3136, "max_pixels": 12845056}, PictureCost(4, 16384, 3136, 12845056)),
        (PATCHES | {"size": {"shortest_edge": 3137, "longest_edge": 7840}}, PictureCost(5, 10, 3137, 7840)),
        (PATCHES | {"min_pixels": 10, "max_pixels": 5}, None),
        (PATCHES | {"min_pixels": 10}, None),
        ({"patch_size": 0, "merge_size": 2, "min_pixels": 1, "max_pixels": 2}, None),
        ({}, None),
    ],
)
def test_pictures_are_scaled_between_two_numbers_of_pixels(
    tmp_path: Path, settings: dict[str, Any], expected: PictureCost | None
) -> None:
    assert count_picture_tokens(visual(tmp_path, settings)) == expected


def test_pictures_are_cut_into_tiles(tmp_path: Path) -> None:
    vision = {"image_size": [448, 448], "patch_size": [14, 14]}
    names = {"architectures": ["InternVLForConditionalGeneration"], "downsample_ratio": 0.5, "vision_config": vision}
    assert count_picture_tokens(visual(tmp_path, {"max_patches": 12}, **names)) == PictureCost(256, 256 * 13)
    assert count_picture_tokens(visual(tmp_path, {"max_patches": 1}, **names)) == PictureCost(256, 256)
    for broken in ({"downsample_ratio": 9}, {"vision_config": {"image_size": "big"}}):
        assert count_picture_tokens(visual(tmp_path, {}, **(names | broken))) is None


def test_pictures_of_checkpoints_in_parts_are_cut_into_a_grid(tmp_path: Path) -> None:
    def count(name: str, **settings: Any) -> PictureCost | None:
        return count_picture_tokens(read_contents(write_nvila(tmp_path / name, **settings)))

    # Four tokens and a line break a tile, and one more where the picture is cut.
    assert count("dynamic") == PictureCost(5, 7 * 6)
    assert count("single", max_tiles=1) == PictureCost(5, 6)
    assert count("resized", image_aspect_ratio="resize") == PictureCost(5, 5)
    assert count("odd", max_tiles=-3) is None
