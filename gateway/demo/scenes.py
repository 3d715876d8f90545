"""What a picture shows: shapes with colours, sizes and places, or a printed number, on a background.

Everything follows from the random generator handed in. Boxes are true to the drawn outline and normalised to 0..1.
"""

import colorsys
import math
import random
from dataclasses import dataclass

from gateway.demo.lettering import FONTS, Box, measure_digits

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "black", "white")

# Hue in degrees, saturation and value in per cent; wide enough that a name means a family of shades.
_SHADES = {
    "red": ((-13, 8), (78, 100), (62, 100)),
    "orange": ((23, 39), (82, 100), (86, 100)),
    "yellow": ((50, 64), (68, 100), (84, 100)),
    "green": ((92, 152), (58, 100), (40, 100)),
    "cyan": ((174, 192), (55, 100), (72, 100)),
    "blue": ((207, 246), (62, 100), (48, 100)),
    "purple": ((268, 301), (50, 100), (45, 90)),
    "pink": ((322, 351), (22, 68), (92, 100)),
    "black": ((0, 360), (0, 40), (0, 12)),
    "white": ((0, 360), (0, 5), (95, 100)),
}
_PURE = {
    "red": (255, 0, 0), "orange": (255, 165, 0), "yellow": (255, 255, 0), "green": (0, 128, 0), "cyan": (0, 255, 255),
    "blue": (0, 0, 255), "purple": (128, 0, 128), "pink": (255, 192, 203), "black": (0, 0, 0), "white": (255, 255, 255),
}  # fmt: skip
Rgb = tuple[int, int, int]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Thing:
    """One drawn shape: its names, its outline and the tight box around it, both normalised to the picture."""

    shape: str
    colour: str
    rgb: Rgb
    outline: Points
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Number:
    """A printed number: its digits, colour and font, where it goes, and the box of each digit."""

    digits: str
    colour: str
    rgb: Rgb
    font: str
    size_px: int
    corner: tuple[float, float]
    boxes: tuple[Box, ...]

    @property
    def box(self) -> Box:
        """The box around all digits."""
        return self.boxes[0][0], self.boxes[0][1], self.boxes[-1][2], self.boxes[-1][3]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `ground` is the background's name when it has one, else an empty string."""

    width: int
    height: int
    ground: str
    ground_rgb: Rgb
    things: tuple[Thing, ...]
    number: Number | None = None


def pick_rgb(colour: str, rng: random.Random) -> Rgb:
    """A shade that a person would call `colour`; now and then the textbook one."""
    if rng.random() < 0.2:
        return _PURE[colour]
    hue, saturation, value = (rng.uniform(*span) for span in _SHADES[colour])
    red, green, blue = colorsys.hsv_to_rgb((hue % 360) / 360, saturation / 100, value / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def differ(one: Rgb, other: Rgb) -> float:
    """Distance of two shades in RGB, 0..441."""
    return math.dist(one, other)


def unit_outline(shape: str, rng: random.Random) -> list[tuple[float, float]]:
    """The corner points of one drawn instance of `shape`, around the origin, y downwards."""
    if shape == "circle":
        stretch = rng.uniform(0.9, 1.1)
        return [(math.cos(2 * math.pi * i / 40) * stretch, math.sin(2 * math.pi * i / 40)) for i in range(40)]
    if shape == "square":
        stretch = rng.uniform(0.88, 1.14)
        points, turn = [(-1, -1 * stretch), (1, -1 * stretch), (1, stretch), (-1, stretch)], rng.choice((0, 0, 0, 14))
    elif shape == "triangle":
        width = rng.uniform(0.8, 1.2)
        points, turn = [(0, -1), (width, 0.8), (-width, 0.8)], rng.choice((0, 0, 20, 20, 180))
    elif shape == "star":
        depth = rng.uniform(0.36, 0.5)
        radii = [1 if i % 2 == 0 else depth for i in range(10)]
        points = [(r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]
        turn = rng.choice((0, 0, 36))
    else:
        a = rng.uniform(0.24, 0.4)
        points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a)]
        points, turn = [*points, (-a, -a)], rng.choice((0, 0, 14))
    angle = math.radians(rng.uniform(-turn, turn))
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def place(shape: str, colour: str, rgb: Rgb, spot: Box, rng: random.Random, aspect: float = 1.0) -> Thing:
    """Draw `shape` as large as fits into `spot`; `aspect` is picture width over height, so that a circle stays round."""
    raw = [(x, y * aspect) for x, y in unit_outline(shape, rng)]
    left, right = min(x for x, _ in raw), max(x for x, _ in raw)
    top, bottom = min(y for _, y in raw), max(y for _, y in raw)
    scale = min((spot[2] - spot[0]) / (right - left), (spot[3] - spot[1]) / (bottom - top))
    x0 = (spot[0] + spot[2]) / 2 - scale * (left + right) / 2
    y0 = (spot[1] + spot[3]) / 2 - scale * (top + bottom) / 2
    outline = tuple((x0 + x * scale, y0 + y * scale) for x, y in raw)
    box = (x0 + left * scale, y0 + top * scale, x0 + right * scale, y0 + bottom * scale)
    return Thing(shape, colour, rgb, outline, box)


def _find_spots(count: int, width: int, height: int, rng: random.Random) -> list[Box]:
    """Up to `count` boxes that do not touch, sized so that they tend to fit."""
    low, high = {1: (0.28, 0.62), 2: (0.26, 0.5), 3: (0.24, 0.42)}.get(count, (0.22, 0.33))
    unit = math.sqrt(width * height)
    spots: list[Box] = []
    for _ in range(60):
        if len(spots) == count:
            break
        size = rng.uniform(low, high) * unit
        w, h = min(size / width, 0.94), min(size / height, 0.94)
        x, y = rng.uniform(0.02, 0.98 - w), rng.uniform(0.02, 0.98 - h)
        gap = 0.015
        if all(x > s[2] + gap or x + w < s[0] - gap or y > s[3] + gap or y + h < s[1] - gap for s in spots):
            spots.append((x, y, x + w, y + h))
    return spots


def pick_ground(used: list[Rgb], rng: random.Random) -> tuple[str, Rgb]:
    """A background that every colour in `used` stands out from, and its name."""
    for _ in range(50):
        kind = rng.random()
        if kind < 0.28:
            name, rgb = "white", pick_rgb("white", rng)
        elif kind < 0.44:
            name, rgb = "black", pick_rgb("black", rng)
        elif kind < 0.66:
            level = rng.randint(60, 210)
            name, rgb = "gray", (level, level, level)
        elif kind < 0.82:
            name = rng.choice(COLOURS)
            rgb = pick_rgb(name, rng)
        else:
            name, rgb = "", (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if all(differ(rgb, other) > 85 for other in used):
            return name, rgb
    return "gray", (128, 128, 128)


def imagine(rng: random.Random, width: int, height: int, kind: str = "") -> Scene:
    """A random scene; `kind` is "shapes", "number" or empty for either."""
    kind = kind or ("number" if rng.random() < 0.3 else "shapes")
    if kind == "number":
        colour = rng.choice(COLOURS)
        rgb = pick_rgb(colour, rng)
        ground, ground_rgb = pick_ground([rgb], rng)
        return Scene(width, height, ground, ground_rgb, (), _imagine_number(colour, rgb, width, height, rng))
    count = rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5))
    spots = _find_spots(count, width, height, rng)
    few = rng.random() < 0.35
    shapes = rng.sample(SHAPES, 2) if few else SHAPES
    colours = rng.sample(COLOURS, 2) if few else COLOURS
    picked = [(rng.choice(shapes), rng.choice(colours)) for _ in spots]
    shades = [pick_rgb(colour, rng) for _, colour in picked]
    ground, ground_rgb = pick_ground(shades, rng)
    if any(differ(ground_rgb, shade) <= 60 for shade in shades):
        return imagine(rng, width, height, kind)
    named = zip(picked, shades, spots, strict=True)
    things = tuple(place(s, c, rgb, spot, rng, width / height) for (s, c), rgb, spot in named)
    return Scene(width, height, ground, ground_rgb, things)


def _imagine_number(colour: str, rgb: Rgb, width: int, height: int, rng: random.Random) -> Number:
    length = rng.choice((1, 2, 2, 3, 3))
    digits = str(rng.randint(10 ** (length - 1) if length > 1 else 0, 10**length - 1))
    font = rng.choice(FONTS)
    size = rng.uniform(0.3, 0.75) * height
    for _ in range(12):
        boxes = measure_digits(digits, font, round(size))
        w, h = boxes[-1][2], max(box[3] for box in boxes)
        if w < 0.94 * width and h < 0.94 * height:
            break
        size *= 0.87
    x, y = rng.uniform(0.02, 0.98) * (width - w), rng.uniform(0.02, 0.98) * (height - h)
    placed = tuple(((x + b[0]) / width, (y + b[1]) / height, (x + b[2]) / width, (y + b[3]) / height) for b in boxes)
    return Number(digits, colour, rgb, font, round(size), (x, y), placed)
