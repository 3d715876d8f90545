"""How long it may take until versions can be told apart: what would be known if there were more of the same. Pure."""

from collections.abc import Callable

from gateway.telemetry.samples import Sample
from gateway.traffic.inference.interval import Pair, Strata

_MOST = 4096.0
"""Times as much evidence as there is: who would have to wait longer is not told how long."""

_HALVINGS = 12


def find_wait_s(strata: Strata, elapsed_s: float, is_decided: Callable[[Strata], bool]) -> float | None:
    """How long until a decision, in seconds, if values go on to come as in the last stage, which has gone on for
    `elapsed_s`; None: not in sight.

    An estimate, and no promise: it takes what was measured for the truth.
    """
    if is_decided(strata):
        return 0.0
    factor = 2.0
    while not is_decided(_multiply(strata, factor)):
        factor *= 2
        if factor > _MOST:
            return None
    least, most = factor / 2, factor
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if is_decided(_multiply(strata, middle)):
            most = middle
        else:
            least = middle
    return elapsed_s * (most - 1)


def _multiply(strata: Strata, factor: float) -> Strata:
    """With so many times the evidence of the last stage: that of others does not grow any more."""
    candidate, baseline, before = strata[-1]
    more = Pair(_multiply_one(candidate, factor), _multiply_one(baseline, factor), before)
    return [*strata[:-1], more]


def _multiply_one(sample: Sample, factor: float) -> Sample:
    buckets = {bucket: round(count * factor) for bucket, count in sample.buckets.items()}
    count = sum(buckets.values()) if buckets else round(sample.count * factor)
    true_factor = count / sample.count if sample.count else factor
    return Sample(count, sample.total * true_factor, sample.squares * true_factor, buckets)
