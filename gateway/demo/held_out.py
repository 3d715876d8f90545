"""Held-out questions, how their answers are judged, and what version 2 has to reach. Free of torch."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from gateway.demo.drawing import GRIDS, draw, pick_size
from gateway.demo.other_drawing import draw_other
from gateway.demo.questions import Question, ask
from gateway.demo.scenes import Scene, imagine

CONDITIONS = {
    "pictures": "new pictures",
    "wordings": "new pictures, wordings never trained",
    "drawing": "another drawing code, never trained",
}
TARGETS = {"colour": 0.97, "position": 0.97, "shape": 0.92, "count": 0.92, "box": 0.85, "number": 0.75}
# Far from every seed that training uses.
_SEED = 990_000


@dataclass(frozen=True)
class Item:
    """One picture with one question."""

    picture: Image.Image
    question: Question


def draw_held_out(rng: random.Random, kind: str) -> tuple[Scene, Image.Image]:
    """A picture by the training's drawing codes in its own size: resizing is the processor's part."""
    grid = GRIDS[0] if rng.random() < 0.8 else rng.choice(GRIDS[1:])
    scene = imagine(rng, *pick_size(grid, rng), kind)
    return scene, draw(scene, rng)


def make_items(condition: str, skill: str, count: int) -> list[Item]:
    """`count` questions of one skill under one condition, the same in every run."""
    rng = random.Random(f"{_SEED} {condition} {skill}")
    source: Callable[[random.Random, str], tuple[Scene, Image.Image]]
    source = draw_other if condition == "drawing" else draw_held_out
    items: list[Item] = []
    while len(items) < count:
        scene, picture = source(rng, "number" if skill == "number" else "")
        question = ask(scene, skill, rng, kept_back=condition == "wordings")
        if question and question.skill == skill:
            items.append(Item(picture, question))
    return items


def is_right(question: Question, said: str) -> bool:
    """Boxes count from an overlap (IoU) over one half, everything else must be the same text."""
    if question.skill != "box":
        return said.strip() == question.answer
    try:
        return overlap(json.loads(said)["bbox_2d"], json.loads(question.answer)["bbox_2d"]) > 0.5
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / total if total > 0 else 0.0


def is_same(question: Question, one: str, other: str) -> bool:
    """Whether two answers mean the same: equal texts, or boxes that overlap by more than nine tenths."""
    if one == other or question.skill != "box":
        return one == other
    try:
        return overlap(json.loads(one)["bbox_2d"], json.loads(other)["bbox_2d"]) > 0.9
    except (ValueError, KeyError, TypeError, IndexError):
        return False
