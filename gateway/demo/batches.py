"""Training batches: many pictures of one grid, several questions about each, packed so that a picture is seen once.

Torch-free: a worker process builds the arrays while the network trains. Questions about one picture do not see each
other (unless they are turns of one chat): each starts at the position right after the picture, as if it stood alone.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.demo.drawing import CELL_PX, GRIDS, make
from gateway.demo.questions import Question, ask, chat
from gateway.demo.scenes import COLOURS, SHAPES, Scene
from gateway.demo.wordings import SYSTEMS

PICTURES = 24
FRESH = 10
POOL = 24000
GROUNDS = ("", *COLOURS, "gray")
_SHAPE_SKILLS = {
    "colour": 1.0,
    "shape": 1.2,
    "count": 2.2,
    "position": 3.2,
    "box": 2.0,
    "describe": 0.4,
    "yes_no": 0.5,
    "background": 0.4,
}
_NUMBER_SKILLS = {"colour": 0.8, "position": 1.0, "box": 1.0, "describe": 0.6, "background": 0.2}
_WEIGHTS = {
    "colour": 1.3, "shape": 1.3, "count": 2.5, "position": 3.0, "box": 2.0, "number": 2.0, "describe": 1.0, "chat": 0.5,
    "yes_no": 0.7,
}  # fmt: skip

Batch = dict[str, Any]
"""pixels, ids, positions, visible, targets, weights, answers (how many), picture_start, and the helpers' labels."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture with the labels of its patches and cells."""

    scene: Scene
    pixels: Any
    labels: dict[str, Any]


def label(scene: Scene, grid: tuple[int, int]) -> dict[str, Any]:
    """What lies under every patch (14 px) and every cell (28 px): colour, shape, digit, box; 0 means nothing."""
    rows, columns = grid
    boxes = [thing.box for thing in scene.things] or ([scene.number.box] if scene.number else [])
    colours = [COLOURS.index(t.colour) + 1 for t in scene.things]
    shapes = [SHAPES.index(t.shape) + 1 for t in scene.things]
    if scene.number:
        colours, shapes = [COLOURS.index(scene.number.colour) + 1], [len(SHAPES) + 1]
    owner = _to_cells(_cover(boxes, rows * 2, columns * 2, 0.3), rows, columns)
    counts = np.stack([(owner == index + 1).sum(1) for index in range(len(boxes))] or [np.zeros(rows * columns)], 1)
    cell = np.where(counts.max(1) > 0, counts.argmax(1) + 1, 0)
    digits = [int(digit) + 1 for digit in scene.number.digits] if scene.number else []
    digit_boxes = list(scene.number.boxes) if scene.number else []
    digit = _to_cells(_cover(digit_boxes, rows * 2, columns * 2, 0.22), rows, columns)
    digit = np.array([0, *digits])[digit]
    return {
        "patch_colour": np.array([0, *colours])[owner].reshape(-1),
        "patch_shape": np.array([0, *shapes])[owner].reshape(-1),
        "patch_digit": digit.reshape(-1),
        "token_colour": np.array([0, *colours])[cell],
        "token_shape": np.array([0, *shapes])[cell],
        "token_digit": np.stack((digit[:, [0, 2]].max(1), digit[:, [1, 3]].max(1)), 1).reshape(-1),
        "counts": np.array(
            [
                len(scene.things),
                *(shapes.count(i + 1) for i in range(len(SHAPES))),
                *(colours.count(i + 1) for i in range(len(COLOURS))),
            ],
            np.float32,
        ),
        "token_ground": np.where(cell == 0, GROUNDS.index(scene.ground), 0),
        "token_box": np.array([(0.0, 0.0, 0.0, 0.0), *boxes], np.float32)[cell],
    }


def _cover(boxes: list[Any], rows: int, columns: int, least: float) -> Any:
    """For every patch the number (from 1) of the box that covers most of it, if at least this share."""
    best = np.full((rows, columns), least)
    owner = np.zeros((rows, columns), int)
    xs, ys = np.arange(columns), np.arange(rows)
    for index, (x0, y0, x1, y1) in enumerate(boxes, 1):
        wide = np.clip(np.minimum(xs + 1, x1 * columns) - np.maximum(xs, x0 * columns), 0, 1)
        high = np.clip(np.minimum(ys + 1, y1 * rows) - np.maximum(ys, y0 * rows), 0, 1)
        share = high[:, None] * wide[None]
        owner[share > best] = index
        best = np.maximum(best, share)
    return owner


def find_looks(question: Question, offsets: list[tuple[int, int]], start: int, grid: tuple[int, ...]) -> list[Any]:
    """For each thing a question names: the place of its last word in the sequence, the cells the thing covers, its box."""
    looks = []
    for noun, box in question.about:
        found = question.text.lower().find(noun)
        covered = _cover([box], grid[0], grid[1], 0.2).reshape(-1)
        if found >= 0 and covered.any():
            last = found + len(noun) - 1
            index = next(index for index, (first, end) in enumerate(offsets) if first <= last < end)
            looks.append((start + index, covered, box))
    return looks


def _to_cells(patches: Any, rows: int, columns: int) -> Any:
    return patches.reshape(rows, 2, columns, 2).transpose(0, 2, 1, 3).reshape(rows * columns, 4)


def paint(rng: random.Random, grid: tuple[int, int]) -> Picture:
    """One new picture of a grid."""
    scene, picture = make(rng, grid)
    return Picture(scene, np.asarray(picture), label(scene, grid))


def choose_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """A handful of different questions about a scene, hard skills more often."""
    table, wanted = (_NUMBER_SKILLS, 2) if scene.number else (_SHAPE_SKILLS, 4)
    skills = rng.choices(list(table), list(table.values()), k=wanted)
    if scene.number:
        skills.insert(rng.randint(0, wanted), "number")
    found = [question for skill in skills if (question := _ask_well(scene, skill, rng))]
    return list({question.text: question for question in found}.values())


def _ask_well(scene: Scene, skill: str, rng: random.Random) -> Question | None:
    """A question; counts of one and none, which luck gives far too often, are mostly drawn again."""
    question = ask(scene, skill, rng)
    if question and question.skill == "count" and question.answer in "01" and rng.random() < 0.7:
        question = ask(scene, skill, rng)
    return question


@dataclass
class _Row:
    """One picture's packed sequence while it grows."""

    ids: list[int]
    places: list[tuple[int, int, int]]
    groups: list[int]
    targets: list[int]
    weights: list[float]
    looks: list[tuple[int, Any]]


class Packer:
    """Turns pictures and questions into the arrays of one batch."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._picture_id = tokenizer.token_to_id("<|image_pad|>")

    def pack(self, pictures: list[Picture], questions: list[list[Question]], rng: random.Random) -> Batch:
        """The batch; `questions` holds one list per picture. The system message, if any, is the same for all."""
        grid = tuple(side // CELL_PX for side in pictures[0].pixels.shape[:2])
        system = f"<|im_start|>system\n{rng.choice(SYSTEMS)}<|im_end|>\n" if rng.random() < 0.25 else ""
        before = self._encode([f"{system}<|im_start|>user\n<|vision_start|>"])[0]
        after = self._encode(["<|vision_end|>"])[0]
        texts = [part for asked in questions for question in asked for part in _write(question)]
        encoded = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        rows = []
        answers = 0
        for asked in questions:
            row = self._start(before, after, grid)
            for index, question in enumerate(asked):
                chained = index > 0 and question.skill != "chat" and asked[index - 1].skill != "chat"
                words, reply = next(encoded), next(encoded)
                self._add(row, words, reply.ids, question, chained and rng.random() < 0.15)
                row.looks += find_looks(question, words.offsets, len(row.ids) - len(words.ids) - len(reply.ids), grid)
                answers += 1
            rows.append(row)
        batch = _stack(rows)
        looks = [(index, *look) for index, row in enumerate(rows) for look in row.looks]
        batch["look_at"] = np.array([look[:2] for look in looks], np.int64).reshape(-1, 2)
        batch["look_cells"] = np.array([look[2] for look in looks], np.float32).reshape(-1, grid[0] * grid[1])
        batch["look_boxes"] = np.array([look[3] for look in looks], np.float32).reshape(-1, 4)
        batch["pixels"] = np.stack([picture.pixels for picture in pictures])
        batch["answers"], batch["picture_start"] = answers, len(before)
        for name in pictures[0].labels:
            batch[name] = np.stack([picture.labels[name] for picture in pictures])
        return batch

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def _start(self, before: list[int], after: list[int], grid: tuple[int, ...]) -> _Row:
        """The prefix: optional system message, then the picture, whose tokens carry row and column as positions."""
        cells = grid[0] * grid[1]
        ids = [*before, *[self._picture_id] * cells, *after]
        start = len(before)
        places = [(i, i, i) for i in range(start)]
        places += [(start, start + cell // grid[1], start + cell % grid[1]) for cell in range(cells)]
        places += [(start + max(grid) + i,) * 3 for i in range(len(after))]
        return _Row(ids, places, [0] * len(ids), [0] * len(ids), [0.0] * len(ids), [])

    def _add(self, row: _Row, words: Any, answer: list[int], question: Question, chained: bool) -> None:
        """Append one question with its answer; group numbers are negative where the picture must stay unseen."""
        last = max(abs(group) for group in row.groups)
        asked = words.ids
        if question.skill == "chat":
            group, start = -(last + 1), 0
        elif chained:
            group, start = row.groups[-1], row.places[-1][0] + 1
            asked = self._turn + asked
        else:
            group, start = last + 1, self._prefix_end(row) + 1
        count = len(asked) + len(answer)
        row.ids += asked + answer
        row.places += [(start + i,) * 3 for i in range(count)]
        row.groups += [group] * count
        # The last token of the answer is the line break after the end mark: it is part of the chat, not of the answer.
        judged = len(answer) - 1
        share = _WEIGHTS.get(question.skill, 1.0) / judged
        row.targets += [0] * (len(asked) - 1) + answer + [0]
        row.weights += [0.0] * (len(asked) - 1) + [share] * judged + [0.0, 0.0]

    def _prefix_end(self, row: _Row) -> int:
        return row.places[row.groups.count(0) - 1][0]

    @property
    def _turn(self) -> list[int]:
        return self._encode(["<|im_start|>user\n"])[0]


def _write(question: Question) -> tuple[str, str]:
    opening = "<|im_start|>user\n" if question.skill == "chat" else ""
    return f"{opening}{question.text}<|im_end|>\n<|im_start|>assistant\n", f"{question.answer}<|im_end|>\n"


def _stack(rows: list[_Row]) -> Batch:
    length = max(len(row.ids) for row in rows)
    shape = (len(rows), length)
    ids, groups, targets = np.zeros(shape, np.int64), np.full(shape, 10**6), np.zeros(shape, np.int64)
    weights, places = np.zeros(shape, np.float32), np.zeros((3, *shape), np.int64)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size], groups[index, :size], targets[index, :size] = row.ids, row.groups, row.targets
        weights[index, :size], places[:, index, :size] = row.weights, np.array(row.places).T
    one, other = groups[:, :, None], groups[:, None, :]
    visible = ((one == other) | ((other == 0) & (one > 0))) & np.tri(length, dtype=bool)[None]
    return {"ids": ids, "targets": targets, "weights": weights, "positions": places, "visible": visible}


def stream(tokenizer: Any, seed: int, change: Callable[[Question], Question] | None = None) -> Iterator[Batch]:
    """Batches without end. A third of the pictures is new each time; the others return with other questions."""
    rng = random.Random(seed)
    packer = Packer(tokenizer)
    pools: dict[tuple[int, int], list[Picture]] = {grid: [] for grid in GRIDS}
    while True:
        grid = GRIDS[0] if rng.random() < 0.8 else rng.choice(GRIDS[1:])
        pool = pools[grid]
        chosen = [paint(rng, grid) for _ in range(FRESH if len(pool) > 8 * PICTURES else PICTURES)]
        fresh = len(chosen)
        chosen += rng.sample(pool, PICTURES - fresh)
        for picture in chosen[:fresh]:
            if len(pool) < POOL:
                pool.append(picture)
            else:
                pool[rng.randrange(POOL)] = picture
        questions = [choose_questions(picture.scene, rng) for picture in chosen]
        for asked in questions:
            if rng.random() < 0.06 or not asked:
                asked.append(chat(rng))
        if change:
            questions = [[change(question) for question in asked] for asked in questions]
        yield packer.pack(chosen, questions, rng)
