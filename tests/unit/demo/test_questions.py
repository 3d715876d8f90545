"""The questions: repeatable, right by geometry, and the wordings kept back from training really unseen."""

import json
import random
import re

import pytest

from gateway.demo.questions import SKILLS, Question, ask, chat, plural, write_box
from gateway.demo.scenes import Number, Scene, Thing, imagine
from gateway.demo.wordings import CHAT, KEPT_BACK, TRAINED


def _thing(shape: str, colour: str, x: float, y: float) -> Thing:
    return Thing(shape, colour, (0, 0, 0), (), (x - 0.1, y - 0.1, x + 0.1, y + 0.1))


LEFT_CIRCLE, RIGHT_SQUARE = _thing("circle", "red", 0.2, 0.3), _thing("square", "blue", 0.8, 0.7)
PAIR = Scene(112, 112, "white", (255, 255, 255), (LEFT_CIRCLE, RIGHT_SQUARE))
NUMBER = Number("427", "green", (0, 128, 0), "pil", 40, (0.0, 0.0), ((0.1, 0.1, 0.2, 0.4), (0.2, 0.1, 0.3, 0.4)))
PRINTED = Scene(112, 112, "black", (0, 0, 0), (), NUMBER)


def _ask_often(scene: Scene, skill: str, times: int = 400) -> list[Question]:
    rng = random.Random(1)
    return [question for _ in range(times) if (question := ask(scene, skill, rng))]


def test_same_seed_same_questions() -> None:
    def asked(seed: int) -> list[Question | None]:
        rng = random.Random(seed)
        return [ask(imagine(rng, 112, 112), skill, rng) for skill in SKILLS]

    assert asked(3) == asked(3)
    assert asked(3) != asked(4)


def test_left_and_right_follow_from_the_centres() -> None:
    checked = 0
    for question in _ask_often(PAIR, "position"):
        text = question.text.lower()
        if (
            question.answer in ("left", "right")
            and "the circle" in text
            and "square" not in text
            and "blue" not in text
        ):
            assert question.answer == "left"
            checked += 1
        if question.answer in ("top", "bottom") and "the square" in text and "circle" not in text:
            assert question.answer == "bottom"
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("swap", [False, True])
def test_comparisons_follow_the_order_in_the_sentence(swap: bool) -> None:
    things = (RIGHT_SQUARE, LEFT_CIRCLE) if swap else (LEFT_CIRCLE, RIGHT_SQUARE)
    asked = _ask_often(Scene(112, 112, "white", (255, 255, 255), things), "position")
    found = [
        m
        for q in asked
        if (m := re.match(r"is the (.*) left or right of the .*\?(left|right)", f"{q.text.lower()}?{q.answer}"))
    ]
    assert found
    for match in found:
        is_circle = "circle" in match[1] or "red" in match[1]
        assert match[2] == ("left" if is_circle else "right")


def test_where_names_the_part_of_the_picture() -> None:
    scene = Scene(112, 112, "white", (255, 255, 255), (_thing("star", "red", 0.2, 0.2),))
    parts = {question.answer for question in _ask_often(scene, "position") if " " in question.answer}
    assert parts == {"top left"}


def test_colour_and_shape_name_what_is_asked_for() -> None:
    for question in _ask_often(PAIR, "colour"):
        text = question.text.lower()
        if "circle" in text:
            assert question.answer == "red"
        elif "square" in text:
            assert question.answer == "blue"
    for question in _ask_often(PAIR, "shape"):
        if "blue" in question.text.lower():
            assert question.answer == "square"


def test_background_is_named_where_it_has_a_name() -> None:
    assert {question.answer for question in _ask_often(PAIR, "background", 20)} == {"white"}
    assert not _ask_often(Scene(112, 112, "", (9, 9, 9), (LEFT_CIRCLE,)), "background", 20)


def test_counts() -> None:
    three = (LEFT_CIRCLE, RIGHT_SQUARE, _thing("circle", "blue", 0.5, 0.5))
    wanted = {"circles": "2", "squares": "1", "stars": "0", "blue shapes": "2", "blue circles": "1"}
    seen = set()
    for question in _ask_often(Scene(112, 112, "", (9, 9, 9), three), "count", 900):
        text = question.text.lower()
        kinds = [kind for kind in wanted if kind in text]
        if kinds:
            kind = max(kinds, key=len)
            if kind in ("circles", "squares") and re.search(rf"(red|blue) {kind}", text):
                continue
            seen.add(kind)
            assert question.answer == wanted[kind], question
        elif re.search(r"(all|many|the|of) (shapes|objects|things|figures)", text):
            assert question.answer == "3"
    assert seen == set(wanted)


def test_box_is_json_scaled_to_1024_in_steps_of_eight() -> None:
    assert write_box((0.0, 0.25, 0.5, 1.2)) == '{"bbox_2d": [0,256,512,1024]}'
    for question in _ask_often(PRINTED, "box", 30):
        assert json.loads(question.answer) == {"bbox_2d": [104, 104, 304, 408]}


def test_number_and_description() -> None:
    assert {question.answer for question in _ask_often(PRINTED, "number", 40)} == {"427"}
    assert {question.answer for question in _ask_often(PRINTED, "describe", 40)} == {"the number 427 in green"}
    assert {q.answer for q in _ask_often(PAIR, "describe", 40)} == {"a red circle and a blue square"}


def test_yes_only_for_what_is_there() -> None:
    for question in _ask_often(PAIR, "yes_no"):
        text = question.text.lower()
        if "red circle" in text:
            assert question.answer == "yes"
        if "star" in text or "blue circle" in text:
            assert question.answer == "no"


def test_nothing_is_asked_that_the_scene_cannot_answer() -> None:
    assert not _ask_often(PAIR, "number", 50)
    assert not _ask_often(PRINTED, "count", 50)
    twins = Scene(112, 112, "", (9, 9, 9), (LEFT_CIRCLE, _thing("circle", "red", 0.8, 0.8)))
    assert not _ask_often(twins, "box", 50)


def test_kept_back_wordings_are_not_trained() -> None:
    trained = {wording for wordings in TRAINED.values() for wording in wordings}
    kept = {wording for wordings in KEPT_BACK.values() for wording in wordings}
    assert kept
    assert not kept & trained
    assert set(KEPT_BACK) <= set(TRAINED)


def test_kept_back_questions_use_kept_back_wordings_only() -> None:
    rng = random.Random(2)
    patterns = [
        re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording))) for ways in KEPT_BACK.values() for wording in ways
    ]
    asked = [ask(imagine(rng, 112, 112), skill, rng, kept_back=True) for _ in range(100) for skill in SKILLS]
    texts = [question.text for question in asked if question]
    assert len(texts) > 200
    assert all(any(pattern.fullmatch(text) for pattern in patterns) for text in texts)


def test_chat_answers_belong_to_their_prompts() -> None:
    question = chat(random.Random(1))
    assert question.answer in {answer for _, answer in CHAT}
    assert plural("cross") == "crosses"
