import random
from itertools import pairwise

import pytest

from gateway.traffic.allocation import LENGTH, Allocation

NAMES = ("v1", "v2", "v3", "v4")


def owner(allocation: Allocation, point: int) -> str:
    return next(name for end, name in zip(allocation.ends, allocation.names, strict=True) if point < end)


def find_moves(before: Allocation, after: Allocation) -> set[tuple[str, str]]:
    """From which version to which somebody moves."""
    points = {0, *before.ends, *after.ends} - {LENGTH}
    pairs = {(owner(before, point), owner(after, point)) for point in points}
    return {(old, new) for old, new in pairs if old != new}


def draw_shares(luck: random.Random) -> dict[str, float]:
    weights = {name: luck.random() * (luck.random() < 0.7) for name in NAMES} | {"v1": 0.1}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_the_first_time_versions_lie_in_their_order() -> None:
    allocation = Allocation.divide({"v1": 0.75, "v2": 0.0, "v3": 0.25})
    assert allocation == Allocation((LENGTH // 4 * 3, LENGTH), ("v1", "v3"))
    assert Allocation().move({"v1": 0.75, "v3": 0.25}) == allocation


def test_a_ramp_moves_users_to_the_version_that_gains_and_back_again() -> None:
    steps = [Allocation.divide({"v1": 1.0})]
    for share in (0.01, 0.05, 0.25, 0.5, 1.0):
        steps.append(steps[-1].move({"v1": 1 - share, "v2": share}))
        assert find_moves(steps[-2], steps[-1]) == {("v1", "v2")}
    back = steps[-2].move({"v1": 0.75, "v2": 0.25})
    assert back == steps[3], "who comes back is who went last"


def test_others_are_not_moved_by_what_two_versions_settle() -> None:
    before = Allocation.divide({"v1": 0.8, "v2": 0.1, "v3": 0.1})
    after = before.move({"v1": 0.7, "v2": 0.1, "v3": 0.2})
    assert find_moves(before, after) == {("v1", "v3")}
    assert after.move({"v1": 0.8, "v2": 0.1, "v3": 0.1}) == before


def test_a_successor_gets_the_very_users_of_the_one_it_replaces() -> None:
    before = Allocation.divide({"v1": 0.6, "v2": 0.4})
    assert before.move({"v2": 0.4, "v9": 0.6}) == Allocation(before.ends, ("v9", "v2"))


def test_no_change_moves_more_than_it_has_to() -> None:
    luck = random.Random(7)
    allocation = Allocation.divide(draw_shares(luck))
    for _ in range(2000):
        after = allocation.move(draw_shares(luck))
        old, new = allocation.measure(), after.measure()
        points = sorted({0, *allocation.ends, *after.ends})
        moved = sum(end - start for start, end in pairwise(points) if owner(allocation, start) != owner(after, start))
        assert moved == sum(max(0, size - old.get(name, 0)) for name, size in new.items())
        assert len(after.names) < 40, "it does not fall to pieces"
        assert sorted(after.ends) == list(after.ends)
        assert after.ends[-1] == LENGTH
        allocation = after


def test_sizes_are_the_shares_whatever_came_before() -> None:
    shares = {"v1": 1 / 3, "v2": 1 / 3, "v3": 1 / 3}
    moved = Allocation.divide({"v1": 0.2, "v3": 0.8}).move(shares)
    assert sum(moved.measure().values()) == LENGTH
    assert moved.measure() == Allocation.divide(shares).measure()
    assert moved.move(shares) == moved


@pytest.mark.parametrize("shares", [{"v1": 1.0 - 1e-12}, {"v1": 0.1, "v2": 0.2, "v3": 0.7000000000000001}])
def test_digits_that_are_lost_leave_no_gap(shares: dict[str, float]) -> None:
    assert Allocation.divide(shares).ends[-1] == LENGTH
