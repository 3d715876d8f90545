"""What is known of a model's versions: numbers of each, and each compared with the baseline, at any time. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.settings import MetricSettings
from gateway.state import REQUESTS, USERS, Evidence
from gateway.telemetry.samples import TIMES, Metric, Sample
from gateway.traffic.comparison import Scale, find_scale
from gateway.traffic.forecast import find_wait_s
from gateway.traffic.inference import sample_ratio
from gateway.traffic.inference.interval import Interval, Pair, Strata
from gateway.traffic.measuring import count_users, is_skewed

_QUANTILES = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be compared: `elapsed_s` since the stage began, bounds that fail with a probability of `alpha`."""

    baseline: str
    shares: Mapping[str, float]
    alpha: float = 0.05
    elapsed_s: float = 0.0


def report(evidence: Evidence, question: Question, metrics: Mapping[str, MetricSettings]) -> dict[str, Any]:
    """Everything about one stage. `metrics` are the scales of feedback."""
    versions = [name for name, share in question.shares.items() if share > 0]
    return {
        "baseline": question.baseline,
        "alpha": question.alpha,
        "versions": {name: _describe(evidence, name, question.shares[name], metrics) for name in versions},
        "sample_ratio": _describe_ratio(evidence, question.shares),
        "comparisons": {
            name: list(_compare_all(evidence, name, question, metrics))
            for name in versions
            if name != question.baseline
        },
    }


def _describe(evidence: Evidence, version: str, share: float, metrics: Mapping[str, MetricSettings]) -> dict[str, Any]:
    """The numbers of one version: of all requests, and of users where they count once."""
    requests = evidence.get((version, REQUESTS, Metric.ERROR_RATE), Sample())
    found: dict[str, Any] = {
        "share": share,
        "users": count_users(evidence).get(version, 0),
        "requests": requests.count,
        "errors": round(requests.total),
        "metrics": {},
    }
    for metric in _list_metrics(evidence):
        all_requests, users = (evidence.get((version, scope, metric), Sample()) for scope in (REQUESTS, USERS))
        scale = find_scale(metric, metrics)
        shown: dict[str, Any] = {
            "requests": {"count": all_requests.count, "mean": all_requests.mean, "total": all_requests.total},
            "users": {"count": users.count, "value": scale.read(users)},
        }
        if metric in TIMES:
            shown["requests"] |= {f"p{q * 100:g}": all_requests.quantile(q) for q in _QUANTILES}
        found["metrics"][metric] = shown
    return found


def _describe_ratio(evidence: Evidence, shares: Mapping[str, float]) -> dict[str, Any]:
    """Whether versions have got the users that their shares say."""
    counts = count_users(evidence)
    total = sum(counts.get(name, 0) for name, share in shares.items() if share > 0)
    return {
        "users": {name: counts.get(name, 0) for name, share in shares.items() if share > 0},
        "expected": {name: share * total for name, share in shares.items() if share > 0},
        "log_bet": sample_ratio.log_bet(counts, shares),
        "alarm": is_skewed(evidence, shares),
    }


def _compare_all(
    evidence: Evidence, version: str, question: Question, metrics: Mapping[str, MetricSettings]
) -> Iterator[dict[str, Any]]:
    for metric in _list_metrics(evidence):
        yield from _compare(evidence, version, metric, question, metrics)


def _compare(
    evidence: Evidence, version: str, metric: str, question: Question, metrics: Mapping[str, MetricSettings]
) -> Iterator[dict[str, Any]]:
    pair = Pair(
        evidence.get((version, USERS, metric), Sample()), evidence.get((question.baseline, USERS, metric), Sample())
    )
    if not pair.candidate.count and not pair.baseline.count:
        return
    for quantile in _QUANTILES if metric in TIMES else (0.5,):
        scale = find_scale(metric, metrics, quantile)
        found = scale.compare([pair], question.alpha)
        yield {
            "metric": metric,
            "compared": str(scale.kind),
            **({"quantile": quantile} if metric in TIMES else {}),
            "better": scale.better,
            "candidate": scale.read(pair.candidate),
            "baseline": scale.read(pair.baseline),
            "users": {"candidate": pair.candidate.count, "baseline": pair.baseline.count},
            "estimate": found.estimate,
            "low": found.bounds[0],
            "high": found.bounds[1],
            "verdict": _say(found, scale),
            "seconds_to_decision": _find_wait(scale, [pair], question),
        }


def _say(found: Interval, scale: Scale) -> str:
    """`better`, `worse`, or `open` while it may be either."""
    if found.estimate is None or found.low <= 0 <= found.high:
        return "open"
    return "better" if (found.low > 0) == (scale.better == "higher") else "worse"


def _find_wait(scale: Scale, strata: Strata, question: Question) -> float | None:
    def is_decided(more: Strata) -> bool:
        return scale.is_harm_refuted(more, 0.0, question.alpha)

    return find_wait_s(strata, question.elapsed_s, is_decided)


def _list_metrics(evidence: Evidence) -> list[str]:
    """Those that were measured: the gateway's own, then feedback."""
    seen = {metric for _, _, metric in evidence}
    own = [str(metric) for metric in Metric if metric in seen]
    return own + sorted(seen - set(own))
