"""Rollouts by the default plan in simulated traffic: what is worse goes back, what is better goes on, and how soon.

New users come in turns of 200, after each of which `decide` is asked, as the runner asks it each second. Each user
sends one request that fails or not, takes its time to the first token, and succeeds or not. Least times are left out:
they add waiting, and users to what is known.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy

matplotlib.use("Agg")
from matplotlib import pyplot

from gateway.telemetry.samples import BUCKET_RATIO, Sample
from gateway.traffic.inference.interval import Pair, Strata
from gateway.traffic.measuring import find_past
from gateway.traffic.rollout import Act, Facts, Guard, Plan, Step, decide
from loadtests.experiments.report import Report, run_all

_TURN = 200
_MOST_USERS = 2_000_000
_METRICS = ("error_rate", "ttft_s", "success")
_GUARDS = {"error_rate": Guard(0.005), "ttft_s": Guard(0.1, needed=False)}
_STEPS = (1, 5, 25, 50, 100)


@dataclass(frozen=True)
class Truth:
    """How a version really is."""

    errors: float = 0.01
    first_token_s: float = 0.3
    success: float = 0.8


@dataclass(frozen=True)
class Scenario:
    """A candidate, what is asked of it, and what must come of it: in so many of the runs, within so many users."""

    name: str
    candidate: Truth
    wanted: str
    least: float
    runs: int = 500
    goal: Mapping[str, Guard] = field(default_factory=dict)
    guards: Mapping[str, Guard] = field(default_factory=lambda: _GUARDS)
    within: int = _MOST_USERS


_BETTER = Truth(success=0.85)
SCENARIOS = {
    one.name: one
    for one in (
        Scenario("errors 1 % to 3 %", Truth(errors=0.03), "rolled back", 0.99),
        Scenario("first token +20 %", Truth(first_token_s=0.36), "rolled back", 0.99),
        Scenario("success 80 % to 75 %, a guard of 1 point", Truth(success=0.75), "rolled back", 0.99, 300,
                 guards={**_GUARDS, "success": Guard(0.01)}),
        Scenario("success 80 % to 85 %, the goal", _BETTER, "promoted", 0.90, goal={"success": Guard(0.0)},
                 within=120_000),
        Scenario("success 80 % to 85 %, the goal, errors within 1 point", _BETTER, "promoted", 0.90, 300,
                 goal={"success": Guard(0.0)}, guards={**_GUARDS, "error_rate": Guard(0.01)}, within=50_000),
        Scenario("no difference", Truth(), "promoted", 0.95, runs=300),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of a run, with the users of the candidate and of both versions until then."""

    end: str
    step: int
    exposed: int
    users: int


def simulate(job: tuple[str, int]) -> Outcome:
    """One rollout from its first step to its end."""
    scenario, seed = SCENARIOS[job[0]], job[1]
    luck = numpy.random.default_rng([seed, *job[0].encode()])
    plan = Plan("v2", "v1", tuple(Step(one, 0) for one in _STEPS), dict(scenario.guards), dict(scenario.goal))
    steps: list[dict[str, Pair]] = [_begin({})]
    exposed = users = here = 0
    while users < _MOST_USERS:
        percent = plan.steps[len(steps) - 1].percent
        ours = int(luck.binomial(_TURN, percent / 100))
        for place, truth, count in ((0, scenario.candidate, ours), (1, Truth(), _TURN - ours)):
            _add(luck, {metric: pair[place] for metric, pair in steps[-1].items()}, truth, count)
        exposed, users, here = exposed + ours, users + _TURN, here + ours
        strata: dict[str, Strata] = {metric: [step[metric] for step in steps] for metric in _METRICS}
        decision = decide(plan, Facts(len(steps) - 1, math.inf, here, strata), {})
        if decision.act is Act.ROLL_BACK:
            return Outcome("rolled back", len(steps) - 1, exposed, users)
        if decision.act is Act.PROMOTE:
            return Outcome("promoted", len(steps) - 1, exposed, users)
        if decision.act is Act.ADVANCE:
            steps.append(_begin(find_past(strata)))
            here = 0
    return Outcome("open", len(steps) - 1, exposed, users)


def _begin(past: Mapping[str, tuple[Sample, Sample]]) -> dict[str, Pair]:
    return {metric: Pair(Sample(), Sample(), past.get(metric)) for metric in _METRICS}


def _add(luck: numpy.random.Generator, samples: Mapping[str, Sample], truth: Truth, count: int) -> None:
    """Users that ask once each."""
    for metric, probability in (("error_rate", truth.errors), ("success", truth.success)):
        hits = int(luck.binomial(count, probability))
        samples[metric].merge(Sample(count, hits, hits, {}))
    times = truth.first_token_s * numpy.exp(luck.normal(0, 0.5, count))
    places, counts = numpy.unique(numpy.floor(numpy.log(times) / math.log(BUCKET_RATIO)), return_counts=True)
    buckets = {int(place): int(number) for place, number in zip(places, counts, strict=True)}
    samples["ttft_s"].merge(Sample(count, float(times.sum()), float((times**2).sum()), buckets))


def run(out: Path, *, is_quick: bool) -> Report:
    """The table, with the plot beside it."""
    report, rows, ends = Report(), [], {}
    for scenario in SCENARIOS.values():
        runs = scenario.runs // (10 if is_quick else 1)
        found = run_all(simulate, [(scenario.name, seed) for seed in range(runs)])
        right = [one for one in found if one.end == scenario.wanted and one.users <= scenario.within]
        ends[scenario.name] = found
        exposed = [one.exposed for one in found]
        within = f" within {scenario.within:,} users" if scenario.within < _MOST_USERS else ""
        rows.append((
            scenario.name, f"{scenario.wanted}{within}: {scenario.least:.0%}", f"{runs}", f"{len(right) / runs:.1%}",
            f"{statistics.median(exposed):,.0f}", f"{max(exposed):,}",
            f"{statistics.median(one.users for one in found):,.0f}",
            " ".join(f"{_STEPS[step]} %: {sum(one.step == step for one in found)}" for step in range(4)),
        ))  # fmt: skip
        print(rows[-1], flush=True)
        report.require(len(right) / runs >= scenario.least, f"{scenario.name}: {len(right) / runs:.1%}")
    titles = ("candidate", "wanted", "runs", "so it came", "users who had it, median", "most", "users of both, median",
              "runs that ended at")  # fmt: skip
    report.add_table(titles, rows)
    report.lines.append("\n![Users exposed](rollouts.png)")
    _plot(out / "rollouts.png", ends)
    return report


def _plot(path: Path, ends: Mapping[str, list[Outcome]]) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, found in ends.items():
        exposed = sorted(one.exposed for one in found)
        shares = [100 * (place + 1) / len(exposed) for place in range(len(exposed))]
        axes.step(exposed, shares, where="post", label=name)
    axes.set(xscale="log", xlabel="users who had the candidate until the end", ylabel="rollouts that have ended, %")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
