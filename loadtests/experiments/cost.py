"""What it costs to find a request's version: with two versions, with a thousand, among ten thousand other models."""

import timeit
from pathlib import Path

from gateway.proxy.body import parse_fields
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.placing import place
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split
from loadtests.experiments.report import Report

_MOST_US = 5.0
_ROUNDS = 20_000
_BODY = b'{"model":"m","user":"anna","messages":[{"role":"user","content":"which shape is it?"}],"stream":true}'


def make_split(versions: int, parts: int, *, is_one_out: bool = False) -> Split:
    """So many versions over so many parts of the line."""
    names = [f"v{number}" for number in range(versions)]
    ends = tuple((number + 1) * 2**32 // parts for number in range(parts))
    allocation = Allocation(ends, tuple(names[number % versions] for number in range(parts)))
    return Split.over("m", allocation, names[:1] if is_one_out else ())


def run(out: Path, *, is_quick: bool) -> Report:
    """The table."""
    del out
    report, rows, rounds = Report(), [], _ROUNDS // (10 if is_quick else 1)
    for name, split, others in (
        ("2 versions", make_split(2, 2), 0),
        ("2 versions, one of them out", make_split(2, 2, is_one_out=True), 0),
        ("1,000 versions", make_split(1000, 1000), 0),
        ("1,000 versions, one of them out", make_split(1000, 1000, is_one_out=True), 0),
        ("1,000 versions in 10,000 parts, 10,000 other models", make_split(1000, 10_000), 10_000),
    ):
        choosing, placing = _time(split, others, rounds)
        rows.append((name, f"{choosing:.2f}", f"{placing:.2f}"))
        report.require(choosing <= _MOST_US, f"{name}: {choosing:.2f} microseconds")
    titles = ("what there is", "choice of the version, µs", "all of placing: name, sticky key, version, µs")
    report.add_table(titles, rows)
    return report


def _time(split: Split, others: int, rounds: int) -> tuple[float, float]:
    """Microseconds of a choice, and of placing a request: the best of five."""
    keys = [b"user=%d" % number for number in range(rounds)]
    model = ModelRoute("m", {name: VersionRoute(name) for name in set(split.allocation.names)}, split, ("user",))
    routes = Routes({"m": model} | {f"m{number}": model for number in range(others)})
    head, fields = RequestHead(ENDPOINTS["/v1/chat/completions"], {}, b""), parse_fields(_BODY)
    choosing = timeit.repeat(lambda: [split.choose(key) for key in keys], number=1, repeat=5)
    placing = timeit.repeat(
        lambda: [place(head, fields, routes, "9.9.9.9", "id") for _ in range(rounds)], number=1, repeat=5
    )
    return min(choosing) / rounds * 1e6, min(placing) / rounds * 1e6
