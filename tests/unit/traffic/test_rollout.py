from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.settings import MetricSettings
from gateway.telemetry.samples import Sample
from gateway.traffic.inference.interval import Pair, Strata
from gateway.traffic.rollout import Act, Facts, Guard, Plan, Step, Verdict, decide, forecast, judge

STEPS = (Step(5, 60, 100), Step(50, 60, 100), Step(100))
PLAN = Plan("v2", "v1", STEPS, {"error_rate": Guard(0.01)})


def errors(ours: float, theirs: float = 0.01, count: int = 20_000) -> dict[str, Strata]:
    return {"error_rate": [Pair(Sample(count, ours * count, 0.0, {}), Sample(count, theirs * count, 0.0, {}))]}


FINE, BAD, UNCLEAR = errors(0.01), errors(0.05), errors(0.01, count=50)
FACTS = Facts(step=0, elapsed_s=61, users=100, strata=UNCLEAR)


def act(plan: Plan = PLAN, **facts: Any) -> Act:
    return decide(plan, replace(FACTS, **facts), {}).act


def reason(plan: Plan = PLAN, **facts: Any) -> str:
    return decide(plan, replace(FACTS, **facts), {}).reason


def test_it_goes_on_when_time_and_users_are_enough_and_no_harm_is_shown() -> None:
    assert act() is Act.ADVANCE
    assert reason(elapsed_s=20) == "40 s of this step's least time are left"
    assert reason(users=99) == "v2 has had 99 of at least 100 users in this step"
    assert (
        act(elapsed_s=20) is act(users=99) is act(is_skewed=True) is act(is_up=False) is act(is_paused=True) is Act.HOLD
    )


def test_it_goes_back_when_harm_is_shown_whatever_else() -> None:
    for facts in ({}, {"elapsed_s": 0}, {"users": 0}, {"is_paused": True}, {"step": 1}, {"is_skewed": True}):
        assert act(strata=BAD, **facts) is Act.ROLL_BACK
    assert reason(strata=BAD).startswith("error_rate worse by +0.04 [")
    assert reason(strata=BAD).endswith(", 0.01 allowed")


def test_what_looks_bad_is_not_shown_to_more_users_before_it_is_known() -> None:
    assert act(strata=errors(0.04, count=200)) is Act.HOLD
    assert reason(strata=errors(0.04, count=200)) == "open: error_rate worse by +0.03, 0.01 allowed"
    assert act(strata=errors(0.015, count=200)) is Act.ADVANCE


def test_harm_within_the_margin_is_no_harm() -> None:
    assert act(strata=errors(0.012, count=500_000)) is Act.ADVANCE
    assert act(strata=errors(0.012, count=500_000), step=1) is Act.PROMOTE


def test_the_last_step_needs_proof() -> None:
    assert act(step=1, strata=FINE) is Act.PROMOTE
    assert act(step=1, strata=UNCLEAR) is Act.HOLD
    assert reason(step=1, strata=UNCLEAR).startswith("open: error_rate worse by +0, 0.01 allowed")
    assert reason(step=1, strata={}) == "open: error_rate: nothing was measured"


def test_a_goal_must_be_reached_before_the_end_and_cannot_be_missed_before() -> None:
    plan = msgspec.structs.replace(PLAN, goal={"success": Guard(0.02)})

    def success(ours: float, count: int = 20_000) -> dict[str, Strata]:
        return FINE | {"success": [Pair(Sample(count, ours * count, 0.0, {}), Sample(count, 0.8 * count, 0.0, {}))]}

    assert act(plan, step=1, strata=success(0.85)) is Act.PROMOTE
    assert act(plan, step=1, strata=success(0.82)) is Act.HOLD
    assert act(plan, step=0, strata=success(0.82)) is Act.ADVANCE
    assert act(plan, step=0, strata=success(0.80)) is Act.ROLL_BACK
    told = reason(plan, step=0, strata=success(0.80))
    assert told.startswith("success better by +0 [")
    assert told.endswith("0.02 wanted")


def test_a_guard_that_is_not_needed_is_passed_over_where_nothing_was_measured() -> None:
    plan = msgspec.structs.replace(PLAN, guards={"error_rate": Guard(0.01), "ttft_s": Guard(0.1, needed=False)})
    assert act(plan, step=1, strata=FINE) is Act.PROMOTE
    needed = msgspec.structs.replace(PLAN, guards={"error_rate": Guard(0.01), "ttft_s": Guard(0.1)})
    assert act(needed, step=1, strata=FINE) is Act.HOLD


def test_a_candidate_that_cannot_answer_goes_back() -> None:
    assert reason(is_failed=True) == "v2 cannot be served"
    assert act(unready_s=61) is Act.ROLL_BACK
    assert act(unready_s=59) is Act.ADVANCE


def test_without_a_decision_in_time_a_person_or_the_plan_decides() -> None:
    patient = msgspec.structs.replace(PLAN, max_time_s=100.0)
    strict = msgspec.structs.replace(patient, on_timeout="roll_back")
    late = {"step": 1, "elapsed_s": 101}
    assert act(patient, **late) is Act.HOLD
    assert reason(patient, **late).startswith("too late, held for a person: open: error_rate")
    assert act(strict, **late) is Act.ROLL_BACK
    assert reason(strict, **late).startswith("no decision within 100 s: open: error_rate")
    assert act(strict, is_paused=True, **late) is Act.HOLD
    assert act(strict, step=1, elapsed_s=99) is Act.HOLD


def test_guards_share_the_risk_of_a_false_alarm() -> None:
    """One guard alone is violated by evidence that leaves it open among ten."""
    strata = errors(0.026, count=5000)
    [alone] = judge(PLAN, replace(FACTS, strata=strata), {})
    many = msgspec.structs.replace(PLAN, guards={"error_rate": Guard(0.01)} | {f"g{n}": Guard() for n in range(9)})
    assert alone.harm.low > judge(many, replace(FACTS, strata=strata), {})[0].harm.low


def test_steps_are_judged_together() -> None:
    """Each knows where to bet from those before it."""
    [first] = errors(0.03, count=2500)["error_rate"]
    strata, before = [first], (Sample(), Sample())
    for _ in range(5):
        past = (_add(before[0], first.candidate), _add(before[1], first.baseline))
        strata.append(Pair(first.candidate, first.baseline, past))
        before = past
    assert act(strata={"error_rate": strata[:1]}) is Act.HOLD
    assert act(strata={"error_rate": strata}) is Act.ROLL_BACK


def _add(one: Sample, other: Sample) -> Sample:
    return Sample(one.count + other.count, one.total + other.total, 0.0, {})


def test_feedback_is_judged_on_its_scale() -> None:
    plan = msgspec.structs.replace(PLAN, guards={"stars": Guard(0.5)})
    pair = Pair(Sample(3000, 3 * 3000, 0.0, {}), Sample(3000, 4 * 3000, 0.0, {}))
    decision = decide(plan, replace(FACTS, strata={"stars": [pair]}), {"stars": MetricSettings(low=1, high=5)})
    assert decision.act is Act.ROLL_BACK
    assert decision.findings[0].harm.estimate == pytest.approx(1)
    assert decision.findings[0].users == (3000, 3000)
    assert decision.findings[0].verdict is Verdict.VIOLATED


def test_how_long_it_may_take_is_estimated() -> None:
    waits = forecast(PLAN, replace(FACTS, strata=errors(0.01, count=300)), {})
    assert waits["error_rate"] is not None
    assert waits["error_rate"] > 60
    assert forecast(PLAN, replace(FACTS, strata=FINE), {}) == {"error_rate": 0}
    assert forecast(PLAN, replace(FACTS, strata={}), {}) == {"error_rate": None}


def read(**fields: Any) -> Plan:
    return msgspec.convert({"candidate": "v2", "baseline": "v1"} | fields, Plan)


def test_a_plan_of_names_alone_has_the_usual_steps_and_guards() -> None:
    plan = read()
    assert [step.percent for step in plan.steps] == [1, 5, 25, 50, 100]
    assert set(plan.guards) == {"error_rate", "ttft_s"}
    assert plan.find_fault() is None


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0}, {"alpha": 1}, {"steps": [{"percent": 0}]}, {"steps": [{"percent": 101}]}, {"guards": {"x": {"margin": -1}}},
        {"guards": {"x": {"quantile": 1}}}, {"on_timeout": "panic"}, {"speed": 3}, {"steps": [{"percent": 5, "time": 3}]},
        {"max_time_s": 0}, {"steps": "5"}, {"candidate": 3},
    ],
)  # fmt: skip
def test_a_plan_that_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"baseline": "v2"}, "the candidate is the baseline"),
        ({"steps": []}, "must be two steps"),
        ({"steps": [{"percent": 100}]}, "must be two steps"),
        ({"steps": [{"percent": 5}, {"percent": 50}]}, "end at 100"),
        ({"steps": [{"percent": 50}, {"percent": 5}, {"percent": 100}]}, "rise"),
        ({"steps": [{"percent": 50}, {"percent": 50}, {"percent": 100}]}, "rise"),
        ({"goal": {"ttft_s": {}}}, "ttft_s is a guard and a goal"),
    ],
)
def test_a_plan_that_contradicts_itself_is_told_so(fields: dict[str, Any], said: str) -> None:
    assert said in str(read(**fields).find_fault())
