"""Ratios of quantiles of what has no upper bound, such as times. Exact but for the width of a bucket.

How many values lie below the true quantile is a sample of 0 and 1 whose mean is known; so each place where the quantile
could be is bet against as a mean is (S. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B
testing and best-arm identification", Bernoulli 28(3), 2022, bound quantiles likewise). Of two samples the bets are
multiplied, as in `fractions`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from gateway.telemetry.samples import BUCKET_RATIO, Sample
from gateway.traffic.inference.bets import NOTHING, Bet, bet, learn
from gateway.traffic.inference.interval import UNKNOWN, Interval, Pair, Strata, weigh

_STEP = math.log(BUCKET_RATIO)
_FAR = 40.0
"""What a bet on one sample may have come to and still come into what is not refuted: bets on the other sample, and
those of other stages, may have lost some of their stake."""


def compare(strata: Strata, quantile: float, alpha: float) -> Interval:
    """The logarithm of the ratio of a quantile, candidate's to baseline's: 0.095 is ten per cent more."""
    estimated = estimate(strata, quantile)
    if estimated is None:
        return UNKNOWN
    limit = math.log(1 / alpha)
    bets = _list_bets(strata, quantile)

    def is_refuted(ratio: int) -> bool:
        return sum(one.against(ratio) for one in bets) >= limit

    inside = round(estimated / _STEP)
    low = -math.inf if sum(one.below for one in bets) < limit else _find_edge(inside, -1, is_refuted)
    high = math.inf if sum(one.above for one in bets) < limit else _find_edge(inside, 1, is_refuted)
    return Interval(estimated, low * _STEP, high * _STEP)


def estimate(strata: Strata, quantile: float) -> float | None:
    """The logarithm of the ratio, of several stages weighed by their values; None where nothing was measured."""
    weights = [weigh(pair) for pair in strata]
    if not sum(weights):
        return None
    ratios = [_estimate_one(pair, quantile) if weight else 0.0 for pair, weight in zip(strata, weights, strict=True)]
    return sum(weight * ratio for weight, ratio in zip(weights, ratios, strict=True)) / sum(weights)


def log_bet(strata: Strata, quantile: float, ratio: float) -> float:
    """The logarithm of what the bet against a log-ratio has come to. Quick, beside `compare`."""
    place = ratio / _STEP
    # Both quantiles may lie anywhere in their buckets, so a ratio between two numbers of buckets may be either.
    places = {math.floor(place), math.ceil(place)}
    bets = _list_bets(strata, quantile)
    return min(sum(one.against(number) for one in bets) for number in places)


def _list_bets(strata: Strata, quantile: float) -> list["_Ratios"]:
    return [_Ratios(pair, quantile) for pair in strata if weigh(pair)]


def _estimate_one(pair: Pair, quantile: float) -> float:
    ours, theirs = pair.candidate.quantile(quantile), pair.baseline.quantile(quantile)
    return math.log(ours / theirs) if ours and theirs else 0.0


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

    def __init__(self, pair: Pair, quantile: float) -> None:
        candidate, baseline, before = pair
        our_past, their_past = (Sample(), Sample()) if before is None else before
        self._ours = _Places(candidate, our_past, quantile)
        self._theirs = _Places(baseline, their_past, quantile)
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
    """The bets of one sample against each place where the quantile may lie; `past` is what was known when it began.

    `likely` are the buckets that have values and come into question. How many values are below the quantile is not
    known there: of all numbers that it may be, that of the least bet counts.
    """

    def __init__(self, sample: Sample, past: Sample, quantile: float) -> None:
        self.likely: dict[int, Bet] = {}
        self._buckets = sorted(sample.buckets)
        self._below = list(accumulate((sample.buckets[bucket] for bucket in self._buckets), initial=0))
        self._past_buckets = sorted(past.buckets)
        self._past_below = list(accumulate((past.buckets[bucket] for bucket in self._past_buckets), initial=0))
        self._count, self._quantile = sample.count, quantile
        self._known: dict[int, Bet] = {}
        fitting = quantile * sample.count
        for number, bucket in enumerate(self._buckets):
            best = min(max(fitting, self._below[number]), self._below[number + 1])
            against = self._known[bucket] = self._bet(best, bucket)
            if min(against) < _FAR:
                self.likely[bucket] = against

    def find(self, bucket: int) -> Bet:
        """The bet against a bucket, whether it has values or not."""
        known = self._known.get(bucket)
        return self._bet(self._below[bisect_left(self._buckets, bucket)], bucket) if known is None else known

    def bet_on_end(self, others: "_Places", end: int) -> float:
        """The bet against a quantile below all values, 0, or above them, -1, whatever the other sample's is."""
        against = self._bet(self._below[end], None)
        return min(against.both(other) for other in others.likely.values())

    def _bet(self, below: float, bucket: int | None) -> Bet:
        learnt = NOTHING
        if bucket is not None and self._past_buckets:
            before = self._past_below[bisect_left(self._past_buckets, bucket)]
            learnt = learn(self._past_below[-1], before)
        return bet(self._count, below, self._quantile, learnt)
