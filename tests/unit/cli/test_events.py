import json

import httpx
import pytest

from gateway.cli import events
from tests.support.fake_admin import FakeAdmin

EVENT = {"number": 7, "kind": "split", "text": "m is split v1 1", "model": "m", "at": 0.0, "details": {"a": 1}}


def test_events_are_shown_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"events": [EVENT]}))
    assert admin.run(events, "--model", "m", "-n", "5") == 0
    assert admin.asked == [("GET", "/admin/v1/events?limit=5&model=m", None)]
    assert capsys.readouterr().out.endswith("split              m is split v1 1\n")


def test_programs_get_all_of_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert FakeAdmin(monkeypatch, httpx.Response(200, json={"events": [EVENT]})).run(events, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [EVENT]
