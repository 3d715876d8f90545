"""A/A: two versions that are the same, looked at after every single user. How often is one of them called better?

Each experiment of each metric goes on for as many users as its row says. A test that is made for one look at the end is
shown beside them, looked at as often: what peeking does to it is why this is needed.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from gateway.telemetry.samples import Sample
from gateway.traffic.comparison import find_scale
from gateway.traffic.inference import sample_ratio
from gateway.traffic.inference.interval import Pair
from loadtests.experiments.report import Report, run_all

ALPHA = 0.05
_EXPERIMENTS = 2000
_SKEW_ALPHA = 0.001
_PLOT_POINTS = 60


@dataclass(frozen=True)
class Case:
    """A metric, how its values come about, and how many users are looked at."""

    name: str
    metric: str
    draw: Callable[[random.Random], float]
    users: int
    quantile: float = 0.5
    share: float = 0.5


def _fraction(probability: float) -> Callable[[random.Random], float]:
    return lambda luck: float(luck.random() < probability)


def _time(luck: random.Random) -> float:
    return 0.3 * luck.lognormvariate(0, 0.5)


CASES = {
    case.name: case
    for case in (
        Case("error rate, 1 %", "error_rate", _fraction(0.01), 3000),
        Case("error rate, 1 %, candidate has 5 % of the users", "error_rate", _fraction(0.01), 3000, share=0.05),
        Case("task success, 80 %", "success", _fraction(0.8), 3000),
        Case("score from 0 to 1, anything between", "score", lambda luck: luck.betavariate(2, 2), 3000),
        Case("first token, median", "ttft_s", _time, 600),
        Case("first token, 95th percentile", "ttft_s", _time, 600, quantile=0.95),
        Case("tokens, heavy tail", "tokens_out", lambda luck: luck.lognormvariate(4, 1), 3000),
    )
}


def find_first_alarm(job: tuple[str, int]) -> tuple[int | None, int | None]:
    """At which user one of two same versions is called better, by us and by a z-test; None where it never is."""
    case, luck = CASES[job[0]], random.Random(f"{job}")
    candidate, baseline = Sample(), Sample()
    scale, has_buckets = find_scale(case.metric, {}, case.quantile), case.metric == "ttft_s"
    ours = theirs = None
    limit = NormalDist().inv_cdf(1 - ALPHA / 2)
    for user in range(1, case.users + 1):
        sample = candidate if luck.random() < case.share else baseline
        sample.add(case.draw(luck), has_buckets=has_buckets)
        if not candidate.count or not baseline.count:
            continue
        if theirs is None and _find_z(candidate, baseline) > limit:
            theirs = user
        if ours is None and scale.is_harm_refuted([Pair(candidate, baseline)], 0.0, ALPHA):
            ours = user
            if theirs is not None:
                break
    return ours, theirs


def find_skew_alarm(number: int) -> int | None:
    """At which user versions with the right users are said to have others."""
    luck, counts = random.Random(number), {"v1": 0, "v2": 0}
    for user in range(1, 10_001):
        counts["v2" if luck.random() < 0.05 else "v1"] += 1
        if sample_ratio.log_bet(counts, {"v1": 0.95, "v2": 0.05}) >= math.log(1 / _SKEW_ALPHA):
            return user
    return None


def _find_z(candidate: Sample, baseline: Sample) -> float:
    """How many standard errors the means are apart."""
    ours, theirs = candidate.variance, baseline.variance
    if ours is None or theirs is None or not ours + theirs or min(candidate.count, baseline.count) < 10:
        return 0.0
    error = math.sqrt(ours / candidate.count + theirs / baseline.count)
    return abs(candidate.total / candidate.count - baseline.total / baseline.count) / error


def run(out: Path, *, is_quick: bool) -> Report:
    """The table, with the plot beside it."""
    report, experiments = Report(), _EXPERIMENTS // (10 if is_quick else 1)
    rows, curves = [], {}
    for case in CASES.values():
        found = run_all(find_first_alarm, [(case.name, number) for number in range(experiments)])
        alarms = [ours for ours, _ in found if ours is not None]
        naive = sum(theirs is not None for _, theirs in found)
        share = len(alarms) / experiments
        curves[case.name] = (case.users, sorted(alarms))
        rows.append((case.name, f"{experiments:,}", f"{case.users:,}", f"{share:.2%}", f"{naive / experiments:.0%}"))
        report.require(share <= ALPHA, f"{case.name}: {share:.2%} false alarms")
        print(rows[-1], flush=True)
    skewed = sum(user is not None for user in run_all(find_skew_alarm, list(range(experiments))))
    report.require(skewed / experiments <= 2 * _SKEW_ALPHA, f"sample ratio: {skewed} of {experiments}")
    rows.append(("sample ratio, 5 to 95", f"{experiments:,}", "10,000", f"{skewed / experiments:.2%}", "-"))
    titles = ("metric", "experiments", "users, each a look", "false alarms", "by a z-test, looked at as often")
    report.add_table(titles, rows)
    report.lines.append(
        f"\nAllowed: {ALPHA:.0%}, and {_SKEW_ALPHA:.1%} for the sample ratio. "
        "The z-test compares means, of times too.\n\n![False alarms](false-alarms.png)"
    )
    _plot(out / "false-alarms.png", curves, experiments)
    return report


def _plot(path: Path, curves: dict[str, tuple[int, list[int]]], experiments: int) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, (users, alarms) in curves.items():
        places = [users * (point + 1) / _PLOT_POINTS for point in range(_PLOT_POINTS)]
        axes.plot(places, [100 * sum(one <= place for one in alarms) / experiments for place in places], label=name)
    axes.axhline(100 * ALPHA, color="black", linestyle="--", label="allowed")
    axes.set(xlabel="users seen, and looks", ylabel="experiments with a false alarm so far, %", ylim=(0, 6))
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
