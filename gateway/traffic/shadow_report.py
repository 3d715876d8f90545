"""What is known of a shadow, from the copies so far: how its answers compare with those that clients got. Pure.

A copy is compared with the client's answer to the same request, so that what differs between requests is left out. A
user counts once, by his first copy.
"""

import math
from collections.abc import Iterator
from typing import Any

from gateway.state import REQUESTS, USERS, Evidence
from gateway.telemetry.samples import Sample
from gateway.traffic.inference import fractions, means
from gateway.traffic.inference.interval import Interval
from gateway.traffic.shadow import (
    FIRST_DIFFERENCE,
    FRACTIONS,
    GAP_OF_PRIMARY,
    GAP_OF_SHADOW,
    NUMBERS,
    write_metric,
)

_FAILED = "failed"


def report_shadow(evidence: Evidence, alpha: float = 0.05) -> dict[str, Any]:
    """By the version that copies are compared with; bounds fail with a probability of `alpha`, whenever one looks."""
    versions = sorted({version for version, _, _ in evidence})
    return {version: _describe(evidence, version, alpha) for version in versions}


def _describe(evidence: Evidence, version: str, alpha: float) -> dict[str, Any]:
    failed = write_metric("shadow", _FAILED)
    return {
        "copies": _find(evidence, version, REQUESTS, failed).count,
        "users": _find(evidence, version, USERS, failed).count,
        "numbers": dict(_describe_numbers(evidence, version, alpha)),
        "answers": dict(_describe_answers(evidence, version, alpha)),
    }


def _describe_numbers(evidence: Evidence, version: str, alpha: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """The means of both sides, and of the change from the client's answer to the copy's."""
    for name in NUMBERS:
        ours, theirs, change = (_find(evidence, version, USERS, write_metric(side, name)) for side in _SIDES)
        if change.count:
            bounds = _bound_failures(change, alpha) if name == _FAILED else means.find_mean(change, alpha)
            yield name, {"primary": ours.mean, "shadow": theirs.mean, "change": change.mean} | _bound(bounds)


def _describe_answers(evidence: Evidence, version: str, alpha: float) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in (*FRACTIONS, FIRST_DIFFERENCE, GAP_OF_PRIMARY, GAP_OF_SHADOW):
        sample = _find(evidence, version, USERS, name)
        if sample.count:
            bounds = fractions.find_mean(sample, alpha) if name in FRACTIONS else means.find_mean(sample, alpha)
            yield name, {"count": sample.count, "mean": sample.mean} | _bound(bounds)


def _find(evidence: Evidence, version: str, scope: str, metric: str) -> Sample:
    return evidence.get((version, scope, metric), Sample())


def _bound_failures(change: Sample, alpha: float) -> Interval:
    """Of a change that is 1 where the copy alone has failed, -1 where the client's answer has: by both fractions."""
    copy_alone, client_alone = (change.squares + change.total) / 2, (change.squares - change.total) / 2
    more, less = (fractions.find_mean(Sample(change.count, each), alpha / 2) for each in (copy_alone, client_alone))
    return Interval(change.mean, more.low - less.high, more.high - less.low)


def _bound(interval: Interval) -> dict[str, float | None]:
    bounds = {"low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in bounds.items()}


_SIDES = ("primary", "shadow", "change")
