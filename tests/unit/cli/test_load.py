from typing import Any

import httpx
import pytest

from gateway.cli import load
from tests.support.fake_admin import FakeAdmin

TAKEN = httpx.Response(202, json={"id": "m:v2"})


def models(*states: str) -> httpx.Response:
    def engine(index: int, state: str) -> dict[str, Any]:
        return {
            "name": f"m:v2#{index}", "state": state, "restarts": 0, "phase": "loading", "progress": 0.5, "next_try_at": None,
            "reason": "no such", "tail": ["last words"], "seconds_in_state": 1.0, "max_model_len": 9, "ready_after_s": 4.0,
            "digests": {}, "checkpoint": "/c", "note": "", "drafts": None,
        }  # fmt: skip

    own = {
        "name": "v2",
        "share": 0.0,
        "adapters": [],
        "checkpoint": "/c",
        "engines": [engine(i, s) for i, s in enumerate(states)],
    }
    other = own | {"name": "v1", "engines": [engine(0, "failed")]}
    listed = [{"name": "m", "split": {}, "versions": [other, own]}, {"name": "n", "split": {}, "versions": [other]}]
    return httpx.Response(200, json={"models": listed})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_LOOK_EVERY_S", 0)


def test_it_waits_until_all_of_its_engines_are_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TAKEN, models(), models("starting", "ready"), models("ready", "ready"))
    assert admin.run(load, "m", "v2", "/c", "--replaces", "v1") == 0
    assert admin.asked[0] == (
        "POST",
        "/admin/v1/models/m/versions",
        {"name": "v2", "checkpoint": "/c", "replaces": "v1"},
    )
    shown = capsys.readouterr().out
    assert ("ready in 4.0 s" in shown, "v1" in shown) == (True, False)


def test_one_that_fails_gives_exit_code_1_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TAKEN, models("failed", "starting"))
    assert admin.run(load, "m", "v2", "/c") == 1
    shown = capsys.readouterr().out
    assert "no such" in shown
    assert "last words" in shown
    assert "gateway unload m v2" in shown


def test_one_that_is_unloaded_meanwhile_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TAKEN, models(), models("starting"), models())
    assert admin.run(load, "m", "v2", "/c") == 1
    assert "m:v2 was unloaded before it was ready" in capsys.readouterr().err


def test_without_waiting_it_returns_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TAKEN)
    assert admin.run(load, "m", "v2", "relative", "--no-wait") == 0
    assert admin.asked[0][2]["checkpoint"].startswith("/")
    assert capsys.readouterr().out == "m:v2 is being loaded\n"
