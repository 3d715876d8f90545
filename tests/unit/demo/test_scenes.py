"""The scenes: shapes apart and inside, numbers in order, colours true to their names and apart from the ground."""

import random

import pytest

from gateway.demo.scenes import COLOURS, differ, imagine, pick_rgb, place


def test_circle_stays_round_in_a_wide_picture() -> None:
    thing = place("square", "red", (255, 0, 0), (0.1, 0.1, 0.9, 0.9), random.Random(1), aspect=2.0)
    wide, high = (thing.box[2] - thing.box[0]) * 200, (thing.box[3] - thing.box[1]) * 100
    assert wide / high == pytest.approx(1, abs=0.25)


def test_shapes_of_a_scene_do_not_overlap_and_stay_inside() -> None:
    rng = random.Random(2)
    for _ in range(60):
        scene = imagine(rng, 112, 112, "shapes")
        assert 1 <= len(scene.things) <= 5
        for index, thing in enumerate(scene.things):
            assert min(thing.box) >= 0
            assert max(thing.box) <= 1
            for other in scene.things[index + 1 :]:
                a, b = thing.box, other.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_everything_stands_out_from_the_ground() -> None:
    rng = random.Random(3)
    for _ in range(200):
        scene = imagine(rng, 112, 112)
        shades = [thing.rgb for thing in scene.things] + ([scene.number.rgb] if scene.number else [])
        assert all(differ(scene.ground_rgb, shade) > 60 for shade in shades)


def test_number_boxes_run_left_to_right_inside_the_picture() -> None:
    rng = random.Random(4)
    for _ in range(80):
        number = imagine(rng, 140, 84, "number").number
        assert number is not None
        assert len(number.boxes) == len(number.digits)
        edges = [box[0] for box in number.boxes]
        assert edges == sorted(edges)
        assert number.box[0] >= -0.01
        assert number.box[2] <= 1.01


@pytest.mark.parametrize("colour", COLOURS)
def test_shades_of_two_names_never_meet(colour: str) -> None:
    rng = random.Random(5)
    mine = {pick_rgb(colour, rng) for _ in range(300)}
    for other in set(COLOURS) - {colour}:
        assert not mine & {pick_rgb(other, rng) for _ in range(300)}
