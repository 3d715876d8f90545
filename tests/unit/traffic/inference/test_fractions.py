import math
import random

import pytest

from gateway.telemetry.samples import Sample
from gateway.traffic.inference import fractions
from gateway.traffic.inference.interval import Pair


def sample(count: int, total: float) -> Sample:
    return Sample(count, total, total, {})


def test_without_values_nothing_is_known_but_the_bounds_of_the_scale() -> None:
    assert fractions.compare([], 0.05) == (None, -1.0, 1.0)
    assert fractions.compare([Pair(Sample(), sample(9, 1))], 0.05, 1, 5) == (None, -4, 4)


def test_the_more_is_known_the_narrower_it_is() -> None:
    widths = []
    for count in (100, 1000, 10_000, 100_000):
        found = fractions.compare([Pair(sample(count, 0.03 * count), sample(count, 0.01 * count))], 0.05)
        assert found.estimate == pytest.approx(0.02)
        assert found.low < 0.02 < found.high
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.006


def test_bounds_are_where_the_bet_reaches_its_limit() -> None:
    pair = Pair(sample(2000, 60), sample(30_000, 300))
    found = fractions.compare([pair], 0.01)
    for bound, out in ((found.low, -1e-5), (found.high, 1e-5)):
        assert fractions.log_bet([pair], bound) >= math.log(100)
        assert fractions.log_bet([pair], bound - out) < math.log(100)


def test_the_bet_is_against_the_pair_of_means_that_it_does_worst_against() -> None:
    pair = Pair(sample(800, 40), sample(1500, 30))
    from gateway.traffic.inference.bets import bet

    for difference in (-0.02, 0.0, 0.01, 0.08):
        least = min(
            bet(800, 40, mean + difference).both(bet(1500, 30, mean))
            for mean in (number / 20_000 for number in range(1, 18_000))
            if 0 < mean + difference < 1
        )
        assert fractions.log_bet([pair], difference) == pytest.approx(least, abs=2e-3)


def test_the_other_way_round_it_is_the_same_with_another_sign() -> None:
    one, other = sample(300, 21), sample(900, 18)
    there, back = fractions.compare([Pair(one, other)], 0.05), fractions.compare([Pair(other, one)], 0.05)
    assert there.low == pytest.approx(-back.high, abs=1e-4)
    assert there.high == pytest.approx(-back.low, abs=1e-4)


def test_a_scale_is_a_unit() -> None:
    thumbs = fractions.compare([Pair(sample(500, 300), sample(500, 250))], 0.05)
    stars = fractions.compare([Pair(sample(500, 500 + 4 * 300), sample(500, 500 + 4 * 250))], 0.05, 1, 5)
    assert [4 * bound for bound in (thumbs.low, thumbs.high)] == pytest.approx([stars.low, stars.high])
    assert stars.estimate == pytest.approx(0.4)


def test_all_or_nothing_is_told_after_a_few() -> None:
    found = fractions.compare([Pair(sample(15, 15), sample(15, 0))], 0.05)
    assert found.low > 0.2
    assert fractions.compare([Pair(sample(3, 3), sample(3, 0))], 0.05).low < 0


def test_stages_add_up_and_what_differs_between_them_does_not_count() -> None:
    """By night everything fails more often and the candidate has more of the traffic: added up it would look worse."""
    day, night = Pair(sample(1000, 10), sample(9000, 90)), Pair(sample(9000, 900), sample(1000, 100))
    found = fractions.compare([day, night], 0.05)
    assert found.low < 0 < found.high
    mixed = fractions.compare([Pair(sample(10_000, 910), sample(10_000, 190))], 0.05)
    assert mixed.low > 0.05
    alone = fractions.compare([night], 0.05)
    assert found.high - found.low < alone.high - alone.low


def test_stages_that_contradict_each_other_are_settled_by_the_estimate() -> None:
    good, bad = Pair(sample(5000, 50), sample(5000, 500)), Pair(sample(5000, 2500), sample(5000, 500))
    found = fractions.compare([good, bad], 0.05)
    assert found.estimate is not None
    assert found.low == pytest.approx(found.estimate, abs=1e-3)
    assert found.high == pytest.approx(found.estimate, abs=1e-3)


def test_looked_at_after_every_user_it_errs_no_more_often_than_it_says() -> None:
    luck = random.Random(5)
    wrong = 0
    for _ in range(150):
        one, other = Sample(), Sample()
        for number in range(400):
            mine = one if luck.random() < 0.3 else other
            mine.add(float(luck.random() < 0.2), has_buckets=False)
            if number % 4 == 0 and fractions.log_bet([Pair(one, other)], 0.0) >= math.log(1 / 0.1):
                wrong += 1
                break
    assert wrong <= 0.1 * 150


def test_a_single_mean_has_bounds_on_its_own_scale() -> None:
    assert fractions.find_mean(Sample(), 0.05, 1, 5) == (None, 1, 5)
    few, many = (fractions.find_mean(sample(count, 0.3 * count), 0.05) for count in (50, 5000))
    assert few.low < many.low < 0.3 < many.high < few.high
    assert many.high - many.low < 0.06
    stars = fractions.find_mean(Sample(400, 1600.0, 6500.0, {}), 0.05, 1, 5)
    assert stars.estimate == 4
    assert 3.5 < stars.low < 4 < stars.high < 4.4


def test_a_single_mean_is_rarely_out_of_its_bounds_however_often_one_looks() -> None:
    luck = random.Random(11)
    misses = 0
    for _ in range(200):
        total = 0
        for count in range(1, 301):
            total += luck.random() < 0.1
            if (
                count % 5 == 0
                and not (found := fractions.find_mean(sample(count, total), 0.1)).low <= 0.1 <= found.high
            ):
                misses += 1
                break
    assert misses <= 20
