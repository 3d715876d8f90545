"""The packing of training batches: what each token may see, what it must predict, where it stands."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer

from gateway.demo.batches import GROUNDS, Packer, Picture, choose_questions, find_looks, label
from gateway.demo.drawing import make
from gateway.demo.questions import Question
from gateway.demo.scenes import COLOURS, SHAPES, Scene, Thing
from gateway.demo.tokenizer import train_tokenizer

QUESTIONS = [Question("colour", "what colour is it?", "red"), Question("shape", "what shape is it?", "star")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(1)


def _picture() -> Picture:
    scene, picture = make(random.Random(1))
    return Picture(scene, np.asarray(picture), label(scene, (4, 4)))


def test_questions_about_one_picture_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    packer = Packer(tokenizer)
    batch = packer.pack([_picture()], [[*QUESTIONS, Question("chat", "hello", "bye")]], _NoChains())
    visible = batch["visible"][0]
    text = [tokenizer.id_to_token(token) for token in batch["ids"][0]]
    picture, star, chat_end = text.index("<|image_pad|>"), text.index("star"), len(text) - 2
    red = text.index("red")
    assert visible[star, picture]
    assert visible[red, picture]
    assert not visible[star, red]
    assert not visible[red, star]
    assert not visible[chat_end, picture]


def test_every_question_starts_right_after_the_picture(tokenizer: Tokenizer) -> None:
    batch = Packer(tokenizer).pack([_picture()], [QUESTIONS], _NoChains())
    text = [tokenizer.id_to_token(token) for token in batch["ids"][0]]
    end = batch["positions"][:, 0, text.index("<|vision_end|>")].tolist()
    starts = [index for index, token in enumerate(text) if token == "what"]
    assert [batch["positions"][:, 0, index].tolist() for index in starts] == [[place + 1 for place in end]] * 2


def test_answers_and_their_end_mark_are_what_is_judged(tokenizer: Tokenizer) -> None:
    batch = Packer(tokenizer).pack([_picture()], [QUESTIONS], _NoChains())
    judged = [tokenizer.id_to_token(token) for token in batch["targets"][0][batch["weights"][0] > 0]]
    assert judged == ["red", "<|im_end|>", "star", "<|im_end|>"]
    assert batch["answers"] == 2


def test_labels_say_what_lies_under_a_patch() -> None:
    thing = Thing("star", "blue", (0, 0, 255), (), (0.0, 0.0, 0.5, 0.25))
    labels = label(Scene(112, 112, "", (0, 0, 0), (thing,)), (4, 4))
    cells = labels["token_colour"].reshape(4, 4)
    assert cells[0].tolist() == [COLOURS.index("blue") + 1] * 2 + [0, 0]
    assert not cells[1:].any()
    assert labels["token_shape"][0] == SHAPES.index("star") + 1
    assert labels["token_box"][0].tolist() == [0.0, 0.0, 0.5, 0.25]
    assert labels["patch_colour"].sum() == 8 * (COLOURS.index("blue") + 1)


def test_the_ground_is_labelled_where_nothing_lies_on_it() -> None:
    thing = Thing("star", "blue", (0, 0, 255), (), (0.0, 0.0, 0.25, 0.25))
    grounds = label(Scene(112, 112, "gray", (99, 99, 99), (thing,)), (4, 4))["token_ground"]
    assert GROUNDS[grounds[0]] == ""
    assert {GROUNDS[ground] for ground in grounds[1:]} == {"gray"}


def test_counts_of_one_and_none_are_no_longer_the_rule() -> None:
    rng = random.Random(1)
    asked = [question for _ in range(600) for question in choose_questions(make(rng)[0], rng)]
    counts = [question.answer for question in asked if question.skill == "count"]
    assert sum(count in "01" for count in counts) < 0.4 * len(counts)


def test_named_things_are_looked_for_where_they_are(tokenizer: Tokenizer) -> None:
    about = (("the red star", (0.0, 0.0, 0.5, 0.25)), ("the cross", (0.5, 0.5, 1.0, 1.0)))
    question = Question("position", "Is THE RED STAR left of the cross?", "left", about)
    offsets = tokenizer.encode(question.text).offsets
    (first, left, box), (second, right, _) = find_looks(question, offsets, 100, (4, 4))
    assert question.text[slice(*offsets[first - 100])].endswith("R")
    assert question.text[slice(*offsets[second - 100])].endswith("cross")
    assert left.nonzero()[0].tolist() == [0, 1]
    assert right.nonzero()[0].tolist() == [10, 11, 14, 15]
    assert box == (0.0, 0.0, 0.5, 0.25)


def test_every_number_is_asked_for() -> None:
    rng = random.Random(3)
    for _ in range(30):
        scene, _ = make(rng, kind="number")
        assert "number" in {question.skill for question in choose_questions(scene, rng)}


class _NoChains(random.Random):
    """Never makes a question the second turn of a chat, never adds a system message."""

    def random(self) -> float:
        return 0.99
