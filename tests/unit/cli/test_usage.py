import json

import httpx
import pytest

from gateway.cli import usage
from tests.support.fake_admin import FakeAdmin

ROW = {
    "day": "2026-01-02", "caller": "", "model": "m", "version": "v1", "requests": 1200, "failed": 3, "tokens_in": 5,
    "tokens_out": 7, "estimated_in": 2, "estimated_out": 1, "cost": 0.25,
}  # fmt: skip


def test_usage_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"usage": [ROW]}))
    assert admin.run(usage, "--since", "2026-01-01") == 0
    assert admin.asked == [("GET", "/admin/v1/usage?since=2026-01-01", None)]
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "2026-01-02",
        "-",
        "m:v1",
        "1,200",
        "3",
        "7",
        "8",
        "0.2500",
    ]


def test_programs_get_all_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert FakeAdmin(monkeypatch, httpx.Response(200, json={"usage": [ROW]})).run(usage, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [ROW]
