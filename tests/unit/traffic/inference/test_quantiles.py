import math
import random

import pytest

from gateway.telemetry.samples import Sample, find_bucket
from gateway.traffic.inference import quantiles
from gateway.traffic.inference.interval import Pair


def draw(count: int, median: float, seed: int, spread: float = 0.5) -> Sample:
    luck = random.Random(seed)
    made = Sample()
    for _ in range(count):
        made.add(luck.lognormvariate(math.log(median), spread), has_buckets=True)
    return made


def test_without_values_nothing_is_known() -> None:
    assert quantiles.compare([], 0.5, 0.05) == (None, -math.inf, math.inf)
    assert quantiles.compare([Pair(Sample(), draw(9, 1, 1))], 0.5, 0.05) == (None, -math.inf, math.inf)


def test_the_bet_against_a_ratio_is_that_against_the_pair_that_it_does_worst_against() -> None:
    pair = Pair(draw(40, 0.3, 1), draw(60, 0.3, 2))
    ratios = quantiles._Ratios(pair, 0.5)
    places = range(find_bucket(0.001), find_bucket(100))
    for ratio in (-200, -40, 0, 7, 90, 400):
        least = min(ratios._ours.find(place).both(ratios._theirs.find(place - ratio)) for place in places)
        assert ratios.against(ratio) == pytest.approx(least)


def test_a_few_values_bound_nothing() -> None:
    found = quantiles.compare([Pair(draw(3, 1, 1), draw(3, 1, 2))], 0.5, 0.05)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.estimate is not None


@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("ratio", [1.0, 1.2, 0.5])
def test_the_true_ratio_lies_between_the_bounds(ratio: float, quantile: float) -> None:
    found = quantiles.compare([Pair(draw(3000, 0.3 * ratio, 1), draw(9000, 0.3, 2))], quantile, 0.01)
    assert found.low < math.log(ratio) < found.high
    assert found.high - found.low < 0.5
    assert found.estimate == pytest.approx(math.log(ratio), abs=0.1)


def test_a_fifth_more_is_told_from_nothing() -> None:
    assert quantiles.compare([Pair(draw(4000, 0.36, 1), draw(4000, 0.3, 2))], 0.5, 0.01).low > math.log(1.1)
    same = quantiles.compare([Pair(draw(4000, 0.3, 1), draw(4000, 0.3, 2))], 0.5, 0.01)
    assert -math.log(1.1) < same.low < 0 < same.high < math.log(1.1)


def test_the_other_way_round_it_is_the_same_with_another_sign() -> None:
    one, other = draw(500, 0.4, 1), draw(2000, 0.3, 2)
    there, back = quantiles.compare([Pair(one, other)], 0.5, 0.05), quantiles.compare([Pair(other, one)], 0.5, 0.05)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_values_that_are_all_alike_are_bounded_by_their_bucket() -> None:
    one, other = Sample(100, 200.0, 400.0, {35: 100}), Sample(100, 200.0, 400.0, {35: 100})
    found = quantiles.compare([Pair(one, other)], 0.5, 0.05)
    assert -0.03 < found.low < 0 < found.high < 0.03


def test_stages_add_up_and_what_differs_between_them_does_not_count() -> None:
    day, night = Pair(draw(500, 0.3, 1), draw(4500, 0.3, 2)), Pair(draw(4500, 0.9, 3), draw(500, 0.9, 4))
    found = quantiles.compare([day, night], 0.5, 0.05)
    assert found.low < 0 < found.high < 0.2
    alone = quantiles.compare([day], 0.5, 0.05)
    assert found.high - found.low < alone.high - alone.low


def test_stages_that_contradict_each_other_are_settled_by_the_estimate() -> None:
    found = quantiles.compare(
        [Pair(draw(3000, 0.3, 1), draw(3000, 0.9, 2)), Pair(draw(3000, 0.9, 3), draw(3000, 0.3, 4))], 0.5, 0.05
    )
    assert found.estimate == pytest.approx(0, abs=0.1)
    assert found.low <= found.estimate <= found.high
    assert found.high - found.low < 0.05


def test_looked_at_again_and_again_it_errs_no_more_often_than_it_says() -> None:
    luck = random.Random(6)
    wrong = 0
    for _ in range(60):
        one, other = Sample(), Sample()
        for number in range(300):
            mine = one if luck.random() < 0.5 else other
            mine.add(luck.expovariate(1.0), has_buckets=True)
            if number % 10 == 9:
                found = quantiles.compare([Pair(one, other)], 0.5, 0.1)
                if found.low > 0 or found.high < 0:
                    wrong += 1
                    break
    assert wrong <= 6
