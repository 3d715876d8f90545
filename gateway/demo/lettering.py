"""Printed digits: the fonts, where each digit ends up, and how they are drawn."""

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf", "DejaVuSans-BoldOblique.ttf", "cmss10.ttf", "pil", "segments",
)  # fmt: skip
_SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc",
    "8": "abcdefg", "9": "gfabcd",
}  # fmt: skip
_SEGMENT_ENDS = {
    "a": (0, 0, 1, 0), "b": (1, 0, 1, 1), "c": (1, 1, 1, 2), "d": (0, 2, 1, 2), "e": (0, 1, 0, 2), "f": (0, 0, 0, 1),
    "g": (0, 1, 1, 1),
}  # fmt: skip

Box = tuple[float, float, float, float]


@lru_cache(maxsize=512)
def load_font(name: str, size_px: int) -> Any:
    """A font of the fixed list, from Pillow or from matplotlib's own data folder."""
    if name == "pil":
        return ImageFont.load_default(size_px)
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size_px)


def measure_digits(digits: str, font: str, size_px: int) -> list[Box]:
    """Pixel boxes of the digits when the text's own corner is at 0, 0."""
    if font == "segments":
        step, wide, high = size_px * 0.62, size_px * 0.5, size_px * 0.95
        return [(i * step, 0.0, i * step + wide, high) for i in range(len(digits))]
    loaded = load_font(font, size_px)
    left, top, right, bottom = loaded.getbbox(digits)
    cuts = [loaded.getlength(digits[:i]) - left for i in range(len(digits))] + [right - left]
    return [(max(a, 0.0), 0.0, b, float(bottom - top)) for a, b in itertools.pairwise(cuts)]


def draw_digits(canvas: Any, number: Any, scale: int) -> None:
    """Draw a `scenes.Number` on a Pillow canvas whose pixels are `scale` times as fine as the scene's."""
    x, y = number.corner[0] * scale, number.corner[1] * scale
    size = number.size_px * scale
    if number.font != "segments":
        font = load_font(number.font, size)
        left, top, _, _ = font.getbbox(number.digits)
        canvas.text((x - left, y - top), number.digits, fill=number.rgb, font=font)
        return
    pen = max(2, round(size * 0.11))
    wide, high = size * 0.5 - pen, (size * 0.95 - pen) / 2
    for place_index, digit in enumerate(number.digits):
        x0, y0 = x + place_index * size * 0.62 + pen / 2, y + pen / 2
        for segment in _SEGMENTS[digit]:
            ax, ay, bx, by = _SEGMENT_ENDS[segment]
            ends = (x0 + ax * wide, y0 + ay * high, x0 + bx * wide, y0 + by * high)
            canvas.line(ends, fill=number.rgb, width=pen)
