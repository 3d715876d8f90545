"""A drawing code that training never sees, to measure with: matplotlib's own primitives, CSS shades, other fonts."""

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gateway.demo.lettering import Box
from gateway.demo.scenes import Number, Rgb, Scene, Thing, differ, imagine

_SHADES = {
    "red": ("red", "crimson", "firebrick"), "orange": ("orange", "darkorange"), "yellow": ("yellow", "gold"),
    "green": ("green", "limegreen", "forestgreen"), "cyan": ("cyan", "darkturquoise"),
    "blue": ("blue", "royalblue", "mediumblue"), "purple": ("purple", "darkorchid", "darkviolet"),
    "pink": ("pink", "hotpink", "lightpink"), "black": ("black",), "white": ("white",),
}  # fmt: skip
_GROUNDS = (
    "white",
    "whitesmoke",
    "lightgray",
    "gray",
    "dimgray",
    "black",
    "beige",
    "lightsteelblue",
    "darkslategray",
    "lavender",
)
_NAMED_GROUNDS = {"white": "white", "black": "black", "gray": "gray"}
_FONTS = ("STIXGeneralBol.ttf", "cmb10.ttf", "cmtt10.ttf")


def draw_other(rng: random.Random, kind: str = "") -> tuple[Scene, Image.Image]:
    """A scene and its picture, 160 to 480 pixels wide, drawn by matplotlib alone."""
    side = rng.choice((160, 224, 336, 480))
    scene = imagine(rng, side, side, kind)
    things = tuple(dataclasses.replace(t, rgb=_shade(rng.choice(_SHADES[t.colour]))) for t in scene.things)
    number = scene.number and dataclasses.replace(scene.number, rgb=_shade(rng.choice(_SHADES[scene.number.colour])))
    used = [t.rgb for t in things] + ([number.rgb] if number else [])
    grounds = [name for name in _GROUNDS if all(differ(_shade(name), rgb) > 90 for rgb in used)]
    if not grounds:
        return draw_other(rng, kind)
    ground = rng.choice(grounds)
    patches = [patch for thing in things for patch in _patches(thing)]
    if number:
        path, box = _number_path(number, rng)
        number = dataclasses.replace(number, boxes=(box,))
        patches.append(path)
    rgb = _shade(ground)
    return Scene(side, side, _NAMED_GROUNDS.get(ground, ""), rgb, things, number), _render(patches, rgb, side)


def _shade(name: str) -> Rgb:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(name)
    return round(red * 255), round(green * 255), round(blue * 255)


def _patches(thing: Thing) -> list[Any]:
    """matplotlib's own shape, fitted into the thing's box."""
    from matplotlib import patches

    x0, y0, x1, y1 = thing.box
    wide, high = x1 - x0, y1 - y0
    paint = {"facecolor": tuple(value / 255 for value in thing.rgb), "linewidth": 0}
    if thing.shape == "circle":
        return [patches.Ellipse(((x0 + x1) / 2, (y0 + y1) / 2), wide, high, **paint)]
    if thing.shape == "square":
        return [patches.Rectangle((x0, y0), wide, high, **paint)]
    if thing.shape == "cross":
        bar_wide, bar_high = wide * 0.32, high * 0.32
        upright = patches.Rectangle(((x0 + x1 - bar_wide) / 2, y0), bar_wide, high, **paint)
        return [upright, patches.Rectangle((x0, (y0 + y1 - bar_high) / 2), wide, bar_high, **paint)]
    if thing.shape == "triangle":
        points = np.array([(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)])
    else:
        radii = [1 if i % 2 == 0 else 0.42 for i in range(10)]
        points = np.array(
            [(r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]
        )
        points = (points - points.min(0)) / (points.max(0) - points.min(0))
    return [patches.Polygon(points * (wide, high) + (x0, y0), **paint)]


def _number_path(number: Number, rng: random.Random) -> tuple[Any, Box]:
    """The digits as an outline, as high as the scene wants and as wide as their font makes them."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / rng.choice(_FONTS)
    text = TextPath((0, 0), number.digits, size=100, prop=FontProperties(fname=str(file)))
    points = np.array(text.vertices) * (1, -1)
    low, high = points.min(0), points.max(0)
    x0, y0, x1, y1 = number.box
    scale = min((x1 - x0) / (high[0] - low[0]), (y1 - y0) / (high[1] - low[1]))
    points = (points - low) * scale + (x0, y0)
    right, bottom = points.max(0)
    patch = PathPatch(Outline(points, text.codes), facecolor=tuple(v / 255 for v in number.rgb), linewidth=0)
    return patch, (x0, y0, float(right), float(bottom))


def _render(patches: list[Any], ground: Rgb, side: int) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side / 100, side / 100), dpi=100, facecolor=tuple(value / 255 for value in ground))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    for patch in patches:
        axes.add_patch(patch)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
