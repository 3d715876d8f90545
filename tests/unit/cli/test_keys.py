import httpx
import pytest

from gateway.cli import keys
from tests.support.fake_admin import FakeAdmin


def test_a_key_is_printed_alone_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(201, json={"name": "ci", "key": "gw-secret"}))
    assert admin.run(keys, "add", "ci", "--no-pin") == 0
    assert admin.asked == [("POST", "/admin/v1/keys", {"name": "ci", "may_pin": False})]
    told = capsys.readouterr()
    assert (told.out, "gw-secret" in told.err) == ("gw-secret\n", False)


def test_keys_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known = [{"name": "a", "source": "file", "may_pin": True}, {"name": "b", "source": "state", "may_pin": False}]
    assert FakeAdmin(monkeypatch, httpx.Response(200, json={"keys": known})).run(keys, "list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["a", "file"]
    assert second.split() == ["b", "state", "may", "not", "choose", "a", "version"]


def test_a_key_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"name": "ci"}))
    assert admin.run(keys, "remove", "ci/x") == 0
    assert admin.asked == [("DELETE", "/admin/v1/keys/ci%2Fx", None)]


def test_an_act_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        FakeAdmin(monkeypatch).run(keys)
    assert ended.value.code == 2
