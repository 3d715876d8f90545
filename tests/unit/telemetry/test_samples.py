import math
import random
import statistics

import msgspec
import pytest

from gateway.telemetry.samples import BUCKET_RATIO, Sample, find_bucket, find_floor


def sample(*values: float, has_buckets: bool = True) -> Sample:
    found = Sample()
    for value in values:
        found.add(value, has_buckets=has_buckets)
    return found


def test_mean_and_variance_are_those_of_the_values() -> None:
    values = [random.Random(3).gauss(5, 2) for _ in range(200)]
    found = sample(*map(abs, values), has_buckets=False)
    assert found.mean == pytest.approx(statistics.fmean(map(abs, values)))
    assert found.variance == pytest.approx(statistics.variance(map(abs, values)))
    assert found.buckets == {}


@pytest.mark.parametrize("has_buckets", [True, False])
def test_many_values_at_once_are_the_same_as_one_by_one(has_buckets: bool) -> None:
    values = [random.Random(4).expovariate(1.0) for _ in range(300)]
    found = sample(*values[:100], has_buckets=has_buckets)
    for part in (values[100:], [], [2.0], [0.0]):
        found.add_all(part, has_buckets=has_buckets)
    wanted = sample(*values, 2.0, 0.0, has_buckets=has_buckets)
    assert (found.count, found.buckets) == (wanted.count, wanted.buckets)
    assert (found.total, found.squares) == (pytest.approx(wanted.total), pytest.approx(wanted.squares))


def test_of_too_few_values_nothing_is_said() -> None:
    assert (Sample().mean, Sample().variance, Sample().quantile(0.5), sample(1).variance) == (None, None, None, None)


def test_rounding_makes_no_variance_negative() -> None:
    assert sample(*[0.1] * 1000).variance == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("value", [1e-6, 0.0009, 0.42, 1.0, 3.7, 98_765.4])
def test_a_value_lies_in_its_bucket(value: float) -> None:
    bucket = find_bucket(value)
    assert find_floor(bucket) * (1 - 1e-9) <= value < find_floor(bucket + 1) * (1 + 1e-9)
    assert find_floor(bucket + 1) / find_floor(bucket) == pytest.approx(BUCKET_RATIO)


@pytest.mark.parametrize("value", [0.0, 1e-9])
def test_the_smallest_values_share_a_bucket(value: float) -> None:
    assert find_bucket(value) == find_bucket(1e-6)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 1.0])
def test_quantiles_are_right_but_for_a_bucket(fraction: float) -> None:
    values = sorted(random.Random(4).lognormvariate(0, 1) for _ in range(999))
    found = sample(*values).quantile(fraction)
    assert found is not None
    exact = values[max(0, math.ceil(fraction * len(values)) - 1)]
    assert abs(math.log(found / exact)) < math.log(BUCKET_RATIO)


def test_two_samples_add_up_to_one() -> None:
    one, other = sample(1, 2, 3), sample(2, 700)
    one.merge(other)
    assert one == sample(1, 2, 3, 2, 700)


def test_it_is_the_same_in_another_process() -> None:
    one = sample(1, 2, 3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Sample) == one
