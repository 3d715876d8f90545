"""Questions about a scene and their right answers, worked out from the geometry, never from pixels."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from gateway.demo.lettering import Box
from gateway.demo.scenes import COLOURS, SHAPES, Scene, Thing
from gateway.demo.wordings import CHAT, CLOSINGS, KEPT_BACK, OPENINGS, TRAINED

BOX_SCALE = 1024
BOX_STEP = 8
"""Corners are rounded to this: a pixel of what the model sees is 9 wide."""


@dataclass(frozen=True)
class Question:
    """One question with its answer; `skill` is the row of the accuracy table it counts for.

    `about` pairs the words that name a thing with its box, so that training can show where to look.
    """

    skill: str
    text: str
    answer: str
    about: tuple[tuple[str, Box], ...] = ()


def write_box(box: Box) -> str:
    """A box as the JSON the model answers, corners scaled to 0..1024 and rounded to `BOX_STEP`."""
    corners = [min(BOX_SCALE, max(0, round(value * BOX_SCALE / BOX_STEP) * BOX_STEP)) for value in box]
    return '{"bbox_2d": [' + ",".join(str(value) for value in corners) + "]}"


def plural(shape: str) -> str:
    """More than one of a shape."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


class Asker:
    """Makes questions about one scene. `kept_back` asks only in wordings that training never sees."""

    def __init__(self, scene: Scene, rng: random.Random, kept_back: bool = False) -> None:
        self._scene = scene
        self._rng = rng
        self._kept_back = kept_back
        self._things = scene.things

    def ask(self, skill: str) -> Question | None:
        """A question of this skill, or None where the scene allows none."""
        return _ASKERS[skill](self)

    def colour(self) -> Question | None:
        """The colour of a shape or of the number."""
        scene, rng = self._scene, self._rng
        if scene.number:
            noun = rng.choice(("the number", "the text", "it", "the digits"))
            return self._word("colour", "colour", scene.number.colour, it=noun)
        if len(self._things) == 1:
            if rng.random() < 0.3:
                return self._word("colour", "colour_alone", self._things[0].colour)
            noun = rng.choice(("it", "the shape", "the object", "this shape", f"the {self._things[0].shape}"))
            return self._word("colour", "colour", self._things[0].colour, it=noun)
        if len(self._things) == 2 and rng.random() < 0.3:
            return self._by_side("which_side_colour", "colour")
        lone = [t for t in self._things if self._is_only(shape=t.shape)]
        if not lone:
            return None
        thing = rng.choice(lone)
        noun = f"the {thing.shape}"
        return self._word("colour", "colour", thing.colour, ((noun, thing.box),), it=noun)

    def background(self) -> Question | None:
        """The colour of the background, where it has a name."""
        ground = self._scene.ground
        return self._word("background", "ground", ground) if ground else None

    def shape(self) -> Question | None:
        """What shape something is."""
        rng = self._rng
        if len(self._things) == 1:
            if rng.random() < 0.45:
                return self._word("shape", "shape_alone", self._things[0].shape)
            noun = rng.choice(("it", "this", "the object", "this object", f"the {self._things[0].colour} thing"))
            return self._word("shape", "shape", self._things[0].shape, it=noun)
        if len(self._things) == 2 and rng.random() < 0.3:
            return self._by_side("which_side", "shape")
        lone = [t for t in self._things if self._is_only(colour=t.colour)]
        if not lone:
            return None
        thing = rng.choice(lone)
        if rng.random() < 0.5:
            about = ((thing.colour, thing.box),)
            return self._word("shape", "shape_by_colour", thing.shape, about, colour=thing.colour)
        noun = f"the {thing.colour} {rng.choice(('thing', 'object', 'one', 'shape', 'figure'))}"
        return self._word("shape", "shape", thing.shape, ((noun, thing.box),), it=noun)

    def count(self) -> Question | None:
        """How many shapes, of one kind or of all."""
        rng = self._rng
        if not self._things:
            return None
        way = rng.random()
        thing = rng.choice(self._things)
        if way < 0.5:
            kind, total = rng.choice(("shapes", "shapes", "objects", "things", "figures")), len(self._things)
        elif way < 0.75:
            shape = thing.shape if rng.random() < 0.75 else rng.choice(SHAPES)
            kind, total = plural(shape), sum(t.shape == shape for t in self._things)
        elif way < 0.92:
            colour = thing.colour if rng.random() < 0.75 else rng.choice(COLOURS)
            kind, total = f"{colour} shapes", sum(t.colour == colour for t in self._things)
        else:
            kind = f"{thing.colour} {plural(thing.shape)}"
            total = sum((t.colour, t.shape) == (thing.colour, thing.shape) for t in self._things)
        return self._word("count", "count", str(total), kind=kind)

    def position(self) -> Question | None:
        """Left or right, above or below: of the picture or of another shape."""
        rng = self._rng
        if len(self._things) >= 2 and rng.random() < 0.55:
            pair = [self._name(thing) for thing in rng.sample(self._things, 2)]
            if pair[0] and pair[1]:
                return self._compare(*pair)
        named = self._name_any()
        if named is None:
            return None
        noun, box = named
        about = (named,)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        way = rng.random()
        if way < 0.25:
            across = _third(x, "left", "right")
            down = _third(y, "top", "bottom")
            if across is None or down is None:
                return None
            return self._word("position", "where", f"{down} {across}".strip() or "center", about, it=noun)
        if way < 0.68:
            return None if abs(x - 0.5) < 0.06 else self._word("position", "leftright", _side(x), about, it=noun)
        return (
            None
            if abs(y - 0.5) < 0.06
            else self._word("position", "updown", "top" if y < 0.5 else "bottom", about, it=noun)
        )

    def _compare(self, one: tuple[str, Thing], other: tuple[str, Thing]) -> Question | None:
        (x, y), (other_x, other_y) = one[1].centre, other[1].centre
        words = {"it": one[0], "other": other[0]}
        about = ((one[0], one[1].box), (other[0], other[1].box))
        way = self._rng.random()
        if way < 0.55 and abs(x - other_x) > 0.07:
            return self._word("position", "leftright_of", "left" if x < other_x else "right", about, **words)
        if way < 0.9 and abs(y - other_y) > 0.07:
            return self._word("position", "updown_of", "above" if y < other_y else "below", about, **words)
        if abs(x - other_x) > 0.07 and not self._kept_back:
            side = self._rng.choice(("left", "right"))
            answer = "yes" if (x < other_x) == (side == "left") else "no"
            return self._word("yes_no", "leftright_yes", answer, about, side=side, **words)
        return None

    def box(self) -> Question | None:
        """Where something is, as a box."""
        named = self._name_any()
        return named and self._word("box", "box", write_box(named[1]), (named,), it=named[0])

    def number(self) -> Question | None:
        """Read the printed number."""
        return self._word("number", "number", self._scene.number.digits) if self._scene.number else None

    def describe(self) -> Question | None:
        """A short list of what is there, from left to right."""
        number = self._scene.number
        if number:
            return self._word("describe", "describe", f"the number {number.digits} in {number.colour}")
        if not 1 <= len(self._things) <= 3:
            return None
        ordered = sorted(self._things, key=lambda thing: thing.centre[0])
        return self._word("describe", "describe", " and ".join(_with_article(t.colour, t.shape) for t in ordered))

    def yes_no(self) -> Question | None:
        """Is a certain shape there."""
        rng = self._rng
        if not self._things:
            return None
        if rng.random() < 0.5:
            thing = rng.choice(self._things)
            wanted = (thing.colour, thing.shape)
        else:
            wanted = (rng.choice([t.colour for t in self._things]), rng.choice(SHAPES))
        if rng.random() < 0.3:
            answer = any(t.shape == wanted[1] for t in self._things)
            return self._word("yes_no", "exists", "yes" if answer else "no", a=f"a {wanted[1]}")
        answer = any((t.colour, t.shape) == wanted for t in self._things)
        return self._word("yes_no", "exists", "yes" if answer else "no", a=_with_article(*wanted))

    def _by_side(self, wording: str, skill: str) -> Question | None:
        """What is on the left (right, top, bottom), for two shapes well apart."""
        axis = self._rng.choice((0, 1))
        first, last = sorted(self._things, key=lambda thing: thing.centre[axis])
        if last.centre[axis] - first.centre[axis] < 0.2 or self._kept_back:
            return None
        thing, end = self._rng.choice(((first, 0), (last, 1)))
        side = (("on the left", "on the right"), ("at the top", "at the bottom"))[axis][end]
        return self._word(skill, wording, thing.colour if skill == "colour" else thing.shape, side=side)

    def _name(self, thing: Thing) -> tuple[str, Thing] | None:
        """A noun phrase that fits this thing alone."""
        ways = []
        if self._is_only(shape=thing.shape):
            ways.append(f"the {thing.shape}")
        if self._is_only(colour=thing.colour):
            ways.append(f"the {thing.colour} {self._rng.choice(('shape', 'shape', 'one', 'object', 'thing'))}")
        if self._is_only(colour=thing.colour, shape=thing.shape):
            ways += [f"the {thing.colour} {thing.shape}"] * 2
        return (self._rng.choice(ways), thing) if ways else None

    def _name_any(self) -> tuple[str, Box] | None:
        number = self._scene.number
        if number:
            return self._rng.choice(("the number", "the text", f"the number {number.digits}")), number.box
        if len(self._things) == 1 and self._rng.random() < 0.3:
            return self._rng.choice(("it", "the shape", "the object")), self._things[0].box
        named = self._name(self._rng.choice(self._things)) if self._things else None
        return (named[0], named[1].box) if named else None

    def _is_only(self, colour: str = "", shape: str = "") -> bool:
        return sum((not colour or t.colour == colour) and (not shape or t.shape == shape) for t in self._things) == 1

    def _word(
        self, skill: str, wording: str, answer: str, about: tuple[tuple[str, Box], ...] = (), **words: str
    ) -> Question | None:
        if self._kept_back:
            if wording not in KEPT_BACK:
                return None
            return Question(skill, self._rng.choice(KEPT_BACK[wording]).format(**words), answer, about)
        return Question(skill, _vary(self._rng.choice(TRAINED[wording]).format(**words), self._rng), answer, about)


def ask(scene: Scene, skill: str, rng: random.Random, kept_back: bool = False) -> Question | None:
    """One question of `skill` about `scene`, or None where the scene allows none."""
    return Asker(scene, rng, kept_back).ask(skill)


def chat(rng: random.Random) -> Question:
    """A prompt without a picture, and what the model says to it."""
    prompts, answer = rng.choice(CHAT)
    return Question("chat", _vary(rng.choice(prompts), rng), answer)


def _third(value: float, low: str, high: str) -> str | None:
    """Which third a coordinate lies in ("" for the middle), or None near a border."""
    if value < 0.38:
        return low
    if value > 0.62:
        return high
    return "" if 0.44 < value < 0.56 else None


def _side(x: float) -> str:
    return "left" if x < 0.5 else "right"


def _with_article(colour: str, shape: str) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def _vary(text: str, rng: random.Random) -> str:
    """The same question as different people type it."""
    if rng.random() < 0.1:
        text = rng.choice(OPENINGS) + text
    if rng.random() < 0.1:
        text = text + rng.choice(CLOSINGS)
    luck = rng.random()
    if luck < 0.4:
        text = text[0].upper() + text[1:]
    elif luck < 0.43:
        text = text.upper() if rng.random() < 0.4 else text.title()
    if text[-1] in "?." and rng.random() < 0.15:
        text = text[:-1]
    return text


_ASKERS: dict[str, Callable[[Asker], Question | None]] = {
    "colour": Asker.colour,
    "shape": Asker.shape,
    "count": Asker.count,
    "position": Asker.position,
    "box": Asker.box,
    "number": Asker.number,
    "describe": Asker.describe,
    "yes_no": Asker.yes_no,
    "background": Asker.background,
}
SKILLS = tuple(_ASKERS)
