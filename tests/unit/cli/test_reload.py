import httpx
import pytest

from gateway.cli import reload
from tests.support.fake_admin import FakeAdmin


def test_what_comes_of_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"loading": ["m:v3"], "needs_restart": ["server"], "changed_at_run_time": ["m: split"]}
    admin = FakeAdmin(monkeypatch, httpx.Response(202, json=told))
    assert admin.run(reload, "--reset") == 0
    assert admin.asked == [("POST", "/admin/v1/reload", {"reset": True})]
    said = capsys.readouterr().out
    assert "the file counts when m:v3 can answer" in said
    assert "at the next start only: server" in said
    assert "m: split" in said


def test_a_bad_file_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = httpx.Response(400, json={"error": {"message": "The settings file cannot be used: f:3: x"}})
    assert FakeAdmin(monkeypatch, refusal).run(reload) == 1
    assert "f:3: x" in capsys.readouterr().err
