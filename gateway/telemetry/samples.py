"""Numbers of which versions are compared: what they are called, and what is kept of many of them.

Kept are count, sum, sum of squares and, of times, how many fell into which bucket: all of it adds up
over processes and gateways, and whatever is worked out of it later needs no single value any more.
"""

import math
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from operator import mul

import msgspec

BUCKET_RATIO = 1.005
"""Of one bucket's bound to the next: what quantiles are exact to."""

_LEAST = 1e-6
_STEP = math.log(BUCKET_RATIO)


class Metric(StrEnum):
    """What the gateway itself measures of requests. Whatever else clients send as feedback has a name of theirs."""

    ERROR_RATE = "error_rate"
    TTFT_S = "ttft_s"
    ITL_S = "itl_s"
    TOTAL_S = "total_s"
    TOKENS_IN = "tokens_in"
    TOKENS_OUT = "tokens_out"
    COST = "cost"
    LENGTH_STOPS = "length_stops"
    REFUSALS = "refusals"


TIMES = (Metric.TTFT_S, Metric.ITL_S, Metric.TOTAL_S)
"""Those of which quantiles are asked for, and which are counted in buckets."""


class Sample(msgspec.Struct):
    """What is kept of many values. `buckets` counts them by `find_bucket`, where that was asked for."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    buckets: dict[int, int] = {}

    def add(self, value: float, *, has_buckets: bool) -> None:
        """One value more."""
        self.add_known(value, find_bucket(value) if has_buckets else None)

    def add_known(self, value: float, bucket: int | None) -> None:
        """One value more, whose bucket is known."""
        self.count += 1
        self.total += value
        self.squares += value * value
        if bucket is not None:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def add_all(self, values: Sequence[float], *, has_buckets: bool) -> None:
        """Many values more."""
        self.count += len(values)
        self.total += sum(values)
        self.squares += sum(map(mul, values, values))
        if has_buckets:
            for bucket, count in Counter(map(find_bucket, values)).items():
                self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def merge(self, other: "Sample") -> None:
        """All values of another sample more."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float | None:
        """None where there is no value."""
        return self.total / self.count if self.count else None

    @property
    def variance(self) -> float | None:
        """Of the values, unbiased; None of fewer than two."""
        if self.count < 2:
            return None
        return max(0.0, (self.squares - self.total * self.total / self.count) / (self.count - 1))

    def quantile(self, fraction: float) -> float | None:
        """The middle of the bucket that has it; None where there is no value."""
        wanted, seen = fraction * self.count, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return math.sqrt(find_floor(bucket) * find_floor(bucket + 1))
        return None


def find_bucket(value: float) -> int:
    """The number of the bucket that a value of 0 or more falls into."""
    return math.floor(math.log(max(value, _LEAST)) / _STEP)


def find_floor(bucket: int) -> float:
    """The least value in a bucket."""
    return math.exp(bucket * _STEP)
