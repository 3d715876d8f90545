"""What is known of a number: an estimate, and bounds that hold at all times with the probability asked for."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gateway.telemetry.samples import Sample

_HUGE = 1e300


class Pair(NamedTuple):
    """The candidate's sample and the baseline's, of one stage; `before` is what was known of both when it began.

    It only says where to bet: bets are as fair without it, and win less. So it must not be changed by what came later.
    """

    candidate: Sample
    baseline: Sample
    before: tuple[Sample, Sample] | None = None


Strata = Sequence[Pair]
"""The pairs of several stages. Only what was measured in the same stage is compared, and what came of it added up:
shares change from one stage to the next, and so may everything else that the values depend on."""


class Interval(NamedTuple):
    """Bounds may be infinite; `estimate` is None where nothing was measured."""

    estimate: float | None
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """True once there is an estimate and a bound on either side."""
        return self.estimate is not None and math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Both bounds, for people and JSON; None for one that is not known."""
        low, high = (bound if abs(bound) < _HUGE else None for bound in (self.low, self.high))
        return low, high


UNKNOWN = Interval(None, -math.inf, math.inf)


def weigh(pair: Pair) -> float:
    """What a pair counts among others: as many values as two samples of the same size would have."""
    ours, theirs = pair.candidate.count, pair.baseline.count
    return ours * theirs / (ours + theirs) if ours and theirs else 0.0
