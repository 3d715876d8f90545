"""Differences of the means of values that have bounds, such as fractions of requests. Exact, for few values too.

A bet against a difference is one against all pairs of means that differ so: the product of the bets on both samples,
against the pair that it does worst against (R. Turner, P. Grünwald, "Exact anytime-valid confidence intervals for
contingency tables and beyond", Stat. Probab. Lett. 198, 2023, bet likewise on both samples at once).
"""

import math
from collections.abc import Callable

from gateway.telemetry.samples import Sample
from gateway.traffic.inference.bets import NO_BET, NOTHING, Learnt, bet, learn
from gateway.traffic.inference.interval import UNKNOWN, Interval, Pair, Strata, weigh

_GOLDEN = (math.sqrt(5) - 1) / 2
_AROUND = 4.0  # standard errors around the best fit, in which the bet is at its worst
_REFINEMENTS = 14
_HALVINGS = 40
_EDGE_HALVINGS = 24


def compare(strata: Strata, alpha: float, low: float = 0.0, high: float = 1.0) -> Interval:
    """The difference of the means, candidate's minus baseline's, of values between `low` and `high`."""
    span, estimated = high - low, estimate(strata)
    if estimated is None:
        return UNKNOWN._replace(low=-span, high=span)
    limit = math.log(1 / alpha)

    def is_refuted(difference: float) -> bool:
        return log_bet(strata, difference * span, low, high) >= limit

    inside = estimated / span
    lowest, highest = _find_edge(inside, -1.0, is_refuted), _find_edge(inside, 1.0, is_refuted)
    return Interval(estimated, lowest * span, highest * span)


def find_mean(sample: Sample, alpha: float, low: float = 0.0, high: float = 1.0) -> Interval:
    """The mean of one sample, of values between `low` and `high`."""
    span = high - low
    if not sample.count:
        return UNKNOWN._replace(low=low, high=high)
    total, limit = _scale(sample, low, high), math.log(1 / alpha)

    def is_refuted(mean: float) -> bool:
        return bet(sample.count, total, mean).both(NO_BET) >= limit

    inside = total / sample.count
    lowest, highest = _find_edge(inside, 0.0, is_refuted), _find_edge(inside, 1.0, is_refuted)
    return Interval(low + inside * span, low + lowest * span, low + highest * span)


def estimate(strata: Strata) -> float | None:
    """The difference, of several stages weighed by their values; None where nothing was measured."""
    weights = [weigh(pair) for pair in strata]
    if not sum(weights):
        return None
    weighed = (_find_difference(pair) * weight for pair, weight in zip(strata, weights, strict=True) if weight)
    return sum(weighed) / sum(weights)


def log_bet(strata: Strata, difference: float, low: float = 0.0, high: float = 1.0) -> float:
    """The logarithm of what the bet against a `difference` of the means, candidate's minus baseline's, has come to."""
    shift = difference / (high - low)
    least, most = max(0.0, -shift), min(1.0, 1.0 - shift)
    if least > most:
        return math.inf
    return sum(_log_bet_on(pair, shift, least, most, low, high) for pair in strata)


def _log_bet_on(pair: Pair, shift: float, least: float, most: float, low: float, high: float) -> float:
    candidate, baseline, before = pair
    ours, theirs = _scale(candidate, low, high), _scale(baseline, low, high)
    our_past, their_past = (NOTHING, NOTHING) if before is None else (_learn(one, low, high) for one in before)

    def bet_against(mean: float) -> float:
        our_bet = bet(candidate.count, ours, mean + shift, our_past)
        return our_bet.both(bet(baseline.count, theirs, mean, their_past))

    fitting = _fit(candidate.count, ours, baseline.count, theirs, shift, least, most)
    error = math.sqrt(0.25 / max(1, candidate.count + baseline.count))
    return _find_least(bet_against, max(least, fitting - _AROUND * error), min(most, fitting + _AROUND * error))


def _learn(sample: Sample, low: float, high: float) -> Learnt:
    return learn(sample.count, _scale(sample, low, high))


def _find_difference(pair: Pair) -> float:
    return pair.candidate.total / pair.candidate.count - pair.baseline.total / pair.baseline.count


def _fit(
    count: float, total: float, other_count: float, other_total: float, shift: float, least: float, most: float
) -> float:
    """The baseline's mean that is likeliest if the candidate's is greater by `shift`."""
    for _ in range(_HALVINGS):
        mean = (least + most) / 2
        if _slope(count, total, mean + shift) + _slope(other_count, other_total, mean) > 0:
            least = mean
        else:
            most = mean
    return (least + most) / 2


def _slope(count: float, total: float, mean: float) -> float:
    """Of the log-likelihood at a mean."""
    rest = count - total
    rise = (total / mean if mean > 0 else math.inf) if total > 0 else 0.0
    fall = (rest / (1 - mean) if mean < 1 else math.inf) if rest > 0 else 0.0
    return 0.0 if rise == fall else rise - fall


def _find_least(function: Callable[[float], float], least: float, most: float) -> float:
    """The least value of a function between two places, by golden sections."""
    one, other = most - _GOLDEN * (most - least), least + _GOLDEN * (most - least)
    at_one, at_other = function(one), function(other)
    for _ in range(_REFINEMENTS):
        if at_one < at_other:
            most, other, at_other = other, one, at_one
            one = most - _GOLDEN * (most - least)
            at_one = function(one)
        else:
            least, one, at_one = one, other, at_other
            other = least + _GOLDEN * (most - least)
            at_other = function(other)
    return min(at_one, at_other)


def _find_edge(inside: float, outside: float, is_refuted: Callable[[float], bool]) -> float:
    """Where what is refuted begins, on the refuted side; `outside` itself if that is not."""
    if not is_refuted(outside):
        return outside
    for _ in range(_EDGE_HALVINGS):
        middle = (inside + outside) / 2
        if is_refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _scale(sample: Sample, low: float, high: float) -> float:
    """The sum of the values, each as a fraction of the way from `low` to `high`."""
    return min(max((sample.total - sample.count * low) / (high - low), 0.0), float(sample.count))
