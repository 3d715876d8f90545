"""Ratios of quantiles of what has no upper bound, such as times. Exact but for the width of a bucket.

How many values lie below the true quantile is a sample of 0 and 1 whose mean is known; so each place where the quantile
could be is bet against as a mean is (S. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B
testing and best-arm identification", Bernoulli 28(3), 2022, bound quantiles likewise). Of two samples the bets are
multiplied, as in `fractions`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable

from gateway.telemetry.samples import BUCKET_RATIO, Sample
from gateway.traffic.inference.bets import Bet, bet
from gateway.traffic.inference.interval import UNKNOWN, Interval, Pair, Strata, weigh

_STEP = math.log(BUCKET_RATIO)
_FAR = 20.0
"""How far above the limit a bet on one sample may be and still come into what is not refuted: bets on the other sample,
and those of other stages, may have lost some of their stake."""


def compare(strata: Strata, quantile: float, alpha: float) -> Interval:
    """The logarithm of the ratio of a quantile, candidate's to baseline's: 0.095 is ten per cent more."""
    known = [pair for pair in strata if weigh(pair)]
    if not known:
        return UNKNOWN
    limit = math.log(1 / alpha)
    bets = [_Ratios(pair, quantile, limit) for pair in known]
    weights = [weigh(pair) for pair in known]
    estimate = sum(one.estimate * weight for one, weight in zip(bets, weights, strict=True)) / sum(weights)

    def is_refuted(ratio: int) -> bool:
        return sum(one.against(ratio) for one in bets) >= limit

    inside = round(estimate / _STEP)
    low = -math.inf if sum(one.below for one in bets) < limit else _find_edge(inside, -1, is_refuted)
    high = math.inf if sum(one.above for one in bets) < limit else _find_edge(inside, 1, is_refuted)
    return Interval(estimate, low * _STEP, high * _STEP)


def _find_edge(inside: int, direction: int, is_refuted: Callable[[int], bool]) -> int:
    """The first ratio that is refuted in a direction: the further from the estimate, the more is bet against it."""
    far = 1
    while not is_refuted(inside + direction * far):
        far *= 2
    near = far // 2
    while far - near > 1:
        middle = (near + far) // 2
        if is_refuted(inside + direction * middle):
            far = middle
        else:
            near = middle
    return inside + direction * far


class _Ratios:
    """The bets of one stage against each ratio, in buckets; `below` and `above` against what no bucket bounds."""

    def __init__(self, pair: Pair, quantile: float, limit: float) -> None:
        candidate, baseline = pair
        ours, theirs = candidate.quantile(quantile), baseline.quantile(quantile)
        self.estimate = math.log(ours / theirs) if ours and theirs else 0.0
        self._ours = _Places(candidate, quantile, limit)
        self._theirs = _Places(baseline, quantile, limit)
        self.below = min(self._ours.bet_on_end(self._theirs, 0), self._theirs.bet_on_end(self._ours, -1))
        self.above = min(self._ours.bet_on_end(self._theirs, -1), self._theirs.bet_on_end(self._ours, 0))

    def against(self, ratio: int) -> float:
        """The bet against a ratio of so many buckets.

        It is at its worst where one of both quantiles lies in a bucket that has values.
        """
        ours, theirs = self._ours, self._theirs
        here = (known.both(theirs.find(bucket - ratio)) for bucket, known in ours.likely.items())
        there = (known.both(ours.find(bucket + ratio)) for bucket, known in theirs.likely.items())
        return min(*here, *there)


class _Places:
    """The bets of one sample against each place where the quantile may lie.

    `likely` are the buckets that have values and come into question. How many values are below the quantile is not
    known there: of all numbers that it may be, that of the least bet counts.
    """

    def __init__(self, sample: Sample, quantile: float, limit: float) -> None:
        self.likely: dict[int, Bet] = {}
        self._buckets = sorted(sample.buckets)
        self._gaps = [bet(sample.count, 0, quantile)]
        self._known: dict[int, Bet] = {}
        below, fitting = 0, quantile * sample.count
        for bucket in self._buckets:
            above = below + sample.buckets[bucket]
            against = self._known[bucket] = bet(sample.count, min(max(fitting, below), above), quantile)
            if min(against) < limit + _FAR:
                self.likely[bucket] = against
            below = above
            self._gaps.append(bet(sample.count, below, quantile))

    def find(self, bucket: int) -> Bet:
        """The bet against a bucket, whether it has values or not."""
        known = self._known.get(bucket)
        return self._gaps[bisect_left(self._buckets, bucket)] if known is None else known

    def bet_on_end(self, others: "_Places", end: int) -> float:
        """The bet against a quantile below all values, 0, or above them, -1, whatever the other sample's is."""
        return min(self._gaps[end].both(other) for other in others.likely.values())
