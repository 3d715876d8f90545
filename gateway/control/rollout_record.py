"""A rollout as it is written down, and the plan that somebody asks for. Pure."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.errors import BadRequest
from gateway.settings import ModelSettings
from gateway.telemetry.samples import Metric
from gateway.traffic.rollout import Plan

_METRIC = re.compile(r"[a-z][a-z0-9_]{0,63}")


class State(StrEnum):
    """Where a rollout is. The last three are ends."""

    WAITING = "waiting"
    """For its candidate to be ready on every gateway."""
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class Rollout(msgspec.Struct, frozen=True):
    """One rollout. `stages` are those of its steps so far, `before` the shares before it. Times in seconds.

    `elapsed_s` is how long the step has gone on, `unready_s` how long the candidate has had no ready engine.
    """

    id: str
    model: str
    plan: Plan
    before: dict[str, float]
    began: float
    state: State = State.WAITING
    step: int = -1
    elapsed_s: float = 0.0
    unready_s: float = 0.0
    stages: list[int] = []
    reason: str = ""
    ended: float | None = None

    @property
    def is_over(self) -> bool:
        """True once nothing is going to come of it any more."""
        return self.state in (State.PROMOTED, State.ROLLED_BACK, State.ABORTED)

    @property
    def percent(self) -> float:
        """Of the traffic of both versions, what the candidate has by this rollout."""
        if self.state is State.PROMOTED:
            return 100.0
        return self.plan.steps[self.step].percent if self.step >= 0 and not self.is_over else 0.0

    def share(self, percent: float) -> dict[str, float]:
        """The split when the candidate has so much of what both have; other versions keep theirs."""
        both = self.before.get(self.plan.candidate, 0.0) + self.before.get(self.plan.baseline, 0.0)
        ours = both * percent / 100
        return {**self.before, self.plan.candidate: ours, self.plan.baseline: both - ours}


def read_plan(data: object, model: ModelSettings) -> Plan:
    """The plan that somebody asks for: steps may be numbers, and what each step needs may be said once for all.

    The baseline is the version with the most traffic if nothing else is said. Steps that the candidate is past are left
    out. Raises BadRequest.
    """
    if not isinstance(data, dict):
        raise BadRequest('A rollout is an object, such as {"candidate": "v2"}.')
    given = dict(data)
    common = {name: given.pop(name) for name in ("min_time_s", "min_users") if name in given}
    steps = given.get("steps", [1, 5, 25, 50, 100])
    if isinstance(steps, list):
        given["steps"] = [common | (step if isinstance(step, dict) else {"percent": step}) for step in steps]
    others = {name: share for name, share in model.split.items() if name != given.get("candidate")}
    given.setdefault("baseline", max(others, key=lambda name: others[name], default=""))
    try:
        plan = msgspec.convert(given, Plan)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The rollout cannot be: {error}.") from error
    fault = plan.find_fault() or _find_fault(plan, model)
    if fault is not None:
        raise BadRequest(f"The rollout cannot be: {fault}.")
    return msgspec.structs.replace(
        plan, steps=tuple(step for step in plan.steps if step.percent >= _find_percent(plan, model))
    )


def _find_fault(plan: Plan, model: ModelSettings) -> str | None:
    names = [version.name for version in model.versions]
    for name in (plan.candidate, plan.baseline):
        if name not in names:
            return f"{model.name} has no version {name!r}, but {', '.join(names)}"
    if not model.split.get(plan.baseline):
        return f"the baseline {plan.baseline} has no traffic to give"
    if (has := _find_percent(plan, model)) >= plan.steps[-2].percent:
        beyond = f"name two steps beyond, as {(has + 100) / 2:.3g}, 100"
        return f"{plan.candidate} has {has:.4g} % of the traffic already: {beyond}"
    for metric in (*plan.guards, *plan.goal):
        if metric not in tuple(Metric) and not _METRIC.fullmatch(metric):
            return f"no metric is called {metric!r}: there are {', '.join(Metric)}, and those of feedback"
    return None


def _find_percent(plan: Plan, model: ModelSettings) -> float:
    """What the candidate has of the traffic of both."""
    ours, theirs = model.split.get(plan.candidate, 0.0), model.split.get(plan.baseline, 0.0)
    return 100 * ours / (ours + theirs) if ours + theirs else 0.0


def describe(rollout: Rollout) -> dict[str, Any]:
    """A rollout as the admin API shows it."""
    shown: Mapping[str, Any] = msgspec.to_builtins(rollout)
    return {**shown, "percent": rollout.percent}
