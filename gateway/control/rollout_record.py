"""A rollout as it is written down in the documents of the state, and the plan that somebody asks for. Pure."""

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.errors import BadRequest, NotFound
from gateway.settings import METRIC_NAME, ModelSettings
from gateway.telemetry.samples import Metric, Sample
from gateway.traffic.comparison import Kind, find_scale
from gateway.traffic.measuring import Past
from gateway.traffic.rollout import Finding, Plan

logger = logging.getLogger(__name__)


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

    `elapsed_s` is how long the step has gone on, `unready_s` how long the candidate has had no ready engine. `was_out`:
    in this step others have stood in for one of the two. `findings` are how its guards stood at its end.
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
    was_out: bool = False
    stages: list[int] = []
    reason: str = ""
    ended: float | None = None
    findings: list[dict[str, Any]] = []

    @property
    def number(self) -> int:
        """A later one has a higher one."""
        return int(self.id.removeprefix("r"))

    @property
    def is_over(self) -> bool:
        """True once nothing is going to come of it any more."""
        return self.state in (State.PROMOTED, State.ROLLED_BACK, State.ABORTED)

    def enter(self, stage: int) -> "Rollout":
        """In another stage, or again in one that it was in."""
        return msgspec.structs.replace(self, stages=[*(one for one in self.stages if one != stage), stage])

    @property
    def percent(self) -> float:
        """Of the traffic of the model, what the candidate has by this rollout."""
        if self.step < 0 or self.state is State.ABORTED:
            shares = self.before
        elif self.state is State.ROLLED_BACK:
            shares = self.share(0)
        else:
            shares = self.share(100 if self.state is State.PROMOTED else self.plan.steps[self.step].percent)
        return round(100 * shares.get(self.plan.candidate, 0.0) / sum(shares.values()), 6)

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
    except UnicodeEncodeError as error:
        raise BadRequest("The rollout cannot be: it has half of a character in it.") from error
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
    return next(_find_metric_faults(plan, model), None)


def _find_metric_faults(plan: Plan, model: ModelSettings) -> Iterator[str]:
    priced = [version.name for version in model.versions if version.price is not None]
    for metric in (*plan.guards, *plan.goal):
        if metric not in tuple(Metric) and not re.fullmatch(METRIC_NAME, metric):
            yield f"no metric is called {metric!r}: there are {', '.join(Metric)}, and those of feedback"
        if metric == Metric.COST and not {plan.candidate, plan.baseline} <= {*priced}:
            yield f"cost is known of versions with a `price` only: give {plan.candidate} and {plan.baseline} one"
    for metric, goal in plan.goal.items():
        scale = find_scale(metric, model.metrics, goal.quantile)
        if scale.kind is Kind.DIFFERENCE and goal.margin >= scale.high - scale.low:
            yield f"{metric} goes from {scale.low:g} to {scale.high:g}: nothing can be better by {goal.margin:g}"


def _find_percent(plan: Plan, model: ModelSettings) -> float:
    """What the candidate has of the traffic of both."""
    ours, theirs = model.split.get(plan.candidate, 0.0), model.split.get(plan.baseline, 0.0)
    return 100 * ours / (ours + theirs) if ours + theirs else 0.0


_PREFIX, _PAST = "rollout/", "past/"
_KEPT = 50

_decode_rollout = msgspec.json.Decoder(Rollout).decode
_decode_past = msgspec.json.Decoder(dict[str, tuple[Sample, Sample]]).decode


def write(documents: Mapping[str, bytes], rollout: Rollout) -> dict[str, bytes | None]:
    """A rollout as a document. One that is over needs nothing any more of what it knew."""
    pasts = [name for name in documents if rollout.is_over and name.startswith(f"{_PAST}{rollout.id}/")]
    return {_PREFIX + rollout.id: msgspec.json.encode(rollout), **dict.fromkeys(pasts)}


def write_past(rollout: Rollout, stage: int, past: Past) -> dict[str, bytes | None]:
    """What was known when a stage of it began."""
    return {f"{_PAST}{rollout.id}/{stage}": msgspec.json.encode(past)}


def read_past(documents: Mapping[str, bytes], rollout: Rollout, stage: int) -> Past:
    """What `write_past` wrote; nothing for a stage that it has not been in."""
    data = documents.get(f"{_PAST}{rollout.id}/{stage}")
    return {} if data is None else _decode_past(data)


def find(documents: Mapping[str, bytes], model: str, name: str) -> Rollout:
    """Raises NotFound."""
    rollout = _decode(documents.get(_PREFIX + name, b""))
    if rollout is None or rollout.model != model:
        raise NotFound(f"{model} has no rollout {name[:200]}.")
    return rollout


def list_all(documents: Mapping[str, bytes]) -> list[Rollout]:
    """All that can be read, the latest first."""
    found = [_decode(data) for name, data in documents.items() if name.startswith(_PREFIX)]
    return sorted((one for one in found if one is not None), key=lambda one: -one.number)


def is_unreadable(documents: Mapping[str, bytes], name: str) -> bool:
    """True for one that another release has written, perhaps, and this one does not understand."""
    data = documents.get(_PREFIX + name)
    return data is not None and _decode(data) is None


def find_id(documents: Mapping[str, bytes]) -> str:
    """The next number that no rollout has had."""
    names = [name.removeprefix(f"{_PREFIX}r") for name in documents if name.startswith(_PREFIX)]
    return f"r{max((int(name) for name in names if name.isdecimal()), default=0) + 1}"


def forget(name: str) -> dict[str, bytes | None]:
    """Drop a rollout."""
    return {_PREFIX + name: None}


def forget_oldest(documents: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Drop all but the latest that are over."""
    over = [one.id for one in list_all(documents) if one.is_over]
    return {_PREFIX + name: None for name in over[_KEPT:]}


@functools.lru_cache(4 * _KEPT)
def _decode(data: bytes) -> Rollout | None:
    try:
        return _decode_rollout(data) if data else None
    except msgspec.DecodeError:
        logger.exception("a rollout cannot be read, and nothing comes of it: abort it (`gateway rollout abort`)")
        return None


def describe_finding(finding: Finding) -> dict[str, Any]:
    """How a guard stands, for events and the admin API; bounds that are not known are left out."""
    low, high = finding.harm.bounds
    return {
        "metric": finding.metric,
        "is_goal": finding.is_goal,
        "verdict": str(finding.verdict),
        "margin": finding.margin,
        "harm": finding.harm.estimate,
        "low": low,
        "high": high,
        "users": {"candidate": finding.users[0], "baseline": finding.users[1]},
        "text": finding.describe(),
    }


def describe(rollout: Rollout) -> dict[str, Any]:
    """A rollout as the admin API shows it."""
    shown: Mapping[str, Any] = msgspec.to_builtins(rollout)
    return {**shown, "percent": rollout.percent}
