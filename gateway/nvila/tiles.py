"""Pictures as the published preprocessing makes them: cut into square tiles, then turned into numbers.

Facts from llava/mm_utils.py (dynamic_preprocess, process_image) and llava/model/llava_arch.py (generate_content): a
lone picture is cut into a grid that fits its proportions, with the whole of it, small, behind the tiles; several
pictures, and the frames of videos, are one tile each. Any picture becomes a tile by bicubic resizing, whatever its
proportions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Numbers = npt.NDArray[np.float32]

_BICUBIC = 3
_HALF = (0.5, 0.5, 0.5)


def choose_grid(width: int, height: int, side: int, least: int, most: int) -> tuple[int, int]:
    """Columns and rows of the grid, of `least` to `most` tiles, whose proportions are nearest to the picture's.

    Of two that are as near, the one with more tiles is taken if the picture fills more than half of it.
    """
    sizes = range(1, most + 1)
    grids = [(columns, rows) for columns in sizes for rows in sizes if least <= columns * rows <= most]
    best, best_distance = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        fills = width * height > 0.5 * side * side * columns * rows
        if distance < best_distance or (distance == best_distance and fills):
            best, best_distance = (columns, rows), distance
    return best


def cut_tiles(picture: Image.Image, side: int, least: int, most: int) -> list[Image.Image]:
    """The tiles of a picture row by row, and the whole of it last if they are several."""
    columns, rows = choose_grid(picture.width, picture.height, side, least, most)
    resized = picture.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    corners = [(side * column, side * row) for row in range(rows) for column in range(columns)]
    tiles = [resized.crop((x, y, x + side, y + side)) for x, y in corners]
    return tiles if len(tiles) == 1 else [*tiles, whole_tile(picture, side)]


def whole_tile(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture as one tile."""
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def to_numbers(tiles: Sequence[Image.Image], settings: Mapping[str, Any]) -> Numbers:
    """Tiles by channels by rows by columns, scaled and normalised by `vision_tower/preprocessor_config.json`.

    Raises ValueError for settings that ask for another way of resizing.
    """
    if settings.get("resample", _BICUBIC) != _BICUBIC:
        raise ValueError(f"preprocessor_config.json: resample is {settings['resample']}, NVILA's is 3, bicubic")
    pixels = np.stack([np.asarray(tile, dtype=np.float32) for tile in tiles])
    factor = np.asarray(settings.get("rescale_factor", 1 / 255), dtype=np.float32)
    mean = np.asarray(settings.get("image_mean", _HALF), dtype=np.float32)
    deviation = np.asarray(settings.get("image_std", _HALF), dtype=np.float32)
    return np.ascontiguousarray(((pixels * factor - mean) / deviation).transpose(0, 3, 1, 2))


def spread_frames(count: int, wanted: int) -> list[int]:
    """Numbers of `wanted` frames, evenly from the first to the last of `count`; a short video repeats some.

    As llava/utils/media.py takes them from a file.
    """
    return [int(number) for number in np.round(np.linspace(0, count - 1, wanted))]
