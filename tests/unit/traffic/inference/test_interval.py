import math

from gateway.telemetry.samples import Sample
from gateway.traffic.inference.interval import UNKNOWN, Interval, Pair, weigh


def test_an_interval_is_known_once_both_bounds_are() -> None:
    assert Interval(0.1, 0.0, 0.2).is_known
    assert not Interval(0.1, 0.0, math.inf).is_known
    assert not UNKNOWN.is_known
    assert UNKNOWN.bounds == (None, None)
    assert Interval(0.1, 0.0, 1e301).bounds == (0.0, None)


def test_a_pair_counts_as_two_samples_of_one_size() -> None:
    assert weigh(Pair(Sample(100), Sample(100))) == 50
    assert weigh(Pair(Sample(10), Sample(10**9))) < 10.01
    assert weigh(Pair(Sample(), Sample(5))) == 0
