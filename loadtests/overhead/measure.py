"""What is measured, phase by phase, on one running router. Numbers go out as a flat map from metric name to value; the
names and their units are in `report.METRICS`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .answers_check import RouterFault, read_counts
from .client import Tally, connect, fetch
from .load import Arrivals, ClosedLoop, Mixture, OpenStreams, list_gaps
from .processes import Child, read_core_times
from .requests import Requests, Wish

Reading = dict[str, float]
_ENDLESS = 10_000_000
_CONNECTIONS = 32
_IDLE_STREAMS = 1000
_BEGIN_TIMEOUT_S = 15.0
_MIXED_WORKERS = 128
_UNEVEN = 0.25
_ENOUGH_TO_SPLIT = 200
_QUIET_WINDOW_S = 1.0
_IDLE_WINDOW_S = 0.5
_IDLE_SHARE = 0.02
_IDLE_TIMEOUT_S = 20.0
_WARM_PICTURES = 2
_PICTURE_TIMEOUT_S = 30.0
_AFTERMATH_S = 0.02  # what a router does after the last byte is part of the cost


@dataclass(frozen=True)
class Effort:
    """How long to look. `mixed` requests are sent unless `mixed_budget_s` runs out, which only a slow router meets."""

    rounds: int = 7
    warmup_s: float = 0.5
    window_s: float = 2.5
    segments: int = 2
    pictures: int = 10
    mixed: int = 100_000
    mixed_budget_s: float = 300.0
    settle_s: float = 3.0
    arrivals: str = "poisson"
    are_traced: bool = False
    seed: int = 1


QUICK = Effort(rounds=1, warmup_s=0.5, window_s=2.0, segments=1, pictures=5, mixed=5_000, mixed_budget_s=60, settle_s=1)


@dataclass(frozen=True)
class Target:
    """A running router and the engine behind it; `router` is None where the engine itself is the target."""

    port: int
    engine_port: int
    router: Child | None
    requests: Requests

    def read_cpu_s(self) -> float:
        """CPU time of the router so far; the engine itself counts as free."""
        return self.router.read_cpu_s() if self.router else 0.0


async def measure_quiet(cores: set[int]) -> Reading:
    """How much of these cores others use while this run does nothing; above a few hundredths nothing can be trusted."""
    busy, total = read_core_times(cores)
    await asyncio.sleep(_QUIET_WINDOW_S)
    busy_after, total_after = read_core_times(cores)
    return {"others_busy": (busy_after - busy) / max(1.0, total_after - total)}


async def is_idle(child: Child) -> bool:
    """Wait until a router has done with what a phase left it; False when it has not after a while."""
    deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        cpu_s, started_s = child.read_cpu_s(), time.monotonic()
        await asyncio.sleep(_IDLE_WINDOW_S)
        if child.read_cpu_s() - cpu_s < _IDLE_SHARE * (time.monotonic() - started_s):
            return True
    return False


async def _watch(target: Target, effort: Effort, count: Callable[[], int]) -> tuple[int, float, float]:
    """What is counted in one window, the router's CPU seconds in it, and how long it was."""
    await asyncio.sleep(effort.warmup_s)
    before, cpu_s, started_s = count(), target.read_cpu_s(), time.monotonic()
    await asyncio.sleep(effort.window_s)
    return count() - before, target.read_cpu_s() - cpu_s, time.monotonic() - started_s


async def measure_requests(target: Target, effort: Effort, _: Reading) -> Reading:
    """Full answers in a closed loop: CPU of each, how many a second, and how busy the router's core was meanwhile."""
    counts = read_counts(target.engine_port)
    loop = ClosedLoop(target.port, target.requests.repeat())
    await loop.start(_CONNECTIONS)
    answers, cpu_s, passed_s = await _watch(target, effort, lambda: loop.tally.answers)
    loop.stop()
    if loop.tally.bad or not answers:
        raise RouterFault(f"{loop.tally.bad} of {loop.tally.answers} full requests failed in the closed loop")
    if target.router is not None:
        _check_split(counts, read_counts(target.engine_port))
    return {"requests_s": answers / passed_s, "cpu_ms_request": 1e3 * cpu_s / answers, "core_busy": cpu_s / passed_s}


async def measure_chunks_64(target: Target, effort: Effort, _: Reading) -> Reading:
    """See `_measure_chunks`."""
    return await _measure_chunks(target, effort, 64)


async def measure_chunks_256(target: Target, effort: Effort, _: Reading) -> Reading:
    """See `_measure_chunks`."""
    return await _measure_chunks(target, effort, 256)


async def _measure_chunks(target: Target, effort: Effort, streams: int) -> Reading:
    """Streams that go on: CPU of each chunk that arrived, and how many arrived a second.

    A router that cannot keep the pace gets fewer chunks in the window; what each costs is right all the same.
    """
    held = OpenStreams(target.port)
    begun = await held.start(target.requests.repeat(stream=True, max_tokens=_ENDLESS), streams, _BEGIN_TIMEOUT_S)
    events, cpu_s, passed_s = await _watch(target, effort, lambda: held.tally.events)
    held.stop()
    if held.tally.bad or not events:
        raise RouterFault(f"{begun} of {streams} streams began, {held.tally.bad} broke, {events} chunks came")
    return {f"cpu_us_chunk_{streams}": 1e6 * cpu_s / events, f"chunks_s_{streams}": events / passed_s}


async def measure_latency(target: Target, effort: Effort, known: Reading) -> Reading:
    """Latency of full answers at half of the requests a second `known`, through the router and straight, in turns.

    Latency counts from the moment a request was meant to be sent.
    """
    if "requests_s" not in known:
        raise RouterFault("half of its requests a second is not known")
    rate = known["requests_s"] / 2
    latencies: dict[bool, list[float]] = {False: [], True: []}
    cpu_s, answers = 0.0, 0
    # Enough answers for a 99th percentile, also of a router that gives 30 a second.
    duration_s = min(max(effort.window_s, 600 / rate / effort.segments), effort.window_s * 4)
    for segment in range(effort.segments):
        for is_routed in (False, True):
            arrivals = Arrivals(target.port if is_routed else target.engine_port, target.requests.repeat())
            before_s = target.read_cpu_s()
            gaps_s = list_gaps(effort.arrivals, rate, effort.seed + segment)
            latencies[is_routed] += await arrivals.run(gaps_s, duration_s)
            if is_routed:
                cpu_s, answers = cpu_s + target.read_cpu_s() - before_s, answers + arrivals.tally.answers
            if arrivals.tally.bad:
                raise RouterFault(f"{arrivals.tally.bad} of {arrivals.tally.answers} requests failed at half load")
    reading = {"half_rate": rate, "cpu_ms_request_half": 1e3 * cpu_s / answers}
    for percent in (50, 99):
        direct_s, routed_s = (find_percentile(latencies[is_routed], percent) for is_routed in (False, True))
        reading |= {f"direct_p{percent}_ms": 1e3 * direct_s, f"routed_p{percent}_ms": 1e3 * routed_s}
        reading[f"added_p{percent}_ms"] = 1e3 * (routed_s - direct_s)
    return reading


async def measure_pictures(target: Target, effort: Effort, _: Reading) -> Reading:
    """CPU of a request with a picture of 10 MB in it, one at a time."""
    request, tally = target.requests.write_picture(), Tally()
    connection = await connect(target.port, tally)
    used_s = 0.0
    for place in range(_WARM_PICTURES + effort.pictures):
        cpu_s = target.read_cpu_s()
        await fetch(connection, request, _PICTURE_TIMEOUT_S)
        await asyncio.sleep(_AFTERMATH_S)
        used_s += target.read_cpu_s() - cpu_s if place >= _WARM_PICTURES else 0.0
    connection.close()
    if tally.good < _WARM_PICTURES + effort.pictures:
        raise RouterFault(f"{tally.good} of {_WARM_PICTURES + effort.pictures} requests with a picture were answered")
    return {"picture_cpu_ms": 1e3 * used_s / effort.pictures}


async def measure_idle_memory(target: Target, child: Child, effort: Effort) -> Reading:
    """Memory of a router that has just started, and with 1,000 streams open on which nothing comes."""
    await asyncio.sleep(effort.settle_s)
    at_rest_mb = child.read_memory_mb()
    held = OpenStreams(target.port)
    begun = await held.start(target.requests.repeat(Wish.IDLE, stream=True), _IDLE_STREAMS)
    await asyncio.sleep(effort.settle_s)
    with_streams_mb = child.read_memory_mb()
    held.stop()
    await asyncio.sleep(effort.settle_s)
    if not begun:
        raise RouterFault("no stream began")
    per_stream_kb = 1e3 * (with_streams_mb - at_rest_mb) / begun
    return {"memory_rest_mb": at_rest_mb, "idle_streams": begun, "memory_stream_kb": per_stream_kb}


async def measure_growth(target: Target, child: Child, effort: Effort) -> Reading:
    """Memory before and after many mixed requests. The first tenth warms up and comes on top."""
    mixture = Mixture(target.port, target.requests, effort.seed)
    await mixture.run(effort.mixed // 10, _MIXED_WORKERS, effort.mixed_budget_s / 10)
    await asyncio.sleep(effort.settle_s)
    before_mb, sent = child.read_memory_mb(), mixture.sent
    await mixture.run(effort.mixed, _MIXED_WORKERS, effort.mixed_budget_s)
    await asyncio.sleep(effort.settle_s)
    after_mb = child.read_memory_mb()
    return {
        "mixed_requests": mixture.sent - sent,
        "mixed_faults": mixture.faults,
        "memory_mixed_mb": after_mb,
        "memory_growth_mb": after_mb - before_mb,
    }


def find_percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _check_split(before: dict[str, int], after: dict[str, int]) -> None:
    gained = [after[name] - before.get(name, 0) for name in sorted(after) if name.startswith("port ")]
    share = gained[0] / sum(gained)
    if sum(gained) > _ENOUGH_TO_SPLIT and abs(share - 0.5) > _UNEVEN:
        raise RouterFault(f"the first of two engines got {share:.0%} of the requests, about half is meant")
