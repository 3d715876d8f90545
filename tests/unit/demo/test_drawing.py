"""The drawing codes: repeatable from a seed, and painting what the boxes say."""

import random

import numpy as np
import pytest
from PIL import Image

from gateway.demo.drawing import GRIDS, RENDERERS, draw, make, pick_size
from gateway.demo.lettering import Box
from gateway.demo.other_drawing import draw_other
from gateway.demo.scenes import SHAPES, Scene, Thing, place


def _painted_box(picture: Image.Image, ground: tuple[int, int, int]) -> Box:
    pixels = np.asarray(picture).astype(int)
    painted = np.abs(pixels - np.array(ground)).sum(-1) > 60
    rows, columns = np.where(painted.any(1))[0], np.where(painted.any(0))[0]
    height, width = painted.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _lone(shape: str, seed: int) -> tuple[Scene, Thing]:
    thing = place(shape, "red", (255, 0, 0), (0.2, 0.25, 0.8, 0.85), random.Random(seed))
    return Scene(224, 224, "white", (255, 255, 255), (thing,)), thing


def test_same_seed_same_picture() -> None:
    first, again = make(random.Random(5)), make(random.Random(5))
    assert first[0] == again[0]
    assert first[1].tobytes() == again[1].tobytes()
    assert make(random.Random(6))[1].tobytes() != first[1].tobytes()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("renderer", RENDERERS)
def test_box_is_tight_around_what_is_painted(shape: str, renderer: str) -> None:
    checked = 0
    for seed in range(12):
        scene, thing = _lone(shape, seed)
        rng = random.Random(seed)
        picture = draw(scene, rng, renderer)
        corner = picture.getpixel((0, 0))
        if corner != (255, 255, 255) or len(set(np.asarray(picture)[0, :, 0].tolist())) > 1:
            continue  # a patterned or worn picture: its pixels do not tell where the shape ends
        checked += 1
        assert _painted_box(picture, (255, 255, 255)) == pytest.approx(thing.box, abs=0.03)
    assert checked >= 3


@pytest.mark.parametrize("grid", GRIDS)
def test_made_pictures_fit_their_grid(grid: tuple[int, int]) -> None:
    _, picture = make(random.Random(6), grid)
    assert picture.size == (grid[1] * 28, grid[0] * 28)
    width, height = pick_size(grid, random.Random(7))
    assert width / height == pytest.approx(grid[1] / grid[0], rel=0.16)


def test_other_drawing_paints_inside_its_boxes() -> None:
    scene, picture = draw_other(random.Random(8), "shapes")
    boxes = [thing.box for thing in scene.things]
    around = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
    assert _painted_box(picture, scene.ground_rgb) == pytest.approx(around, abs=0.02)
