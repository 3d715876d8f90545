import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli import rollout
from tests.support.fake_admin import FakeAdmin

PLAN = {"candidate": "v2", "baseline": "v1", "steps": [{"percent": 10}, {"percent": 100}]}
FINDINGS = [
    {"metric": "error_rate", "is_goal": False, "verdict": "kept", "users": {"candidate": 1200, "baseline": 9000},
     "text": "error_rate worse by +0.001 [-0.001, +0.003], 0.005 allowed"},
    {"metric": "success", "is_goal": True, "verdict": "open", "users": {"candidate": 12, "baseline": 90},
     "text": "success: nothing was measured"},
]  # fmt: skip


def shown(state: str = "running", **changes: Any) -> dict[str, Any]:
    is_over = state in ("promoted", "rolled_back")
    return {
        "id": "r3", "model": "m", "plan": PLAN, "state": state, "step": 0, "percent": 10.0, "reason": "because",
        "began": 0.0, "ended": 5.0 if is_over else None, "findings": [],
    } | changes  # fmt: skip


def answer(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_one_is_started_by_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, answer({"id": "r3"}, 202))
    words = ("--baseline", "v0", "--steps", "5,50,100", "--min-time", "60", "--min-users", "9", "--alpha", "0.01",
             "--guard", "error_rate=0.01", "--guard", "ttft_s=0.2", "--goal", "success=0")  # fmt: skip
    assert admin.run(rollout, "start", "m", "v2", *words) == 0
    assert admin.asked == [("POST", "/admin/v1/models/m/rollouts", {
        "candidate": "v2", "baseline": "v0", "steps": [5, 50, 100], "min_time_s": 60, "min_users": 9, "alpha": 0.01,
        "guards": {"error_rate": {"margin": 0.01}, "ttft_s": {"margin": 0.2}}, "goal": {"success": {"margin": 0}},
    })]  # fmt: skip
    assert capsys.readouterr().out == "rollout r3 of m has begun\n"


def test_or_by_a_file_over_which_words_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("model: m\ncandidate: v2\nmin_users: 50\n")
    admin = FakeAdmin(monkeypatch, answer({"id": "r3"}), answer({"id": "r4"}))
    assert admin.run(rollout, "start", "--file", str(tmp_path / "plan.yaml"), "--min-users", "7") == 0
    assert admin.asked[0][1:] == ("/admin/v1/models/m/rollouts", {"candidate": "v2", "min_users": 7})
    monkeypatch.setattr("sys.stdin", io.StringIO("candidate: v2"))
    assert admin.run(rollout, "start", "n", "--file", "-") == 0
    assert admin.asked[1][1:] == ("/admin/v1/models/n/rollouts", {"candidate": "v2"})


def test_or_with_the_checkpoint_of_its_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(monkeypatch, answer({"id": "r3"}), answer({"id": "r4"}))
    assert admin.run(rollout, "start", "m", "v3", "--checkpoint", "/models/v3") == 0
    assert admin.run(rollout, "start", "m", "v3", "--checkpoint", "hf://o/r") == 0
    assert admin.asked[0][2] == {"candidate": {"name": "v3", "checkpoint": "/models/v3"}}
    assert admin.asked[1][2] == {"candidate": {"name": "v3", "checkpoint": "hf://o/r"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [("- v2", "should hold a plan"), ("candidate: [", "while parsing"), ("candidate: v2", "say which model"),
     ("model: m", "say which candidate"), (None, "No such file")],
)  # fmt: skip
def test_a_file_that_says_nothing_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "plan.yaml").write_text(text)
    assert FakeAdmin(monkeypatch).run(rollout, "start", "--file", str(tmp_path / "plan.yaml")) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--guard", "x"), ("--goal", "x=nan"), ("--steps", "a"), ("--min-time", "soon")])
def test_words_that_are_no_numbers_are_wrong_use(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        FakeAdmin(monkeypatch).run(rollout, "start", "m", "v2", *words)
    assert ended.value.code == 2


def test_they_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"rollouts": [shown(), shown("promoted", id="r2", percent=100.0)]}
    admin = FakeAdmin(monkeypatch, answer(told), answer(told))
    assert admin.run(rollout, "list", "m") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:6] for line in lines[1:]] == [
        ["r3", "running", "v2", "v1", "10", "%"], ["r2", "promoted", "v2", "v1", "100", "%"],
    ]  # fmt: skip
    assert admin.run(rollout, "list", "m", "--json") == 0
    assert json.loads(capsys.readouterr().out) == told["rollouts"]


def test_the_latest_is_shown_if_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shown(findings=FINDINGS, seconds_to_decision={"success": 7500.0})
    admin = FakeAdmin(monkeypatch, answer({"rollouts": [shown()]}), answer(told), answer(told))
    assert admin.run(rollout, "show", "m") == 0
    assert [path for _, path, _ in admin.asked] == ["/admin/v1/models/m/rollouts", "/admin/v1/models/m/rollouts/r3"]
    state, reason, _, errors, success = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert (state, reason) == ("r3 of m is running, step 1 of 2, v2 has 10 %", "because")
    assert " ".join(errors.split()) == (
        "error_rate guard kept worse by +0.001 [-0.001, +0.003], 0.005 allowed 1,200 / 9,000 -"
    )
    assert " ".join(success.split()) == "success goal open nothing was measured 12 / 90 2 h"
    assert admin.run(rollout, "show", "m", "r3", "--json") == 0
    assert json.loads(capsys.readouterr().out) == told


def test_without_any_there_is_nothing_to_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FakeAdmin(monkeypatch, answer({"rollouts": []})).run(rollout, "show", "m") == 1
    assert capsys.readouterr().err == "gateway rollout: m has had no rollout\n"


@pytest.mark.parametrize(("state", "code"), [("promoted", 0), ("rolled_back", 1)])
def test_waiting_tells_each_step_and_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    looks = [shown("waiting", step=-1, percent=0.0), shown(), shown(reason="other"), shown(state, percent=0.0)]
    admin = FakeAdmin(monkeypatch, answer({"id": "r3"}), *(answer(look) for look in looks))
    assert admin.run(rollout, "start", "m", "v2", "--wait") == code
    lines = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        "r3 of m is waiting, step 0 of 2, v2 has 0 %",
        "r3 of m is running, step 1 of 2, v2 has 10 %",
        f"r3 of m is {state}, v2 has 0 %: because",
    ]
    admin = FakeAdmin(monkeypatch, answer({"rollouts": [shown()]}), answer(shown(state)))
    assert admin.run(rollout, "wait", "m") == code


@pytest.mark.parametrize("act", ["pause", "resume", "abort", "promote"])
def test_a_person_may_take_it_in_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], act: str
) -> None:
    admin = FakeAdmin(monkeypatch, answer(shown("paused")))
    assert admin.run(rollout, act, "m", "r3") == 0
    assert admin.asked == [("POST", f"/admin/v1/models/m/rollouts/r3/{act}", None)]
    assert capsys.readouterr().out == "r3 of m is paused, step 1 of 2, v2 has 10 %\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "not in sight"), (0.2, "1 s"), (119.0, "119 s"), (120, "2 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_waits_are_said_in_words(seconds: float | None, words: str) -> None:
    assert rollout.show_wait(seconds) == words
