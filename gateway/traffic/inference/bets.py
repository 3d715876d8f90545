"""The bet that a sample of values between 0 and 1 makes against a mean, on which the other files are built.

It is the beta-binomial mixture: what a bettor would have who had spread his stake over all means, by a beta
distribution, had he bet at fair odds (H. Robbins, "Statistical Methods Related to the Law of the Iterated Logarithm",
Ann. Math. Stat. 41(5), 1970; S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic
confidence sequences", Ann. Stat. 49(2), 2021). For values of 0 and 1 it is a martingale; for any others between them it
grows no faster, since each factor is convex in the value. It needs counts and sums alone, in whatever order they came.

Half of the stake is spread evenly, which finds great differences in few values, or, where something was known before,
around that; half close to the mean that is tested, which finds small ones in many.
"""

import math
from typing import NamedTuple

_EVEN = 0.5
_CLOSE = 250.0
"""As many values as the close half of the stake is worth: it is at its best for some thousands."""

_LOG_HALF = math.log(0.5)


_MOST_LEARNT = 1000.0
"""As many values as what was known before is worth at most: things change."""


class Learnt(NamedTuple):
    """What was known of a mean before: sums of values, and of what they lacked to 1."""

    total: float
    rest: float


NOTHING = Learnt(0.0, 0.0)


class Bet(NamedTuple):
    """The logarithms of what both halves of the stake have come to, each as a multiple of itself."""

    even: float
    close: float

    def both(self, other: "Bet") -> float:
        """The logarithm of what comes of bets on two samples, each half of the stake going from one to the other."""
        even, close = self.even + other.even, self.close + other.close
        greater, less = max(even, close), min(even, close)
        return greater if math.isinf(greater) else _LOG_HALF + greater + math.log1p(math.exp(less - greater))


NO_BET = Bet(0.0, 0.0)


def bet(count: float, total: float, mean: float, learnt: Learnt = NOTHING) -> Bet:
    """The bet against `mean` of `count` values that add up to `total`."""
    if not count:
        return NO_BET
    rest = count - total
    if mean <= 0 or mean >= 1:
        is_refuted = total > 0 if mean <= 0 else rest > 0
        return Bet(math.inf, math.inf) if is_refuted else NO_BET
    likelihood = total * math.log(mean) + rest * math.log1p(-mean)
    hits, misses = _EVEN + learnt.total, _EVEN + learnt.rest
    return Bet(
        _log_beta(hits + total, misses + rest) - _log_beta(hits, misses) - likelihood,
        _log_beta(_CLOSE * mean + total, _CLOSE * (1 - mean) + rest)
        - _log_beta(_CLOSE * mean, _CLOSE * (1 - mean))
        - likelihood,
    )


def learn(count: float, total: float) -> Learnt:
    """From `count` values that add up to `total`."""
    weight = min(1.0, _MOST_LEARNT / count) if count else 0.0
    return Learnt(weight * total, weight * (count - total))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
