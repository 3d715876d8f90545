import argparse
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from gateway.cli import models

RealClient = httpx.Client


def engine(state: str, **more: Any) -> dict[str, Any]:
    base = {
        "name": "shapes:v1#0", "state": state, "restarts": 0, "phase": "", "progress": None, "reason": None, "tail": [],
        "next_try_at": None, "seconds_in_state": 3.0, "max_model_len": None, "ready_after_s": None, "digests": {}, "checkpoint": None,
        "drafts": None, "note": None,
    }  # fmt: skip
    return base | more


def described(*engines: dict[str, Any]) -> list[dict[str, Any]]:
    version = {"name": "v1", "share": 0.9, "adapters": ["mirror"], "checkpoint": "/m", "engines": list(engines)}
    return [{"name": "shapes", "split": {"v1": 0.9}, "versions": [version]}]


READY = engine("ready", max_model_len=2048, ready_after_s=4.2)
FAILED = engine("failed", reason="out of memory", tail=["line one", "line two"])


def text(found: list[dict[str, Any]], *, has_bars: bool = False) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(models.render(found, has_bars=has_bars))
    return captured.get()


def run(found: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, *words: str, status: int = 200) -> int:
    answers = iter(found)

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"models": next(answers)})

    monkeypatch.setattr(httpx, "Client", lambda **options: RealClient(transport=httpx.MockTransport(handle), **options))
    monkeypatch.setattr(models.time, "sleep", lambda seconds: None)
    parser = argparse.ArgumentParser()
    models.add_parser(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["models", *words])
    code: int = args.run(args)
    return code


def test_a_ready_engine_tells_what_it_can() -> None:
    shown = text(described(READY))
    for word in ("shapes", "v1", "90%", "ready", "ready in 4.2 s", "context 2048", "adapters mirror"):
        assert word in shown


def test_a_ready_engine_tells_what_came_of_its_guesses() -> None:
    drafts = {"steps": 10, "guessed": 40, "accepted": 13, "acceptance": 0.325, "tokens_per_step": 2.3}
    assert "guesses 32% right, 2.30 tokens a step" in text(described(READY | {"drafts": drafts}))
    noted = READY | {"drafts": drafts, "note": "speculation is switched off"}
    assert "speculation is switched off" in text(described(noted))
    assert "guesses" not in text(described(noted))
    unasked = {"steps": 0, "guessed": 0, "accepted": 0, "acceptance": None, "tokens_per_step": None}
    assert "guesses" not in text(described(READY | {"drafts": unasked}))


def test_a_ready_engine_tells_which_checkpoint_of_a_run_it_has_and_its_digest() -> None:
    chosen = READY | {
        "checkpoint": "/m/checkpoint-20",
        "digests": {"": "0123456789abcdef" * 4, "shapes:v1+a": "f" * 64},
    }
    assert "checkpoint-20, digest 0123456789ab" in text(described(chosen))
    assert "ready in 4.2 s, context 2048, adapters mirror, digest" in text(described(chosen | {"checkpoint": "/m"}))


def test_a_failed_engine_tells_why_and_its_last_lines() -> None:
    shown = text(described(FAILED))
    for word in ("failed", "out of memory", "last lines of shapes:v1#0", "line two"):
        assert word in shown


def test_a_loading_engine_shows_how_far_it_is() -> None:
    loading = engine("starting", phase="loading weights", progress=0.5)
    assert "50% loading weights" in text(described(loading))
    assert "loading weights" in text(described(loading), has_bars=True)


def test_a_pipe_gets_plain_lines_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([described(engine("starting"))], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "starting" in out
    assert "\x1b" not in out


def test_failed_engines_give_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run([described(READY)], monkeypatch) == 0
    assert run([described(FAILED)], monkeypatch) == 1


def test_a_terminal_watches_until_all_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        models, "Console", lambda **options: Console(**options | {"force_terminal": True, "width": 120})
    )
    assert run([described(engine("starting")), described(engine("warming")), described(READY)], monkeypatch) == 0


def test_json_is_the_admin_apis_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run([described(READY)], monkeypatch, "--json")
    assert json.loads(capsys.readouterr().out)[0]["name"] == "shapes"


def test_a_missing_key_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([[]], monkeypatch, status=401) == 1
    assert "GATEWAY_ADMIN_KEY" in capsys.readouterr().err


def test_what_moves_or_copies_traffic_is_told_below() -> None:
    found = described(engine("failed", reason="no"))
    assert "stand in" not in text(found)
    found[0] |= {"rollout": "r3", "shadow": {"version": "v2", "percent": 5.0}}
    found[0]["versions"][0] |= {"is_out": True, "share": 0.5}
    shown = text(found)
    assert "rollout r3 moves the traffic of shapes" in shown
    assert "5 % of the requests to shapes are copied to v2" in shown
    assert "others stand in for shapes:v1, which cannot answer now" in shown
