import io
import json
from pathlib import Path

import httpx
import pytest

from gateway.cli import explain
from tests.support.fake_admin import FakeAdmin

TOLD = {
    "version": "v1", "why": "its user is one of v1", "point": 0.25, "split": {"v1": 0.9, "v2": 0.1}, "replica": None,
    "replicas": ["v1-0", "v1-1"], "replica_why": "the less busy of two drawn by lot",
}  # fmt: skip


def test_a_request_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json=TOLD))
    assert admin.run(explain, "m", "--user", "anna", "--header", "X-Session-Id: 7", "--caller", "ci") == 0
    body = {"model": "m", "user": "anna"}
    asked = {"body": body, "headers": {"X-Session-Id": "7"}, "client_ip": "127.0.0.1", "caller": "ci"}
    assert admin.asked == [("POST", "/admin/v1/explain", asked)]
    assert capsys.readouterr().out.splitlines() == [
        "version  v1: its user is one of v1",
        "point    0.250000 of v1 0.9, v2 0.1",
        "replica  v1-0 or v1-1: the less busy of two drawn by lot",
    ]


def test_a_whole_request_may_be_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "body.json").write_text('{"messages": [], "model": "x"}')
    told = {"version": "v1", "why": "so", "replica": "v1-0", "replicas": ["v1-0"], "replica_why": "it is the only one"}
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json=told), httpx.Response(200, json=told))
    assert admin.run(explain, "m", "--body", str(tmp_path / "body.json")) == 0
    assert admin.asked[0][2]["body"] == {"messages": [], "model": "m"}
    assert "point" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    assert admin.run(explain, "m", "--body", "-", "--json") == 0
    assert json.loads(capsys.readouterr().out) == told


@pytest.mark.parametrize("text", ["{", "[1]", None])
def test_a_body_that_cannot_be_read_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    if text is not None:
        (tmp_path / "body.json").write_text(text)
    assert FakeAdmin(monkeypatch).run(explain, "m", "--body", str(tmp_path / "body.json")) == 2
    assert "body.json cannot be read: " in (said := capsys.readouterr().err)
    assert "operand" not in said


def test_a_header_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        FakeAdmin(monkeypatch).run(explain, "m", "--header", "nothing")
    assert ended.value.code == 2
