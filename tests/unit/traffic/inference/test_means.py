import math
import random

import pytest

from gateway.telemetry.samples import Sample
from gateway.traffic.inference import means
from gateway.traffic.inference.interval import Pair


def draw(count: int, mean: float, seed: int) -> Sample:
    luck = random.Random(seed)
    made = Sample()
    for _ in range(count):
        made.add(luck.expovariate(1 / mean), has_buckets=False)
    return made


def test_of_few_values_there_is_an_estimate_and_no_bound() -> None:
    found = means.compare([Pair(draw(10, 5, 1), draw(1000, 5, 2))], 0.05)
    assert found.estimate is not None
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert (
        means.compare([], 0.05) == means.compare([Pair(Sample(), draw(9, 1, 1))], 0.05) == (None, -math.inf, math.inf)
    )


def test_values_that_are_all_alike_tell_nothing_of_how_they_vary() -> None:
    alike = Sample(100, 500.0, 2500.0, {})
    assert means.compare([Pair(alike, alike)], 0.05).high == math.inf


def test_the_true_difference_lies_between_the_bounds() -> None:
    found = means.compare([Pair(draw(5000, 6, 1), draw(20_000, 5, 2))], 0.01)
    assert found.low < 1 < found.high
    assert found.low > 0.5
    assert found.high - found.low < 1


def test_it_is_about_as_wide_as_the_formula_says() -> None:
    """Of 500 values in each sample and alpha 0.05 a little more than three standard errors, by the cited theorem."""
    one, other = draw(500, 5, 1), draw(500, 5, 2)
    found = means.compare([Pair(one, other)], 0.05)
    assert one.variance is not None
    assert other.variance is not None
    error = math.sqrt(one.variance / 500 + other.variance / 500)
    assert (found.high - found.low) / 2 / error == pytest.approx(3.3, abs=0.3)


def test_stages_are_weighed_by_how_exact_they_are() -> None:
    exact, rough = Pair(draw(5000, 6, 1), draw(5000, 5, 2)), Pair(draw(100, 12, 3), draw(100, 5, 4))
    found, alone = means.compare([exact, rough], 0.05), means.compare([exact], 0.05)
    assert found.estimate == pytest.approx(alone.estimate, abs=0.2)
    assert found.high - found.low < alone.high - alone.low


def test_looked_at_after_every_value_it_errs_no_more_often_than_it_says() -> None:
    luck = random.Random(7)
    wrong = 0
    for _ in range(200):
        one, other = Sample(), Sample()
        for number in range(1000):
            mine = one if luck.random() < 0.5 else other
            mine.add(luck.expovariate(1.0), has_buckets=False)
            if number > 100:
                found = means.compare([Pair(one, other)], 0.1)
                if found.low > 0 or found.high < 0:
                    wrong += 1
                    break
    assert wrong <= 20


def test_a_single_mean_is_known_after_some_values() -> None:
    few = Sample(40, 200.0, 1100.0, {})
    assert means.find_mean(few, 0.05) == (5, -math.inf, math.inf)
    same = Sample(400, 2000.0, 10_000.0, {})
    assert means.find_mean(same, 0.05).low == -math.inf, "values that are all alike do not tell how they vary"
    many = means.find_mean(Sample(4000, 20_000.0, 104_000.0, {}), 0.05)
    assert 4.9 < many.low < 5 < many.high < 5.1
