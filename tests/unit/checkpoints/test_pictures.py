from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.pictures import (
    PictureCost,
    count_in_pixels,
    count_picture_tokens,
    count_tiles,
    is_bounded_by_pixels,
)
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import edit_json, write_checkpoint, write_json


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
    found = count_picture_tokens(visual(tmp_path, settings))
    assert (None if found is None else replace(found, examples={})) == expected


VISION = {"image_size": [448, 448], "patch_size": [14, 14]}
TILES = {"architectures": ["InternVLForConditionalGeneration"], "downsample_ratio": 0.5, "vision_config": VISION}


def test_pictures_are_cut_into_tiles(tmp_path: Path) -> None:
    found = count_picture_tokens(visual(tmp_path, {"max_patches": 12}, **TILES))
    assert found == PictureCost(256, 256 * 13, examples={"640x480": 256 * 13, "1920x1080": 256 * 9})
    found = count_picture_tokens(visual(tmp_path, {"max_patches": 1}, **TILES))
    assert found == PictureCost(256, 256, examples={"640x480": 256, "1920x1080": 256})


@pytest.mark.parametrize(
    "broken",
    [{"downsample_ratio": 9}, {"vision_config": {"image_size": "big"}}, {"vision_config": VISION | {"patch_size": -1}}],
)
def test_what_bounds_no_tiles(tmp_path: Path, broken: dict[str, Any]) -> None:
    assert count_picture_tokens(visual(tmp_path, {}, **(TILES | broken))) is None


@pytest.mark.parametrize("bounds", [(-5, 3), (4, 3), (1, 10**9)])
def test_odd_numbers_of_tiles(tmp_path: Path, bounds: tuple[int, int]) -> None:
    settings = {"min_patches": bounds[0], "max_patches": bounds[1]}
    assert count_picture_tokens(visual(tmp_path, settings, **TILES)) is None


SIZES = [(640, 480), (1920, 1080), (64, 64), (333, 777), (1000, 10), (14, 14), (4000, 3000)]


@pytest.mark.parametrize(
    ("unit", "least", "most", "expected"),
    [
        (28, 3136, 12845056, [391, 2691, 4, 336, 20, 4, 15301]),
        (32, 65536, 16777216, [300, 2040, 64, 240, 80, 64, 11750]),
        (28, 7800, 13000, [12, 15, 16, 12, 32, 16, 12]),
    ],
)
def test_tokens_are_those_that_transformers_counts(unit: int, least: int, most: int, expected: list[int]) -> None:
    assert [count_in_pixels(width, height, unit, least, most) for width, height in SIZES] == expected


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (1, 12, [12, 8, 1, 10, 12, 1, 12]),
        (1, 6, [6, 2, 1, 2, 6, 1, 6]),
        (1, 1, [1, 1, 1, 1, 1, 1, 1]),
        (3, 7, [6, 6, 4, 3, 7, 4, 6]),
    ],
)
def test_tiles_are_those_that_transformers_cuts(least: int, most: int, expected: list[int]) -> None:
    assert [count_tiles(width, height, 448, least, most) for width, height in SIZES] == expected


def test_some_families_take_other_bounds() -> None:
    assert is_bounded_by_pixels(("Qwen3VLForConditionalGeneration",))
    assert not is_bounded_by_pixels(("InternVLForConditionalGeneration",))
    assert not is_bounded_by_pixels(())


def test_pictures_of_checkpoints_in_parts_are_cut_into_a_grid(tmp_path: Path) -> None:
    def count(name: str, **settings: Any) -> tuple[int, int] | None:
        found = count_picture_tokens(read_contents(write_nvila(tmp_path / name, **settings)))
        return None if found is None else (found.least_tokens, found.most_tokens)

    # Four tokens and a line break a tile, and one more where the picture is cut.
    assert count("dynamic") == (5, 7 * 6)
    assert count("single", max_tiles=1) == (5, 6)
    assert count("resized", image_aspect_ratio="resize") == (5, 5)
    assert count("odd", max_tiles=-3) is None
    assert count("none", min_tiles=7, max_tiles=6) is None
    many = count_picture_tokens(read_contents(write_nvila(tmp_path / "many", min_tiles=4, max_tiles=6)))
    assert many is not None
    assert all(tokens >= 5 * 6 for tokens in many.examples.values()), "a lone picture has four tiles and the whole"
    found = count_picture_tokens(read_contents(tmp_path / "dynamic"))
    assert found is not None
    assert all(found.least_tokens <= tokens <= found.most_tokens for tokens in found.examples.values())
