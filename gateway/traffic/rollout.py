"""A rollout: a split moved in steps by evidence, forward or back. Facts in, decision out: no clock, nothing is moved.

Each step is judged by all that was measured since the rollout began, but only what was measured in the same step is
compared. A step back needs that a guard was shown to be violated; a step forward, that none seems to be; the last one,
after which there is nothing to compare any more, that each was shown to be kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Annotated, Literal

import msgspec

from gateway.settings import MetricSettings
from gateway.telemetry.samples import Metric
from gateway.traffic.comparison import Scale, find_scale
from gateway.traffic.forecast import find_wait_s
from gateway.traffic.inference.interval import Interval, Strata

_Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_AtLeastZero = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # no infinity, which JSON cannot keep


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of the traffic of both versions, in per cent, and what it takes to go on from there at least."""

    percent: Annotated[float, msgspec.Meta(gt=0, le=100)]
    min_time_s: _AtLeastZero = 300.0
    min_users: Annotated[int, msgspec.Meta(ge=0)] = 200


class Guard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric on which the candidate may be worse by `margin` at most: see `comparison.Kind` for its unit.

    A goal is one on which it must be better, by more than `margin`. One that is not `needed` is passed over where
    nothing was measured.
    """

    margin: _AtLeastZero = 0.0
    quantile: _Fraction = 0.5
    needed: bool = True


_DEFAULT_STEPS = tuple(Step(percent=percent) for percent in (1, 5, 25, 50, 100))
_DEFAULT_GUARDS = {
    str(Metric.ERROR_RATE): Guard(margin=0.005),
    str(Metric.TTFT_S): Guard(margin=0.1, needed=False),
}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rollout is to do. `alpha` is the probability that a candidate as good as the baseline is rolled back.

    A step that takes longer than `max_time_s` is held for a person or rolled back, as `on_timeout` says. A candidate
    that had no ready engine for `max_unready_s` is rolled back.
    """

    candidate: str
    baseline: str
    steps: tuple[Step, ...] = _DEFAULT_STEPS
    guards: dict[str, Guard] = msgspec.field(default_factory=lambda: dict(_DEFAULT_GUARDS))
    goal: dict[str, Guard] = {}
    alpha: _Fraction = 0.05
    max_time_s: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None
    on_timeout: Literal["hold", "roll_back"] = "hold"
    max_unready_s: _AtLeastZero = 60.0

    def find_fault(self) -> str | None:
        """What is wrong with it as a whole, in words for the one who wrote it."""
        percents = [step.percent for step in self.steps]
        if self.candidate == self.baseline:
            return "the candidate is the baseline: name another version"
        if len(percents) < 2 or percents != sorted(set(percents)) or percents[-1] != 100:
            return "there must be two steps at least, with percents that rise and end at 100"
        if both := sorted(self.guards.keys() & self.goal.keys()):
            return f"{', '.join(both)} is a guard and a goal: a goal is a guard as well, so name it there alone"
        return None


class Verdict(StrEnum):
    """What is known of a guard."""

    VIOLATED = "violated"
    KEPT = "kept"
    OPEN = "open"
    """It cannot be told yet."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a guard or goal stands. `harm` is by how much the candidate is worse, `users` are the candidate's first.

    The bounds of `harm` are infinite where they were not worked out, which takes its time.
    """

    metric: str
    is_goal: bool
    verdict: Verdict
    margin: float
    harm: Interval
    users: tuple[int, int]

    def describe(self) -> str:
        """In words for people."""
        if self.harm.estimate is None:
            return f"{self.metric}: nothing was measured"
        sign = -1 if self.is_goal else 1
        low, high = sorted((sign * self.harm.low, sign * self.harm.high))
        bounds = f" [{low:+.4g}, {high:+.4g}]" if self.harm.is_known else ""
        what = "better" if self.is_goal else "worse"
        wanted = f"{self.margin:.4g} {'wanted' if self.is_goal else 'allowed'}"
        return f"{self.metric} {what} by {sign * self.harm.estimate:+.4g}{bounds}, {wanted}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision is made of. `strata` by metric are the pairs of the steps since the rollout began, this one last.

    Times in seconds. `is_up`: the candidate has a ready engine; `unready_s` is how long it has had none, by its own
    fault. `is_skewed`: versions have not got the users that their shares say.
    """

    step: int
    elapsed_s: float
    users: int
    strata: Mapping[str, Strata]
    is_paused: bool = False
    is_failed: bool = False
    is_up: bool = True
    unready_s: float = 0.0
    is_skewed: bool = False


class Act(StrEnum):
    """What is to be done."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, why, and what was found."""

    act: Act
    reason: str
    findings: tuple[Finding, ...] = ()


def decide(plan: Plan, facts: Facts, metrics: Mapping[str, MetricSettings]) -> Decision:
    """What comes next. `metrics` are the scales of feedback. Bounds are worked out only for what is to be done."""
    if facts.is_failed:
        return Decision(Act.ROLL_BACK, f"{plan.candidate} cannot be served")
    if facts.unready_s > plan.max_unready_s:
        return Decision(Act.ROLL_BACK, f"{plan.candidate} has had no ready engine for {facts.unready_s:.0f} s")
    rough = tuple(_judge(plan, facts, metrics, has_bounds=False))
    if any(one.verdict is Verdict.VIOLATED for one in rough):
        findings = judge(plan, facts, metrics)
        violated = [one.describe() for one in findings if one.verdict is Verdict.VIOLATED]
        return Decision(Act.ROLL_BACK, "; ".join(violated), findings)
    reason = _find_delay(plan, facts, rough)
    if reason is None:
        act = Act.PROMOTE if facts.step + 1 == len(plan.steps) - 1 else Act.ADVANCE
        findings = judge(plan, facts, metrics)
        return Decision(act, _say_fine(findings), findings)
    is_late = plan.max_time_s is not None and facts.elapsed_s > plan.max_time_s and not facts.is_paused
    if is_late and plan.on_timeout == "roll_back":
        findings = judge(plan, facts, metrics)
        return Decision(Act.ROLL_BACK, f"no decision within {plan.max_time_s:g} s: {reason}", findings)
    return Decision(Act.HOLD, f"{'too late, held for a person: ' if is_late else ''}{reason}")


def judge(plan: Plan, facts: Facts, metrics: Mapping[str, MetricSettings]) -> tuple[Finding, ...]:
    """How every guard and goal stands, with bounds."""
    return tuple(_judge(plan, facts, metrics, has_bounds=True))


def _find_delay(plan: Plan, facts: Facts, findings: Sequence[Finding]) -> str | None:
    """Why it does not go on yet."""
    step = plan.steps[facts.step]
    if facts.is_paused:
        return "it is paused"
    if facts.elapsed_s < step.min_time_s:
        return f"{step.min_time_s - facts.elapsed_s:.0f} s of this step's least time are left"
    if facts.users < step.min_users:
        return f"{plan.candidate} has had {facts.users} of at least {step.min_users} users in this step"
    if not facts.is_up:
        return f"{plan.candidate} has no ready engine"
    if facts.is_skewed:
        return "the versions have not got the users that their shares say: something loses some of them"
    waiting = [one for one in findings if one.verdict is Verdict.OPEN]
    if facts.step + 1 < len(plan.steps) - 1:
        # What looks bad is not shown to more users before it is known.
        waiting = [one for one in waiting if not one.is_goal and (one.harm.estimate or 0.0) > one.margin]
    return "; ".join(f"open: {one.describe()}" for one in waiting) or None


def forecast(plan: Plan, facts: Facts, metrics: Mapping[str, MetricSettings]) -> dict[str, float | None]:
    """How many seconds it may take until each guard and goal can be told; None where that is not in sight. Slow."""
    alpha = _find_alpha(plan)
    waits: dict[str, float | None] = {}
    for metric, guard, is_goal in _list_guards(plan):
        scale, margin = find_scale(metric, metrics, guard.quantile), _find_margin(guard, is_goal=is_goal)
        strata = facts.strata.get(metric, ())
        waits[metric] = find_wait_s(strata, facts.elapsed_s, _Decided(scale, margin, alpha)) if strata else None
    return waits


@dataclass(frozen=True, slots=True)
class _Decided:
    """Whether evidence tells how a guard stands."""

    scale: Scale
    margin: float
    alpha: float

    def __call__(self, strata: Strata) -> bool:
        return _find_verdict(self.scale, strata, self.margin, self.alpha) is not Verdict.OPEN


def _judge(plan: Plan, facts: Facts, metrics: Mapping[str, MetricSettings], *, has_bounds: bool) -> Iterator[Finding]:
    alpha = _find_alpha(plan)
    for metric, guard, is_goal in _list_guards(plan):
        scale, margin = find_scale(metric, metrics, guard.quantile), _find_margin(guard, is_goal=is_goal)
        strata = facts.strata.get(metric, ())
        users = (sum(pair.candidate.count for pair in strata), sum(pair.baseline.count for pair in strata))
        if guard.needed or any(users):
            harm = scale.find_harm(strata, alpha) if has_bounds else Interval(scale.estimate_harm(strata), -inf, inf)
            verdict = _find_verdict(scale, strata, margin, alpha)
            yield Finding(metric, is_goal, verdict, guard.margin, harm, users)


def _list_guards(plan: Plan) -> Iterator[tuple[str, Guard, bool]]:
    """The guards, then the goals: metric, what is asked of it, and whether it is a goal."""
    for metric, guard in plan.guards.items():
        yield metric, guard, False
    for metric, goal in plan.goal.items():
        yield metric, goal, True


def _find_alpha(plan: Plan) -> float:
    """Of each guard and goal: together they are wrong as rarely as the plan says."""
    return plan.alpha / max(1, len(plan.guards) + len(plan.goal))


def _find_margin(guard: Guard, *, is_goal: bool) -> float:
    """By how much the candidate may be worse. To be better by a margin is to be worse by minus it."""
    return -guard.margin if is_goal else guard.margin


def _find_verdict(scale: Scale, strata: Strata, margin: float, alpha: float) -> Verdict:
    estimate = scale.estimate_harm(strata)
    if estimate is None or not scale.is_harm_refuted(strata, margin, alpha):
        return Verdict.OPEN
    return Verdict.VIOLATED if estimate > margin else Verdict.KEPT


def _say_fine(findings: Sequence[Finding]) -> str:
    told = [one.describe() for one in findings if one.verdict is Verdict.KEPT]
    return "; ".join(told) or "no guard is violated"
