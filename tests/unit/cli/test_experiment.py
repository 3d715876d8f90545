import json
from typing import Any

import httpx
import pytest

from gateway.cli import experiment
from tests.support.fake_admin import FakeAdmin


def compared(metric: str, **changes: Any) -> dict[str, Any]:
    return {
        "metric": metric, "compared": "difference", "better": "higher", "candidate": 0.6, "baseline": 0.5,
        "users": {"candidate": 1000, "baseline": 900}, "estimate": 0.1, "low": 0.02, "high": 0.18, "verdict": "better",
        "seconds_to_decision": None,
    } | changes  # fmt: skip


TOLD: dict[str, Any] = {
    "baseline": "v1",
    "versions": {
        "v1": {"share": 0.75, "users": 900, "requests": 1200, "errors": 3},
        "v2": {"share": 0.25, "users": 1000, "requests": 1100, "errors": 0},
    },
    "sample_ratio": {"alarm": False},
    "comparisons": {"v2": [
        compared("success"),
        compared("ttft_s", compared="ratio", quantile=0.95, estimate=0.05, low=-0.01, high=None, verdict="open",
                 seconds_to_decision=600.0),
        compared("cost", candidate=None, estimate=None, low=None, high=None, verdict="open"),
    ]},
}  # fmt: skip


def test_versions_and_how_they_compare_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json=TOLD))
    assert admin.run(experiment, "m", "--baseline", "v1", "--alpha", "0.1", "--stage", "7") == 0
    assert admin.asked == [("GET", "/admin/v1/models/m/experiment?baseline=v1&alpha=0.1&stage=7", None)]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:3] == ["v1 0.75 900 1,200 3", "v2 0.25 1,000 1,100 0"]
    assert lines[4] == "v2 against v1, bounds that hold whenever one looks:"
    assert lines[6:] == [
        "success 0.6 0.5 +0.1 +0.02 .. +0.18 1,000 / 900 better -",
        "ttft_s p95 0.6 0.5 +5 % -1 % .. ? 1,000 / 900 open 10 min",
        "cost ? 0.5 ? ? .. ? 1,000 / 900 open not in sight",
    ]


def test_versions_without_their_users_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json=TOLD | {"sample_ratio": {"alarm": True}}))
    assert admin.run(experiment, "m") == 0
    assert "have not got the users that their shares say" in capsys.readouterr().out


def test_or_the_whole_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json=TOLD))
    assert admin.run(experiment, "m", "--json") == 0
    assert json.loads(capsys.readouterr().out) == TOLD
