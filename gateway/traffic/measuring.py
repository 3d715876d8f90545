"""From what was measured in the steps of a rollout to what decides about it. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence

from gateway.state import USERS, Evidence
from gateway.telemetry.samples import Metric, Sample
from gateway.traffic.inference import sample_ratio
from gateway.traffic.inference.interval import Pair, Strata

Past = Mapping[str, tuple[Sample, Sample]]
"""By metric, what was known of candidate and baseline when a step began."""

_SKEW_ALPHA = 0.001
"""The probability that versions with the right users are said to have others."""


def find_strata(
    steps: Sequence[Evidence], pasts: Sequence[Past], candidate: str, baseline: str, metrics: Iterable[str]
) -> dict[str, Strata]:
    """The pairs of the steps, by metric: what each user's first request of a step told."""
    return {
        metric: [
            Pair(
                evidence.get((candidate, USERS, metric), Sample()),
                evidence.get((baseline, USERS, metric), Sample()),
                past.get(metric),
            )
            for evidence, past in zip(steps, pasts, strict=True)
        ]
        for metric in metrics
        if any((version, USERS, metric) in evidence for evidence in steps for version in (candidate, baseline))
    }


def find_past(strata: Mapping[str, Strata]) -> dict[str, tuple[Sample, Sample]]:
    """What is known by now, for a step that begins."""
    return {
        metric: (_join(pair.candidate for pair in pairs), _join(pair.baseline for pair in pairs))
        for metric, pairs in strata.items()
    }


def count_users(evidence: Evidence) -> dict[str, int]:
    """How many users of each version have sent a request that could be judged."""
    return {
        version: sample.count
        for (version, scope, metric), sample in evidence.items()
        if (scope, metric) == (USERS, Metric.ERROR_RATE)
    }


def is_skewed(evidence: Evidence, shares: Mapping[str, float]) -> bool:
    """True if versions have not got the users that their shares say."""
    return sample_ratio.log_bet(count_users(evidence), shares) >= math.log(1 / _SKEW_ALPHA)


def _join(samples: Iterable[Sample]) -> Sample:
    joined = Sample()
    for sample in samples:
        joined.merge(sample)
    return joined
