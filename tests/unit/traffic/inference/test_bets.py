import math
from itertools import product

import pytest

from gateway.traffic.inference.bets import NO_BET, bet


@pytest.mark.parametrize("mean", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(("count", "total"), [(0, 0), (1, 1), (10, 3), (500, 7), (5000, 4990)])
def test_each_half_is_fair_if_the_mean_is_true(count: int, total: int, mean: float) -> None:
    before = bet(count, total, mean)
    hit, miss = bet(count + 1, total + 1, mean), bet(count + 1, total, mean)
    for now, one, other in zip(before, hit, miss, strict=True):
        expected = mean * math.exp(one - now) + (1 - mean) * math.exp(other - now)
        assert expected == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("values", [(0.0, 0.5, 1.0), (0.1, 0.3), (0.25, 0.25)])
def test_values_between_bounds_make_it_grow_no_faster(values: tuple[float, ...]) -> None:
    mean = sum(values) / len(values)
    for count, total in ((0, 0.0), (4, 1.5), (100, 20.0)):
        before = bet(count, total, mean)
        for half in (0, 1):
            later = [math.exp(bet(count + 1, total + value, mean)[half] - before[half]) for value in values]
            assert sum(later) / len(later) <= 1 + 1e-9


def test_means_that_cannot_be_are_refuted_at_once() -> None:
    assert bet(3, 1, 0.0) == bet(3, 1, 1.0) == (math.inf, math.inf)
    assert bet(3, 0, 0.0) == bet(3, 3, 1.0) == bet(0, 0, 0.4) == NO_BET


def test_a_wrong_mean_is_refuted_and_a_right_one_is_not() -> None:
    assert min(bet(1000, 300, 0.2)) > math.log(100)
    assert max(bet(1000, 300, 0.3)) < 0
    assert bet(20, 20, 0.01).even > bet(20, 20, 0.01).close > 10, "the even half finds great differences sooner"
    assert bet(20_000, 10_250, 0.5).close > bet(20_000, 10_250, 0.5).even, "the close half small ones"


def test_bets_on_two_samples_are_multiplied_half_by_half() -> None:
    for one, other in product([bet(50, 10, 0.3), bet(9, 9, 0.2)], [bet(70, 11, 0.1), NO_BET]):
        expected = 0.5 * (math.exp(one.even + other.even) + math.exp(one.close + other.close))
        assert one.both(other) == pytest.approx(math.log(expected))
    assert math.isinf(bet(3, 1, 0.0).both(NO_BET))
