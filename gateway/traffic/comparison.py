"""How versions are compared on a metric: in which unit, by which statistics, and which of two is the better. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from gateway.settings import MetricSettings
from gateway.telemetry.samples import Metric, Sample
from gateway.traffic.inference import fractions, means, quantiles
from gateway.traffic.inference.interval import UNKNOWN, Interval, Strata

Better = Literal["higher", "lower"]

_MOST_LOG = 700.0  # of what a number can hold
_ANY = 0.05


class Kind(StrEnum):
    """What is compared, and so the unit of a margin."""

    DIFFERENCE = "difference"
    """Of the means of values with bounds; exact."""
    RATIO = "ratio"
    """Of a quantile, as a fraction: 0.1 is ten per cent more; exact but for half a per cent, a bucket's width."""
    MEAN = "mean"
    """The difference of the means of values without bounds; asymptotic."""


_OWN: Mapping[str, tuple[Kind, Better]] = {
    Metric.ERROR_RATE: (Kind.DIFFERENCE, "lower"),
    Metric.TTFT_S: (Kind.RATIO, "lower"),
    Metric.ITL_S: (Kind.RATIO, "lower"),
    Metric.TOTAL_S: (Kind.RATIO, "lower"),
    Metric.TOKENS_IN: (Kind.MEAN, "lower"),
    Metric.TOKENS_OUT: (Kind.MEAN, "lower"),
    Metric.COST: (Kind.MEAN, "lower"),
    Metric.LENGTH_STOPS: (Kind.DIFFERENCE, "lower"),
    Metric.REFUSALS: (Kind.DIFFERENCE, "lower"),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """A metric as it is compared. `low` and `high` bound the values of a DIFFERENCE, `quantile` is a RATIO's."""

    metric: str
    kind: Kind
    better: Better
    low: float = 0.0
    high: float = 1.0
    quantile: float = 0.5

    def compare(self, strata: Strata, alpha: float) -> Interval:
        """The candidate against the baseline, with bounds that hold at all times but for a probability of `alpha`."""
        if self.kind is Kind.DIFFERENCE:
            return fractions.compare(strata, alpha, self.low, self.high)
        if self.kind is Kind.MEAN:
            return means.compare(strata, alpha)
        found = quantiles.compare(strata, self.quantile, alpha)
        if found.estimate is None:
            return UNKNOWN
        return Interval(math.expm1(found.estimate), math.expm1(found.low), math.expm1(min(found.high, _MOST_LOG)))

    def find_harm(self, strata: Strata, alpha: float) -> Interval:
        """By how much the candidate is worse; what is below 0 is better."""
        found = self.compare(strata, alpha)
        if self.better == "lower":
            return found
        return Interval(None if found.estimate is None else -found.estimate, -found.high, -found.low)

    def estimate_harm(self, strata: Strata) -> float | None:
        """By how much the candidate seems to be worse. Quick."""
        if self.kind is Kind.DIFFERENCE:
            found = fractions.estimate(strata)
        elif self.kind is Kind.MEAN:
            found = means.compare(strata, _ANY).estimate
        else:
            ratio = quantiles.estimate(strata, self.quantile)
            found = None if ratio is None else math.expm1(ratio)
        return found if found is None or self.better == "lower" else -found

    def is_harm_refuted(self, strata: Strata, harm: float, alpha: float) -> bool:
        """True if the candidate is not worse by just so much, but for a probability of `alpha`. Quick."""
        difference = harm if self.better == "lower" else -harm
        if self.kind is Kind.DIFFERENCE:
            return fractions.log_bet(strata, difference, self.low, self.high) >= math.log(1 / alpha)
        if self.kind is Kind.MEAN:
            found = means.compare(strata, alpha)
            return not found.low <= difference <= found.high
        if difference <= -1:
            return True
        return quantiles.log_bet(strata, self.quantile, math.log1p(difference)) >= math.log(1 / alpha)

    def read(self, sample: Sample) -> float | None:
        """The value of one version: a mean, or the quantile."""
        return sample.quantile(self.quantile) if self.kind is Kind.RATIO else sample.mean


def find_scale(metric: str, known: Mapping[str, MetricSettings], quantile: float = 0.5) -> Scale:
    """How a metric is compared: one that is not the gateway's own is feedback, on a scale that is `known` or 0 to 1."""
    if metric in _OWN:
        kind, better = _OWN[metric]
        return Scale(metric, kind, better, quantile=quantile)
    scale = known.get(metric, MetricSettings())
    return Scale(metric, Kind.DIFFERENCE, scale.better, scale.low, scale.high)
