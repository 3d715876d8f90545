"""The drawing codes that turn a scene into pixels for training, and the sizes pictures come in."""

import io
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from gateway.demo.lettering import draw_digits
from gateway.demo.scenes import Rgb, Scene, imagine

RENDERERS = ("plain", "smooth", "raster")
GRIDS = ((4, 4), (3, 4), (4, 3), (3, 5), (5, 3), (2, 5), (5, 2))
CELL_PX = 28
PATCH_PX = 14
MIN_PIXELS, MAX_PIXELS = 7800, 13000
"""What the picture processor scales to: a square becomes four by four cells, whatever its size."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def _paint_ground(scene: Scene, rng: random.Random, scale: int) -> Image.Image:
    """A flat background or, now and then, one with a light gradient or stripes."""
    width, height = scene.width * scale, scene.height * scale
    if rng.random() < 0.72:
        return Image.new("RGB", (width, height), scene.ground_rgb)
    base = np.empty((height, width, 3), np.float32)
    base[:] = scene.ground_rgb
    along = (
        np.linspace(-1, 1, width)[None, :, None] if rng.random() < 0.5 else np.linspace(-1, 1, height)[:, None, None]
    )
    if rng.random() < 0.6:
        base += along * rng.uniform(8, 26)
    else:
        base += np.sign(np.sin(along * rng.uniform(8, 40))) * rng.uniform(3, 12)
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def _draw_plain(scene: Scene, rng: random.Random, scale: int = 1) -> Image.Image:
    """Pillow's own polygons and ellipses, hard edges, sometimes with an outline."""
    picture = _paint_ground(scene, rng, scale)
    canvas = ImageDraw.Draw(picture)
    w, h = scene.width * scale, scene.height * scale
    edge = _pick_edge(scene, rng)
    pen = max(1, round(scale * min(scene.width, scene.height) / rng.randint(50, 110)))
    for thing in scene.things:
        if thing.shape == "circle":
            box = (thing.box[0] * w, thing.box[1] * h, thing.box[2] * w - 1, thing.box[3] * h - 1)
            canvas.ellipse(box, fill=thing.rgb, outline=edge, width=pen)
        else:
            points = [(x * w, y * h) for x, y in thing.outline]
            canvas.polygon(points, fill=thing.rgb, outline=edge, width=pen)
    if scene.number:
        draw_digits(canvas, scene.number, scale)
    return picture


def _pick_edge(scene: Scene, rng: random.Random) -> Rgb | None:
    """An outline shade, mostly none; never on black or white shapes, whose colour it could change."""
    if rng.random() > 0.15 or any(thing.colour in ("black", "white") for thing in scene.things):
        return None
    return rng.choice(((0, 0, 0), (255, 255, 255), (40, 40, 40)))


def _draw_smooth(scene: Scene, rng: random.Random) -> Image.Image:
    """The same outlines drawn four times as large, then shrunk."""
    return _draw_plain(scene, rng, 3).resize((scene.width, scene.height), Image.Resampling.BOX)


def _draw_raster(scene: Scene, rng: random.Random) -> Image.Image:
    """Outlines filled by counting crossings per sample point, with a shade across each shape."""
    pixels = np.asarray(_paint_ground(scene, rng, 1), np.float32).copy()
    for thing in scene.things:
        x0, y0 = max(0, int(thing.box[0] * scene.width)), max(0, int(thing.box[1] * scene.height))
        x1, y1 = int(thing.box[2] * scene.width) + 2, int(thing.box[3] * scene.height) + 2
        area = pixels[y0:y1, x0:x1]
        cover = np.zeros(area.shape[:2], np.float32)
        points = np.array(thing.outline, np.float32) * (scene.width, scene.height) - (x0, y0)
        for dx, dy in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
            cover += _inside(points, area.shape[1], area.shape[0], dx, dy) / 4
        tilt = np.linspace(-1, 1, area.shape[0], dtype=np.float32)[:, None, None] * rng.choice((0.0, 0.0, 12.0, -12.0))
        area += cover[..., None] * (np.array(thing.rgb, np.float32) + tilt - area)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if scene.number:
        draw_digits(ImageDraw.Draw(picture), scene.number, 1)
    return picture


def _inside(points: NDArray[np.float32], width: int, height: int, dx: float, dy: float) -> NDArray[np.bool_]:
    """Which sample points of a width x height raster lie inside the polygon (even-odd rule)."""
    xs, ys = np.arange(width, dtype=np.float32)[None] + dx, np.arange(height, dtype=np.float32)[:, None] + dy
    odd = np.zeros((height, width), bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if ay == by:
            continue
        crossed = (ay > ys) != (by > ys)
        odd ^= crossed & (xs < (bx - ax) * (ys - ay) / (by - ay) + ax)
    return odd


def _wear(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Light damage now and then: JPEG artefacts, noise, blur."""
    luck = rng.random()
    if luck < 0.12:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=rng.randint(40, 92))
        return Image.open(buffer).convert("RGB")
    if luck < 0.24:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 10), (*picture.size[::-1], 3))
        return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    if luck < 0.3:
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    return picture


def draw(scene: Scene, rng: random.Random, renderer: str = "") -> Image.Image:
    """The scene as an RGB picture, by the named renderer or one of them at random."""
    renderer = renderer or rng.choice(RENDERERS)
    drawers = {"plain": _draw_plain, "smooth": _draw_smooth, "raster": _draw_raster}
    return _wear(drawers[renderer](scene, rng), rng)


def pick_size(grid: tuple[int, int], rng: random.Random) -> tuple[int, int]:
    """Width and height of a picture that preprocessing will turn into `grid` (rows, columns) cells."""
    height, width = grid[0] * CELL_PX, grid[1] * CELL_PX
    if rng.random() < 0.6:
        return width, height
    scale = rng.choice((0.6, 0.8, 1.25, 1.5, 2.0, 2.0, 2.5, 3.0))
    stretch = rng.uniform(0.88, 1.14)
    return round(width * scale * stretch), round(height * scale)


def make(rng: random.Random, grid: tuple[int, int] = (4, 4), kind: str = "") -> tuple[Scene, Image.Image]:
    """A scene and its picture, ready-sized for `grid` cells of 28 pixels."""
    scene = imagine(rng, *pick_size(grid, rng), kind)
    picture = draw(scene, rng)
    target = (grid[1] * CELL_PX, grid[0] * CELL_PX)
    if picture.size != target:
        picture = picture.resize(target, Image.Resampling.BICUBIC)
    return scene, picture
