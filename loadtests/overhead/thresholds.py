"""What must hold, as data: numbers of our router against others of the same run, or alone."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .measure import Reading
from .routers import OURS


@dataclass(frozen=True)
class Threshold:
    """`metric` of ours, divided by that of `than` if there is one, is at most or at least `limit`."""

    metric: str
    bound: Literal["at most", "at least"]
    limit: float
    than: str | None = None


THRESHOLDS = (
    Threshold("cpu_ms_request", "at most", 0.9, "vllm-router"),
    Threshold("cpu_ms_request", "at most", 0.45, "sglang-router"),
    Threshold("cpu_ms_request", "at most", 0.01, "litellm"),
    Threshold("cpu_ms_request", "at most", 3.5, "nginx"),
    Threshold("cpu_us_chunk_256", "at most", 1.0, "vllm-router"),
    Threshold("cpu_us_chunk_256", "at most", 1.4, "nginx"),
    Threshold("requests_s", "at least", 1.1, "vllm-router"),
    Threshold("added_p50_ms", "at most", 0.2),
    Threshold("added_p99_ms", "at most", 1.5),
    Threshold("memory_rest_mb", "at most", 90),
    Threshold("memory_stream_kb", "at most", 60),
    Threshold("memory_growth_mb", "at most", 2.0),  # no growth, give or take a page cache of the allocator
    Threshold("picture_cpu_ms", "at most", 15),
)


@dataclass(frozen=True)
class Verdict:
    """How one threshold came out; without a value it was not looked at, and `reason` says why."""

    threshold: Threshold
    value: float | None
    reason: str = ""

    @property
    def is_crossed(self) -> bool:
        """True when it was looked at and does not hold."""
        if self.value is None:
            return False
        limit = self.threshold.limit
        return self.value > limit if self.threshold.bound == "at most" else self.value < limit


def judge(rounds: Mapping[str, Sequence[Reading]]) -> list[Verdict]:
    """Look at every threshold that the routers of this run allow. A ratio is the median of those of all rounds."""
    return [_judge_one(threshold, rounds) for threshold in THRESHOLDS]


def _judge_one(threshold: Threshold, rounds: Mapping[str, Sequence[Reading]]) -> Verdict:
    metric, other = threshold.metric, threshold.than or OURS
    values = [
        ours[metric] / theirs[metric] if threshold.than else ours[metric]
        for ours, theirs in zip(rounds.get(OURS, ()), rounds.get(other, ()), strict=False)
        if metric in ours and metric in theirs
    ]
    if not values:
        return Verdict(threshold, None, f"{OURS} and {other} have no such number in this run")
    return Verdict(threshold, statistics.median(values))
