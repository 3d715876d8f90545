"""Means of what has no bounds, such as tokens or cost, and differences of two of them. Asymptotic: for many values.

The width is that of a normal mixture with the measured variance (I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy, A.
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Ann. Stat. 52(6), 2024, theorem 2.2).
"""

import math
from collections.abc import Iterable

from gateway.telemetry.samples import Sample
from gateway.traffic.inference.interval import UNKNOWN, Interval, Pair, Strata

LEAST = 50
"""Values of each sample before anything is said."""

_TUNED_TO = 500.0
"""The effective number of values at which the interval is as narrow as it can be."""


def compare(strata: Strata, alpha: float) -> Interval:
    """The difference of the means, candidate's minus baseline's; of several stages, weighed by how exact each is."""
    known = [found for pair in strata if (found := _measure(pair)) is not None]
    if not known:
        ours, theirs = _join(pair.candidate for pair in strata).mean, _join(pair.baseline for pair in strata).mean
        return UNKNOWN if ours is None or theirs is None else UNKNOWN._replace(estimate=ours - theirs)
    weight = sum(1 / squared for _, squared, _ in known)
    estimate = sum(difference / squared for difference, squared, _ in known) / weight
    effective = sum(pooled / squared for _, squared, pooled in known)
    width = math.sqrt(1 / weight) * _find_factor(effective, alpha)
    return Interval(estimate, estimate - width, estimate + width)


def find_mean(sample: Sample, alpha: float) -> Interval:
    """The mean of one sample, of values that may be differences themselves."""
    variance = sample.variance
    if not variance or sample.count < LEAST:
        return UNKNOWN._replace(estimate=sample.mean)
    mean = sample.total / sample.count
    width = math.sqrt(variance / sample.count) * _find_factor(sample.count, alpha)
    return Interval(mean, mean - width, mean + width)


def _measure(pair: Pair) -> tuple[float, float, float] | None:
    """The difference in one stage, its variance and that of the values; None where too little is known."""
    candidate, baseline, _ = pair
    ours, theirs = candidate.variance, baseline.variance
    if ours is None or theirs is None or min(candidate.count, baseline.count) < LEAST:
        return None
    squared = ours / candidate.count + theirs / baseline.count
    if not squared:
        return None  # values that are all alike tell nothing of how they vary
    pooled = (ours * candidate.count + theirs * baseline.count) / (candidate.count + baseline.count)
    return candidate.total / candidate.count - baseline.total / baseline.count, squared, pooled


def _join(samples: Iterable[Sample]) -> Sample:
    joined = Sample()
    for sample in samples:
        joined.merge(sample)
    return joined


def _find_factor(effective: float, alpha: float) -> float:
    """The width in standard errors, of an effective number of values."""
    wanted = -2 * math.log(alpha)
    rho = (wanted + math.log(wanted + 1)) / _TUNED_TO
    scaled = effective * rho
    return math.sqrt((1 + 1 / scaled) * (math.log(scaled + 1) + wanted))
