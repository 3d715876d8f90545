import json
from typing import Any

import httpx
import pytest

from gateway.cli import shadow
from tests.support.fake_admin import FakeAdmin

PATH = "/admin/v1/models/m/shadow"
NUMBER = {"primary": 10.0, "shadow": 12.5, "change": 2.5, "low": 1.0, "high": 4.0}
TOLD: dict[str, Any] = {"model": "m", "shadow": {"version": "v2", "percent": 5.0, "against": {"v1": {
    "copies": 1200, "users": 300, "numbers": {"tokens_out": NUMBER},
    "answers": {"same_answer": {"count": 300, "mean": 0.625, "low": None, "high": 0.75}},
}}}}  # fmt: skip


def test_it_is_set_by_version_and_percent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={}), httpx.Response(200, json={}))
    assert admin.run(shadow, "m", "v2", "5", "--cross-score", "--keep-texts", "--concurrency", "9") == 0
    assert admin.run(shadow, "m", "v2", "0.5") == 0
    asked = {"version": "v2", "percent": 5, "cross_score": True, "keep_texts": True, "concurrency": 9}
    assert admin.asked[0] == ("PUT", PATH, asked)
    assert admin.asked[1][2] == {"version": "v2", "percent": 0.5, "cross_score": False, "keep_texts": False}
    assert capsys.readouterr().out.startswith("5 % of the requests to m are copied to v2\n")


def test_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"shadow": None}))
    assert admin.run(shadow, "m", "--off") == 0
    assert admin.asked == [("DELETE", PATH, None)]


def test_what_is_known_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, *[httpx.Response(200, json=TOLD)] * 2)
    assert admin.run(shadow, "m") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "5 % of the requests to m are copied to v2"
    assert lines[2].startswith("v2 against v1: 1,200 copies of 300 users")
    assert lines[4] == "tokens_out 10 12.5 +2.5 1 .. 4"
    assert lines[6].startswith("same_answer 0.625 ? .. 0.75 300 answers that are the same")
    assert admin.run(shadow, "m", "--json") == 0
    assert json.loads(capsys.readouterr().out) == TOLD


def test_nothing_may_be_copied(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"model": "m", "shadow": None}))
    assert admin.run(shadow, "m") == 0
    assert capsys.readouterr().out == "no request to m is copied\n"


def test_texts_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"question": "which?", "primary": "a", "shadow": "b"}
    kept = {"request_id": "r1", "primary": "v1", "shadow": "v2", "texts": texts}
    admin = FakeAdmin(monkeypatch, httpx.Response(200, json={"texts": [kept]}))
    assert admin.run(shadow, "m", "--texts") == 0
    assert admin.asked == [("GET", f"{PATH}/texts", None)]
    assert capsys.readouterr().out == "r1\n  asked: which?\n  v1: a\n  v2: b\n"


def test_texts_cannot_speak_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"question": "é 你\n\x1b[2Jx", "primary": "a\rb\x9b\x07", "shadow": "\u202eb\ud800\\t"}
    kept = {"request_id": "r1", "primary": "v1", "shadow": "v2", "texts": texts}
    admin = FakeAdmin(monkeypatch, *[httpx.Response(200, text=json.dumps({"texts": [kept]}))] * 2)
    assert admin.run(shadow, "m", "--texts") == 0
    said = capsys.readouterr().out
    assert said == "r1\n  asked: é 你\n\\x1b[2Jx\n  v1: a\\rb\\x9b\\x07\n  v2: \\u202eb\\ud800\\t\n"
    assert admin.run(shadow, "m", "--texts", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"texts": [kept]}


@pytest.mark.parametrize("words", [("v2",), ("v2", "much"), ("v2", "101"), ("v2", "-1")])
def test_a_percent_must_be_said(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    try:
        code = FakeAdmin(monkeypatch).run(shadow, "m", *words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
