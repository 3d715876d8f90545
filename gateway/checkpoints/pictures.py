"""What a picture costs in tokens, and by what a checkpoint bounds it: numbers of pixels, or of tiles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, floor, sqrt

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.parts import find_fold

COMMON_SIZES = ((640, 480), (1920, 1080))
"""Sizes of pictures, width by height, whose cost is told."""

# Their processors take bounds in pixels, from the command line of the engine and with each request. The dense ones of
# Qwen2.5-VL, Qwen3-VL and Qwen3.5 were tried; the others share their code.
_BY_PIXELS = (
    "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration", "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
)  # fmt: skip
_MOST_TILES = 1000


@dataclass(frozen=True, slots=True)
class PictureCost:
    """Tokens that one picture takes in the prompt, at least and at most, and the pixels that bound them if they do.

    `examples` are the tokens of common sizes, by names such as `640x480`.
    """

    least_tokens: int
    most_tokens: int
    least_pixels: int | None = None
    most_pixels: int | None = None
    examples: Mapping[str, int] = field(default_factory=dict)


def is_bounded_by_pixels(architectures: tuple[str, ...]) -> bool:
    """Whether pictures for such a model can be given other bounds in pixels than the checkpoint has."""
    return any(name in _BY_PIXELS for name in architectures)


def count_picture_tokens(contents: Contents) -> PictureCost | None:
    """What one picture costs; None for a model without pictures, or one whose way of cutting them is not known here."""
    if not contents.is_visual:
        return None
    if contents.is_in_parts:
        return _count_by_grid(contents.config)
    vision = contents.config.section("vision_config")
    settings = contents.preprocessor or contents.processor.section("image_processor")
    if vision.whole("spatial_merge_size") or settings.whole("merge_size"):
        return _count_by_pixels(vision, settings)
    if "InternVL" in " ".join(contents.config.texts("architectures")):
        return _count_by_tiles(contents.config, vision, settings)
    return None


def count_in_pixels(width: int, height: int, unit: int, least: int, most: int) -> int:
    """Tokens of a picture that keeps its proportions and is scaled between two numbers of pixels.

    A token stands for a square of `unit` pixels a side; the picture is cut to whole ones of them.
    """
    columns, rows = round(width / unit), round(height / unit)
    if columns * rows * unit**2 > most:
        shrink = sqrt(width * height / most)
        columns, rows = max(1, floor(width / shrink / unit)), max(1, floor(height / shrink / unit))
    elif columns * rows * unit**2 < least:
        grow = sqrt(least / (width * height))
        columns, rows = ceil(width * grow / unit), ceil(height * grow / unit)
    return columns * rows


def count_tiles(width: int, height: int, side: int, least: int, most: int) -> int:
    """Tiles of a picture that is cut into squares of `side` pixels, in the grid that fits its proportions best."""
    grids = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    grids = sorted((grid for grid in grids if grid[0] * grid[1] >= least), key=lambda grid: grid[0] * grid[1])
    best, chosen = float("inf"), 1
    for columns, rows in grids:
        difference = abs(width / height - columns / rows)
        # Of equal ones the larger, as long as the picture fills half of it.
        if difference < best or (difference == best and width * height > side**2 * columns * rows / 2):
            best, chosen = difference, columns * rows
    return chosen


def _count_by_pixels(vision: Fields, settings: Fields) -> PictureCost | None:
    """The Qwen family keeps a picture's proportions and scales it between two numbers of pixels."""
    patch = settings.whole("patch_size") or vision.whole("patch_size")
    merge = settings.whole("merge_size") or vision.whole("spatial_merge_size")
    size = settings.section("size")
    least = _first(settings.whole("min_pixels"), size.whole("min_pixels"), size.whole("shortest_edge"))
    most = _first(settings.whole("max_pixels"), size.whole("max_pixels"), size.whole("longest_edge"))
    if not patch or not merge or patch < 0 or merge < 0 or not least or not most or not 0 < least <= most:
        return None
    unit = patch * merge
    examples = {f"{wide}x{high}": count_in_pixels(wide, high, unit, least, most) for wide, high in COMMON_SIZES}
    return PictureCost(max(1, -(-least // unit**2)), max(1, most // unit**2), least, most, examples)


def _count_by_tiles(config: Fields, vision: Fields, settings: Fields) -> PictureCost | None:
    """InternVL cuts a picture into square tiles, and adds the whole one, small, where there are several."""
    side, patch = _read_side(vision.get("image_size")), _read_side(vision.get("patch_size"))
    ratio = config.number("downsample_ratio")
    if not side or not patch or not ratio or not 0 < ratio <= 1 or side < 0 or patch < 0:
        return None
    per_tile = int((side // patch) ** 2 * ratio**2)
    most = _first(settings.whole("max_patches"), config.whole("max_dynamic_patch")) or 12
    least = _first(settings.whole("min_patches"), config.whole("min_dynamic_patch")) or 1
    if per_tile <= 0 or not 0 < least <= most < _MOST_TILES:
        return None
    has_whole = bool(settings.flag("use_thumbnail") or config.flag("use_thumbnail") or "max_patches" in settings)

    def count_tokens(tiles: int) -> int:
        return per_tile * (tiles + (1 if has_whole and tiles > 1 else 0))

    tiles = {f"{wide}x{high}": count_tiles(wide, high, side, least, most) for wide, high in COMMON_SIZES}
    examples = {size: count_tokens(count) for size, count in tiles.items()}
    return PictureCost(count_tokens(least), count_tokens(most), examples=examples)


def _count_by_grid(config: Fields) -> PictureCost | None:
    """NVILA cuts a lone picture into a grid of tiles and adds the whole, with line breaks behind each."""
    vision, fold = config.section("vision_tower_cfg"), find_fold(config)
    side, patch = vision.whole("image_size"), vision.whole("patch_size")
    most, least = config.whole("max_tiles") or 12, config.whole("min_tiles") or 1
    if not side or not patch or not fold or not 0 < patch <= side or not 0 < least <= most < _MOST_TILES:
        return None
    per_tile = (-(-(side // patch) // fold)) ** 2 + 1
    if config.text("image_aspect_ratio") != "dynamic":
        return PictureCost(per_tile, per_tile, examples={f"{w}x{h}": per_tile for w, h in COMMON_SIZES})

    def count_tokens(tiles: int) -> int:
        return (per_tile + 1) * (tiles + 1 if tiles > 1 else 1)

    examples = {f"{w}x{h}": count_tokens(count_tiles(w, h, side, least, most)) for w, h in COMMON_SIZES}
    # One of several is not cut.
    return PictureCost(per_tile, count_tokens(most), examples=examples)


def _read_side(value: object) -> int | None:
    """A side in pixels, given as a number or as a pair of them."""
    if isinstance(value, list) and value:
        value = value[0]
    return Fields({"side": value}).whole("side")


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
