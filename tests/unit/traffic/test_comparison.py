import math
import random

import pytest

from gateway.settings import MetricSettings
from gateway.telemetry.samples import Metric, Sample
from gateway.traffic.comparison import Kind, find_scale
from gateway.traffic.inference.interval import Pair


def draw(count: int, mean: float, seed: int) -> Sample:
    luck = random.Random(seed)
    made = Sample()
    for _ in range(count):
        made.add(luck.expovariate(1 / mean), has_buckets=True)
    return made


def sample(count: int, total: float) -> Sample:
    return Sample(count, total, total, {})


@pytest.mark.parametrize("metric", list(Metric))
def test_every_metric_of_the_gateways_own_has_a_scale(metric: Metric) -> None:
    scale = find_scale(metric, {})
    assert (scale.metric, scale.better) == (metric, "lower")


def test_feedback_is_on_the_scale_that_the_settings_say() -> None:
    scale = find_scale("stars", {"stars": MetricSettings(low=1, high=5)})
    assert (scale.kind, scale.low, scale.high, scale.better) == (Kind.DIFFERENCE, 1, 5, "higher")
    assert find_scale("waste", {"waste": MetricSettings(better="lower")}).better == "lower"
    assert (find_scale("thumb", {}).low, find_scale("thumb", {}).high) == (0, 1)


def test_a_difference_is_one_of_means() -> None:
    scale = find_scale(Metric.ERROR_RATE, {})
    found = scale.compare([Pair(sample(10_000, 300), sample(10_000, 100))], 0.05)
    assert found.estimate == pytest.approx(0.02)
    assert 0 < found.low < 0.02 < found.high < 0.04
    assert scale.find_harm([Pair(sample(10_000, 300), sample(10_000, 100))], 0.05) == found
    assert scale.read(sample(10_000, 300)) == 0.03


def test_times_are_compared_by_the_ratio_of_a_quantile_as_a_fraction() -> None:
    pair = Pair(draw(4000, 1.5, 1), draw(4000, 1.0, 2))
    for quantile in (0.5, 0.9):
        scale = find_scale(Metric.TTFT_S, {}, quantile)
        found = scale.compare([pair], 0.05)
        assert found.estimate == pytest.approx(0.5, abs=0.1)
        assert 0.2 < found.low < 0.5 < found.high < 0.8
        assert scale.read(pair[1]) == pytest.approx(-math.log(1 - quantile), rel=0.1)
    few = find_scale(Metric.TTFT_S, {}).compare([Pair(draw(3, 1, 1), draw(3, 1, 2))], 0.05)
    assert (few.low, few.high > 1e100) == (-1.0, True)
    assert find_scale(Metric.TTFT_S, {}).compare([], 0.05).estimate is None


def test_what_has_no_bounds_is_compared_by_its_mean() -> None:
    found = find_scale(Metric.COST, {}).compare([Pair(draw(4000, 6, 1), draw(4000, 5, 2))], 0.05)
    assert found.low < 1 < found.high


def test_harm_is_positive_whichever_value_is_the_better() -> None:
    worse = [Pair(sample(1000, 200), sample(1000, 800))]
    harm = find_scale("thumb", {}).find_harm(worse, 0.05)
    assert harm.estimate == pytest.approx(0.6)
    assert 0.4 < harm.low < harm.high < 0.8
    assert find_scale("thumb", {}).find_harm([], 0.05) == (None, -1, 1)
