import math
from typing import Any

import msgspec
import pytest

from gateway.control.rollout_record import (
    Rollout,
    State,
    describe,
    find,
    find_id,
    is_unreadable,
    list_all,
    read_past,
    read_plan,
    write,
    write_past,
)
from gateway.errors import BadRequest, NotFound
from gateway.telemetry.samples import Sample
from gateway.traffic.rollout import Plan, Step
from tests.support.control_bench import make_model

PLAN = Plan("v2", "v1", (Step(10), Step(50), Step(100)))


def test_a_plan_may_be_said_in_one_word() -> None:
    plan = read_plan({"candidate": "v2"}, make_model())
    assert (plan.candidate, plan.baseline) == ("v2", "v1")
    assert [step.percent for step in plan.steps] == [1, 5, 25, 50, 100]
    assert {(step.min_time_s, step.min_users) for step in plan.steps} == {(300, 200)}
    assert plan.guards.keys() == {"error_rate", "ttft_s"}


def test_steps_may_be_numbers_and_share_what_they_take() -> None:
    steps = [10, {"percent": 50, "min_users": 7}, 100]
    plan = read_plan({"candidate": "v2", "steps": steps, "min_time_s": 3, "min_users": 5}, make_model())
    assert plan.steps == (Step(10, 3, 5), Step(50, 3, 7), Step(100, 3, 5))


def test_the_baseline_is_who_has_the_most_but_for_the_candidate() -> None:
    model = make_model(split={"v1": 4, "v2": 3, "v3": 1}, versions=3)
    assert read_plan({"candidate": "v2"}, model).baseline == "v1"
    assert read_plan({"candidate": "v3"}, model).baseline == "v1"
    assert read_plan({"candidate": "v1", "steps": [60, 100]}, model).baseline == "v2"


def test_steps_that_the_candidate_is_past_are_left_out() -> None:
    plan = read_plan({"candidate": "v2"}, make_model(split={"v1": 90, "v2": 10}))
    assert [step.percent for step in plan.steps] == [25, 50, 100]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "A rollout is an object"),
        ({"candidate": "v2", "alpha": 2}, "alpha"),
        ({"candidate": "v2", "min_time_s": -1}, "min_time_s"),
        ({"candidate": "v2", "min_users": 1.5}, "min_users"),
        ({"candidate": "v2", "steps": "fast"}, "steps"),
        ({"candidate": "v2", "goal": {"error_rate": {}}}, "is a guard and a goal"),
        ({"candidate": "v1", "baseline": "v3"}, "v3"),
        ({"candidate": ["v2"]}, "candidate"),
        ({"candidate": "v2", "min_time_s": math.inf}, "min_time_s"),
        ({"candidate": "v2", "max_time_s": math.inf}, "max_time_s"),
        ({"candidate": "v2", "max_unready_s": math.inf}, "max_unready_s"),
        ({"candidate": "v2", "guards": {"error_rate": {"margin": math.inf}}}, "margin"),
        ({"candidate": "v2", "guards": {"error_rate": {"margin": math.nan}}}, "margin"),
        ({"candidate": "v2", "alpha": math.nan}, "alpha"),
        (
            {"candidate": "v2", "goal": {"success": {"margin": 5}}},
            "success goes from 0 to 1: nothing can be better by 5",
        ),
        (
            {"candidate": "v2", "goal": {"cost": {}}},
            "cost is known of versions with a `price` only: give v2 and v1 one",
        ),
        ({"candidate": "v2", "\ud83d": 1}, "half of a character"),
        ({"candidate": "v2", "steps": ["\ud83d"]}, "half of a character"),
        ({"candidate": "v2", "goal": "\ud83d"}, "half of a character"),
        ({"candidate": "v2", "guards": {"x": {"\ud83d": 1}}}, "half of a character"),
    ],
)
def test_a_plan_that_cannot_be_says_why(data: object, said: str) -> None:
    with pytest.raises(BadRequest, match="rollout") as refused:
        read_plan(data, make_model())
    assert said in refused.value.message


def test_a_candidate_that_has_nearly_all_cannot_be_rolled_out() -> None:
    with pytest.raises(BadRequest, match="has 60 % of the traffic already: name two steps beyond, as 80, 100"):
        read_plan({"candidate": "v2"}, make_model(split={"v1": 40, "v2": 60}))


def rollout(**values: Any) -> Rollout:
    return Rollout("r1", "m", PLAN, {"v1": 0.6, "v2": 0.0, "v3": 0.4}, 5.0, **values)


def test_shares_are_of_what_both_versions_have() -> None:
    assert rollout().share(25) == pytest.approx({"v1": 0.45, "v2": 0.15, "v3": 0.4})


def test_it_is_the_same_when_it_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    one, past = rollout(), {"error_rate": (Sample(3, 1.0, 1.0), Sample(4))}
    documents = {name: data for name, data in (write({}, one) | write_past(one, 7, past)).items() if data is not None}
    assert (find(documents, "m", "r1"), read_past(documents, one, 7), read_past(documents, one, 8)) == (one, past, {})
    for model, name in (("n", "r1"), ("m", "r2")):
        with pytest.raises(NotFound):
            find(documents, model, name)
    documents["rollout/r10"] = b'{"id": "r10"}'
    assert (find_id(documents), list_all(documents)) == ("r11", [one])
    assert "abort it" in caplog.text
    assert [is_unreadable(documents, name) for name in ("r1", "r2", "r10")] == [False, False, True]


def test_one_that_is_over_needs_nothing_of_what_it_knew() -> None:
    one = rollout()
    documents = {name: data for name, data in (write({}, one) | write_past(one, 7, {})).items() if data is not None}
    assert write(documents, rollout(state=State.ABORTED))["past/r1/7"] is None


def test_a_stage_that_comes_again_is_the_last_again() -> None:
    assert rollout().enter(5).enter(6).enter(5).stages == [6, 5]


def test_what_it_gives_is_said_in_per_cent() -> None:
    def give(before: dict[str, float], state: State, step: int = 1) -> float:
        return msgspec.structs.replace(rollout(step=step, state=state), before=before).percent

    for state, percent in ((State.RUNNING, 50), (State.PAUSED, 50), (State.ROLLED_BACK, 0), (State.PROMOTED, 100)):
        assert give({"v1": 1.0, "v2": 0.0}, state) == percent
        assert give({"v1": 0.55, "v2": 0.05, "v3": 0.4}, state) == 0.6 * percent, "v3 keeps its own"
    assert give({"v1": 0.95, "v2": 0.05}, State.ABORTED) == give({"v1": 0.95, "v2": 0.05}, State.WAITING, -1) == 5
    shown = describe(rollout(step=0, state=State.RUNNING))
    assert (shown["percent"], shown["plan"]["candidate"], shown["state"]) == (6, "v2", "running")
    assert [state for state in State if rollout(state=state).is_over] == ["promoted", "rolled_back", "aborted"]
