import random

import pytest

from gateway.state import REQUESTS, USERS, Evidence
from gateway.telemetry.samples import Sample
from gateway.traffic.shadow_report import report_shadow


def sample(values: list[float]) -> Sample:
    made = Sample()
    for value in values:
        made.add(value, has_buckets=False)
    return made


def evidence(version: str = "v1", **values: list[float]) -> Evidence:
    found: Evidence = {}
    for name, of in values.items():
        metric = name.replace("__", "/")
        found[version, USERS, metric] = sample(of)
        found[version, REQUESTS, metric] = sample(of * 2)
    return found


def test_changes_have_bounds_by_pairs() -> None:
    luck = random.Random(7)
    primary = [luck.uniform(10, 500) for _ in range(2000)]
    shadow = [one + 5 + luck.gauss(0, 3) for one in primary]
    found = report_shadow(evidence(
        primary__failed=[0.0] * 2000, shadow__failed=[0.0] * 2000, change__failed=[0.0] * 2000,
        primary__tokens_out=primary, shadow__tokens_out=shadow,
        change__tokens_out=[two - one for one, two in zip(primary, shadow, strict=True)],
    ))["v1"]  # fmt: skip
    assert (found["copies"], found["users"]) == (4000, 2000)
    tokens = found["numbers"]["tokens_out"]
    assert tokens["shadow"] - tokens["primary"] == pytest.approx(tokens["change"])
    assert 4.5 < tokens["low"] < 5 < tokens["high"] < 5.5, "much narrower than the numbers themselves vary"
    assert found["numbers"].keys() == {"failed", "tokens_out"}


def test_failures_are_bounded_by_those_of_either_side_alone() -> None:
    change = [1.0] * 100 + [-1.0] * 20 + [0.0] * 880
    found = report_shadow(evidence(primary__failed=[0.0], shadow__failed=[1.0], change__failed=change))["v1"]
    failed = found["numbers"]["failed"]
    assert failed["change"] == pytest.approx(0.08)
    assert 0.02 < failed["low"] < 0.08 < failed["high"] < 0.14
    quiet = report_shadow(evidence(primary__failed=[0.0], shadow__failed=[0.0], change__failed=[0.0] * 1000))["v1"]
    assert -0.01 < quiet["numbers"]["failed"]["low"] < 0 < quiet["numbers"]["failed"]["high"] < 0.01


def test_answers_are_told_by_fractions_and_means() -> None:
    found = report_shadow(evidence(
        same_answer=[1.0] * 60 + [0.0] * 40, agreement=[0.9] * 100, first_difference=[3.0] * 40,
        gap_of_primary=[0.1 * (place % 5) for place in range(100)],
    ))["v1"]["answers"]  # fmt: skip
    assert (found["same_answer"]["count"], found["same_answer"]["mean"]) == (100, pytest.approx(0.6))
    assert 0.3 < found["same_answer"]["low"] < 0.6 < found["same_answer"]["high"] < 0.85
    assert (found["first_difference"]["mean"], found["first_difference"]["low"]) == (3, None)
    assert found["gap_of_primary"]["low"] < 0.2 < found["gap_of_primary"]["high"]
    assert "gap_of_shadow" not in found


def test_each_version_that_clients_had_is_compared_apart() -> None:
    both = evidence("v1", shadow__failed=[0.0]) | evidence("v3", shadow__failed=[0.0, 1.0])
    found = report_shadow(both)
    assert {version: one["users"] for version, one in found.items()} == {"v1": 1, "v3": 2}
    assert report_shadow({}) == {}
