"""What is known of a number: an estimate, and bounds that hold at all times with the probability asked for."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gateway.telemetry.samples import Sample

Pair = tuple[Sample, Sample]
"""The candidate's sample and the baseline's, of one stage."""

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


UNKNOWN = Interval(None, -math.inf, math.inf)


def weigh(pair: Pair) -> float:
    """What a pair counts among others: as many values as two samples of the same size would have."""
    ours, theirs = pair[0].count, pair[1].count
    return ours * theirs / (ours + theirs) if ours and theirs else 0.0
