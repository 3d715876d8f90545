"""1,000,000 users: do versions get their shares, does a ramp move anybody the wrong way, do all relays agree?

Four gateways read one state, each with its own control; what each would send to its relays is decoded by four
processes, as relays decode it, and every one of the sixteen finds the version of every user.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from gateway.processes.messages import NewRoutes
from gateway.settings import ModelSettings
from gateway.state import open_store
from gateway.traffic.routes import Routes
from loadtests.experiments.report import Report, run_all
from tests.support.control_bench import ControlBench

_USERS = 1_000_000
_GATEWAYS, _RELAYS = 4, 4
_MOST_POINTS = 0.2
_SPLITS: tuple[Mapping[str, float], ...] = (
    {"v1": 99, "v2": 1},
    {"v1": 90, "v2": 10},
    {"v1": 1, "v2": 1, "v3": 1},
    {"v1": 70, "v2": 20, "v3": 7, "v4": 2.5, "v5": 0.5},
)
_RAMP = (1, 5, 25, 50, 100)


def find_versions(job: tuple[bytes, int]) -> tuple[str, bytes]:
    """As a relay: the version of each of so many users; a digest of all, and one byte for each."""
    data, users = job
    routes = msgspec.msgpack.decode(data, type=NewRoutes).routes
    names = sorted(routes.models["m"].versions)
    digits = {name: number for number, name in enumerate(names)}
    found = bytes(digits[routes.resolve("m", None, key).version.name] for key in list_keys(users))
    return hashlib.sha256(found).hexdigest(), found


def list_keys(users: int) -> Iterator[bytes]:
    """The sticky keys of users, as the proxy makes them."""
    return (b"user=user-%d@example.com" % number for number in range(users))


def encode(routes: Routes) -> bytes:
    """What goes to a relay."""
    return msgspec.msgpack.encode(NewRoutes(routes, 0.0))


def run(out: Path, *, is_quick: bool) -> Report:
    """The tables."""
    del out
    report, users = Report(), _USERS // (10 if is_quick else 1)
    asyncio.run(_run(report, users))
    return report


async def _run(report: Report, users: int) -> None:
    rows = []
    for split in _SPLITS:
        [(_, found)] = run_all(find_versions, [(encode(await _serve(split)), users)])
        counts, total = Counter(found), sum(split.values())
        off = [100 * abs(counts[number] / users - weight / total) for number, weight in enumerate(split.values())]
        rows.append((", ".join(f"{name} {weight:g}" for name, weight in split.items()), f"{max(off):.3f}"))
        report.require(max(off) <= _MOST_POINTS, f"{split}: {max(off):.3f} points off")
    report.add_table((f"split of {users:,} users", "points off, at most"), rows)
    report.lines.append("")
    with TemporaryDirectory() as folder:
        await _ramp(report, users, f"sqlite://{folder}/state.db")


async def _serve(split: Mapping[str, float]) -> Routes:
    bench = ControlBench(_make_model(split))
    await bench.open()
    routes = bench.board.routes
    await bench.close()
    return routes


async def _ramp(report: Report, users: int, url: str) -> None:
    """One gateway moves the split step by step, the others follow; each relay of each says who has what."""
    benches = []
    for _ in range(_GATEWAYS):
        store = open_store(url)
        await store.open()
        benches.append(ControlBench(_make_model({"v1": 1, "v2": 0}), store=store))
    for bench in benches:
        await bench.mirror.look()
        await bench.control.settle()
    before, rows = bytes(users), []
    for percent in _RAMP:
        await benches[0].control.set_split("m", {"v1": 100 - percent, "v2": percent})
        for bench in benches[1:]:
            await bench.mirror.look()
        told = [encode(bench.board.routes) for bench in benches for _ in range(_RELAYS)]
        found = run_all(find_versions, [(data, users) for data in told])
        moved = sum(new != old for new, old in zip(found[0][1], before, strict=True))
        back = sum(new < old for new, old in zip(found[0][1], before, strict=True))
        digests = {digest for digest, _ in found}
        before = found[0][1]
        rows.append((f"{percent} %", f"{before.count(1) / users:.3%}", f"{moved:,}", back, len(found), len(digests)))
        report.require(back == 0, f"at {percent} % {back} users went back")
        report.require(len(digests) == 1, f"at {percent} % relays do not agree")
        report.require(abs(100 * before.count(1) / users - percent) <= _MOST_POINTS, f"{percent} % is off")
    titles = ("v2 is to have", "it has", "users moved to it", "moved back", "relays", "different answers")
    report.add_table(titles, rows)
    for bench in benches:
        await bench.close()


def _make_model(split: Mapping[str, float]) -> ModelSettings:
    versions = [{"name": name, "engine": "simulated"} for name in split]
    return ModelSettings.model_validate({"name": "m", "split": dict(split), "versions": versions})
