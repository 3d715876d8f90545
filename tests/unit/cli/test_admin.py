import io
import time

import httpx
import pytest

from gateway.cli import rollout, unload
from tests.support.fake_admin import FakeAdmin


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(409, json={"error": {"message": "m:v1 has 1 of the traffic"}}), "m:v1 has 1 of the traffic"),
        (httpx.Response(401, json={}), "the admin port needs its key: set GATEWAY_ADMIN_KEY"),
        (httpx.Response(502, text="<html>"), "the admin port answered 502: <html>"),
        (httpx.ConnectError("refused"), "nobody answers at http://127.0.0.1:9000: is `gateway serve` running?"),
        (httpx.ReadTimeout("slow"), "slow"),
    ],
)
def test_what_went_wrong_is_said_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: httpx.Response | Exception, said: str
) -> None:
    assert FakeAdmin(monkeypatch, answer).run(unload, "m", "v1") == 1
    assert capsys.readouterr().err == f"gateway unload: {said}\n"


def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert FakeAdmin(monkeypatch).run(unload, "m", "v1", "--admin-url", "http://[::1") == 1
    assert capsys.readouterr().err.startswith("gateway unload: ")


def test_the_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "secret")
    admin = FakeAdmin(monkeypatch, httpx.Response(202, json={"id": "m:v1"}))
    admin.run(unload, "m", "v1")
    assert admin.headers[0]["authorization"] == "Bearer secret"


def test_what_cannot_be_sent_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for strange in (".inf", "2026-11-26"):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"candidate: v2\nmin_time_s: {strange}"))
        assert FakeAdmin(monkeypatch).run(rollout, "start", "m", "--file", "-") == 1
        assert "that cannot be sent as JSON" in capsys.readouterr().err


def test_one_who_watches_has_patience_with_a_gateway_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    over = {"id": "r1", "model": "m", "state": "promoted", "ended": 5.0}
    away = (httpx.ConnectError("refused"), httpx.Response(503, json={}), httpx.ReadTimeout("slow"))
    admin = FakeAdmin(monkeypatch, *away, httpx.Response(200, json=over))
    assert admin.run(rollout, "wait", "m", "r1") == 0
    clock = iter(range(0, 1000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert FakeAdmin(monkeypatch, *away).run(rollout, "wait", "m", "r1") == 1
