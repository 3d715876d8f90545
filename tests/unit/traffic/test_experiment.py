import random
from typing import Any

import pytest

from gateway.settings import MetricSettings
from gateway.state import REQUESTS, USERS, Evidence
from gateway.telemetry.samples import Sample
from gateway.traffic.experiment import Question, report

SHARES = {"v1": 0.5, "v2": 0.5, "v3": 0.0}
STARS = {"stars": MetricSettings(low=1, high=5), "edits": MetricSettings(better="lower")}


def values(*given: float) -> Sample:
    sample = Sample()
    for value in given:
        sample.add(value, has_buckets=True)
    return sample


def fractions(count: int, ones: int) -> Sample:
    return Sample(count, ones, ones, {})


def evidence(**metrics: tuple[Sample, Sample]) -> Evidence:
    found: Evidence = {}
    for metric, pair in metrics.items():
        for version, sample in zip(("v1", "v2"), pair, strict=True):
            found[version, USERS, metric] = found[version, REQUESTS, metric] = sample
    return found


def compare(found: Evidence, alpha: float = 0.05) -> dict[Any, dict[str, Any]]:
    shown = report(found, Question("v1", SHARES, alpha, 100.0), STARS)
    return {(one["metric"], one.get("quantile")): one for one in shown["comparisons"]["v2"]}


def test_numbers_are_of_requests_and_of_users() -> None:
    found: Evidence = {
        ("v1", USERS, "error_rate"): fractions(10, 1), ("v1", REQUESTS, "error_rate"): fractions(50, 4),
        ("v1", REQUESTS, "tokens_out"): values(10, 30), ("v1", USERS, "tokens_out"): values(10),
        ("v1", REQUESTS, "ttft_s"): values(0.1, 0.1, 0.5), ("v1", USERS, "ttft_s"): values(0.1),
    }  # fmt: skip
    shown = report(found, Question("v1", SHARES), {})["versions"]
    assert shown.keys() == {"v1", "v2"}
    assert {key: shown["v1"][key] for key in ("share", "users", "requests", "errors")} == {
        "share": 0.5, "users": 10, "requests": 50, "errors": 4,
    }  # fmt: skip
    metrics = shown["v1"]["metrics"]
    assert metrics["tokens_out"]["requests"] == {"count": 2, "mean": 20, "total": 40}
    assert metrics["ttft_s"]["requests"]["p50"] == pytest.approx(0.1, rel=0.01)
    assert metrics["ttft_s"]["requests"]["p95"] == pytest.approx(0.5, rel=0.01)
    assert shown["v2"]["requests"] == 0


def test_a_verdict_says_which_is_better_by_the_metrics_own_sense() -> None:
    more, less = fractions(2000, 1000), fractions(2000, 600)
    found = compare(evidence(error_rate=(less, more), success=(less, more), edits=(more, less)))
    assert found["error_rate", None]["verdict"] == "worse"
    assert found["success", None]["verdict"] == found["edits", None]["verdict"] == "better"
    assert found["success", None]["estimate"] == pytest.approx(0.2)
    assert 0.1 < found["success", None]["low"] < 0.2 < found["success", None]["high"] < 0.3
    assert found["edits", None]["better"] == "lower"


def test_open_questions_say_how_long_they_may_take() -> None:
    found = compare(evidence(success=(fractions(100, 50), fractions(100, 58))))["success", None]
    assert (found["verdict"], found["candidate"], found["baseline"]) == ("open", 0.58, 0.5)
    assert 200 < found["seconds_to_decision"] < 20_000
    same = compare(evidence(success=(fractions(100, 50), fractions(100, 50))))["success", None]
    assert same["seconds_to_decision"] is None


def test_times_are_compared_by_quantiles_as_fractions() -> None:
    luck = random.Random(5)
    slow, fast = (values(*(factor * luck.lognormvariate(0, 0.3) for _ in range(4000))) for factor in (1.3, 1.0))
    found = compare(evidence(ttft_s=(fast, slow)))
    assert found["ttft_s", 0.5]["estimate"] == pytest.approx(0.3, abs=0.06)
    assert found["ttft_s", 0.5]["verdict"] == "worse"
    assert found["ttft_s", 0.95]["low"] < 0.3 < found["ttft_s", 0.95]["high"]


def test_bounds_that_are_not_known_are_left_out() -> None:
    found = compare(evidence(tokens_out=(values(5.0), values(6.0)), ttft_s=(values(1.0), values(2.0))))
    assert (found["tokens_out", None]["low"], found["tokens_out", None]["high"]) == (None, None)
    assert (found["ttft_s", 0.5]["low"], found["ttft_s", 0.5]["high"]) == (-1, None), "a time is not less than none"
    assert {one["verdict"] for one in found.values()} == {"open"}


def test_scales_of_feedback_are_kept() -> None:
    found = compare(evidence(stars=(values(*[3.0] * 500), values(*[4.0] * 500))))["stars", None]
    assert (found["candidate"], found["baseline"], found["verdict"]) == (4, 3, "better")
    assert found["estimate"] == pytest.approx(1)


def test_versions_without_their_users_are_told() -> None:
    shown = report(evidence(error_rate=(fractions(900, 0), fractions(600, 0))), Question("v1", SHARES), {})
    assert shown["sample_ratio"]["alarm"]
    assert shown["sample_ratio"]["users"] == {"v1": 900, "v2": 600}
    assert shown["sample_ratio"]["expected"] == {"v1": 750, "v2": 750}


def test_nothing_measured_is_nothing_compared() -> None:
    shown = report({}, Question("v1", SHARES), {})
    assert shown["comparisons"] == {"v2": []}
    assert not shown["sample_ratio"]["alarm"]
