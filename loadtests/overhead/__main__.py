"""`python -m loadtests.overhead`: run the benchmark; exit 1 when a threshold is crossed or a router fails."""

import argparse
import gc
import os
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from .bench import Bench
from .measure import QUICK, Effort
from .report import describe_machine, describe_python, find_medians, plot, write_json, write_table
from .routers import DIRECT, ROUTERS
from .thresholds import judge

_HERE = Path(__file__).parent
_NAMES = (DIRECT, *ROUTERS)


def _read_options() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m loadtests.overhead", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(_NAMES)}")
    parser.add_argument("--envs", type=Path, default=_HERE / ".envs", help="folder of the other routers' environments")
    parser.add_argument("--python", default=sys.executable, help="interpreter to run ours in, with its requirements")
    parser.add_argument("--out", type=Path, default=_HERE / "results", help="folder for JSON and plot")
    parser.add_argument("--quick", action="store_true", help="a short run: rough numbers")
    parser.add_argument("--rounds", type=int, help="how often all but memory is measured; medians are reported")
    parser.add_argument("--mixed", type=int, help="mixed requests over which memory must not grow")
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson", help="spacing at half load")
    parser.add_argument("--traced", action="store_true", help="a traceparent in each request, so that no head repeats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--router-core", type=int, default=cores[-1], help="core of the router that is measured")
    parser.add_argument("--load-core", type=int, default=cores[0], help="core of mock engine and client")
    options = parser.parse_args()
    options.names = options.only.split(",") if options.only else list(_NAMES)
    unknown = [name for name in options.names if name not in _NAMES]
    if unknown:
        parser.error(f"no router is called {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    if options.router_core == options.load_core or not {options.router_core, options.load_core} <= set(cores):
        parser.error(f"the router and its load need a core each, of {cores}")
    return options


def _choose_effort(options: argparse.Namespace) -> Effort:
    effort = QUICK if options.quick else Effort()
    chosen = {name: getattr(options, name) for name in ("rounds", "mixed") if getattr(options, name) is not None}
    return replace(effort, arrivals=options.arrivals, are_traced=options.traced, seed=options.seed, **chosen)


def main() -> int:
    options = _read_options()
    effort = _choose_effort(options)
    os.sched_setaffinity(0, {options.load_core})
    bench = Bench(
        options.envs, options.python, router_cores={options.router_core}, load_cores={options.load_core}, effort=effort
    )
    gc.freeze()
    gc.disable()  # a collection in the client would show as a router's latency
    uvloop.run(bench.run(options.names))

    numbers = {name: find_medians(bench.rounds[name]) for name in options.names if name in bench.rounds}
    verdicts = judge(bench.rounds)
    date = datetime.now(UTC)
    record = {
        "date": date.isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "python": describe_python(options.python),
        "versions": {name: ROUTERS[name].read_version(options.envs) for name in numbers if name in ROUTERS},
        "cores": {"router": options.router_core, "load": options.load_core},
        "effort": asdict(effort),
        "medians": numbers,
        "rounds": bench.rounds,
        "faults": bench.faults,
        "verdicts": [asdict(verdict) | {"is_crossed": verdict.is_crossed} for verdict in verdicts],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"overhead-{date:%Y%m%d-%H%M%S}"
    write_json(stem.with_suffix(".json"), record)
    has_plot = plot(stem.with_suffix(".png"), numbers)
    print(write_table(numbers, bench.faults, verdicts))
    print(f"\n{stem}.json" + (f"\n{stem}.png" if has_plot else "\nNo plot: pip install matplotlib"))
    return int(bool(bench.faults) or any(verdict.is_crossed for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
