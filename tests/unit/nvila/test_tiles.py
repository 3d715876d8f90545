import numpy as np
import pytest
from PIL import Image

from gateway.nvila.tiles import choose_grid, cut_tiles, spread_frames, to_numbers, whole_tile


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((448, 448), (1, 1)),
        ((10, 10), (1, 1)),
        ((1000, 1000), (3, 3)),  # as near as one by one, and the picture fills more than half of it
        ((600, 600), (1, 1)),  # fills less than half of two by two
        ((900, 900), (2, 2)),
        ((1920, 1080), (4, 2)),
        ((4000, 2250), (7, 4)),
        ((100, 3000), (1, 12)),
        ((3000, 100), (12, 1)),
        ((300, 200), (3, 2)),
    ],
)
def test_grids(size: tuple[int, int], grid: tuple[int, int]) -> None:
    most = 28 if size == (4000, 2250) else 12
    assert choose_grid(*size, 448, 1, most) == grid


def test_a_least_number_of_tiles_holds() -> None:
    columns, rows = choose_grid(448, 448, 448, 4, 12)
    assert columns * rows >= 4


def test_tiles_lie_row_by_row_with_the_whole_behind() -> None:
    picture = Image.new("RGB", (80, 40), "black")
    picture.paste((255, 0, 0), (40, 0, 80, 40))
    left, right, whole = cut_tiles(picture, 40, 1, 4)
    assert left.getpixel((10, 20)) == (0, 0, 0)
    assert right.getpixel((20, 20)) == (255, 0, 0)
    assert whole.size == (40, 40)
    assert whole.getpixel((5, 5)) == (0, 0, 0)
    assert whole.getpixel((35, 5)) == (255, 0, 0)


def test_one_tile_has_nothing_behind_it() -> None:
    assert len(cut_tiles(Image.new("RGB", (30, 30)), 40, 1, 12)) == 1


def test_numbers_are_scaled_and_normalised() -> None:
    picture = whole_tile(Image.new("RGB", (9, 5), (0, 255, 51)), 4)
    numbers = to_numbers([picture], {"image_mean": [0.5, 0.5, 0.2], "image_std": [0.5, 0.25, 0.5]})
    assert numbers.shape == (1, 3, 4, 4)
    assert numbers.dtype == np.float32
    assert numbers[0, :, 2, 3] == pytest.approx([-1, 2, 0], abs=1e-6)


def test_another_way_of_resizing_is_refused() -> None:
    with pytest.raises(ValueError, match="resample is 2"):
        to_numbers([Image.new("RGB", (4, 4))], {"resample": 2})


@pytest.mark.parametrize(
    ("count", "wanted", "frames"),
    [(9, 4, [0, 3, 5, 8]), (100, 8, [0, 14, 28, 42, 57, 71, 85, 99]), (2, 4, [0, 0, 1, 1]), (1, 3, [0, 0, 0])],
)
def test_frames_are_spread_and_those_of_short_videos_repeated(count: int, wanted: int, frames: list[int]) -> None:
    assert spread_frames(count, wanted) == frames
