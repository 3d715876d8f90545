"""What a second relay is worth: requests a second through `relays: 1` and `relays: 2`, each relay on a CPU ration.

`python -m loadtests.relays [--ration 0.2] [--seconds 10] [--rounds 3]`, as root on Linux. Client and mock engine need
CPU too, and on a small machine would take it from the second relay. So every relay gets a control group with a fixed
share of a core, small enough that all the rest of the run fits beside them: what limits the rate is then the relays
alone. One and two take turns, round after round; the shares that the kernel granted are printed beside the rates.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loadtests.overhead.answers_check import wait_until_ready
from loadtests.overhead.bench import find_ports
from loadtests.overhead.load import ClosedLoop
from loadtests.overhead.processes import Child, read_process_cpu_s
from loadtests.overhead.requests import Requests
from loadtests.overhead.routers import OURS, ROUTERS, Site

ROOT = Path(__file__).parents[1]
PERIOD_US = 10_000
CONNECTIONS = 64
WARMUP_S = 2.0


class Ration:
    """A control group that grants a share of one core; version 1 and 2 of the kernel's interface."""

    def __init__(self, name: str, share: float) -> None:
        root = Path("/sys/fs/cgroup")
        is_old = (root / "cpu" / "cpu.cfs_quota_us").exists()
        self._folder = root / ("cpu" if is_old else "") / name
        self._folder.mkdir()
        quota_us = int(share * PERIOD_US)
        if is_old:
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (self._folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")

    def take(self, pid: int) -> None:
        """Put a process into it."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove it; its processes have ended."""
        self._folder.rmdir()


@contextlib.contextmanager
def running(
    relays: int, folder: Path, engines: tuple[int, int], requests: Requests, key: str
) -> Iterator[tuple[Child, int]]:
    """Our gateway as the overhead benchmark starts it, with that many relays, ready; and its port."""
    port, admin_port = find_ports(2)
    site = Site(folder, Path(), sys.executable, port, admin_port, engines, key, 1)
    launch = ROUTERS[OURS].launch(site)
    path = folder / "gateway.yaml"
    settings = json.loads(path.read_text())
    settings["server"]["relays"] = relays
    path.write_text(json.dumps(settings))
    cores = set(range(os.cpu_count() or 1))
    child = Child(launch.command, cores=cores, log=folder / "output.log", folder=launch.folder, more_env=launch.env)
    try:
        wait_until_ready(port, requests, child)
        yield child, port
    finally:
        child.stop()


def find_relays(child: Child) -> list[int]:
    """The processes that answer the public port."""
    pids = child.list_pids()
    relays = [pid for pid in pids if b"gateway.app.relay" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return relays or pids[:1]


async def measure(port: int, requests: Requests, relays: list[int], seconds: float) -> tuple[float, list[float]]:
    """Requests a second, and how much of a core each relay had."""
    loop = ClosedLoop(port, requests.repeat())
    await loop.start(CONNECTIONS)
    await asyncio.sleep(WARMUP_S)
    answers, before = loop.tally.answers, [read_process_cpu_s(pid) for pid in relays]
    await asyncio.sleep(seconds)
    answers, after = loop.tally.answers - answers, [read_process_cpu_s(pid) for pid in relays]
    loop.stop()
    if loop.tally.bad:
        raise SystemExit(f"{loop.tally.bad} of {loop.tally.answers} requests failed")
    return answers / seconds, [(end - start) / seconds for start, end in zip(before, after, strict=True)]


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ration", type=float, default=0.2, help="share of a core for each relay")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    key = "sk-relays"
    requests = Requests(key, 1)
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="relays-") as name:
        ports = find_ports(2)
        command = [sys.executable, "-m", "loadtests.overhead.mock", "--ports", *map(str, ports)]
        cores = set(range(os.cpu_count() or 1))
        mock = Child(command, cores=cores, log=Path(name) / "mock.log", folder=ROOT, more_env={})
        try:
            wait_until_ready(ports[0], requests, mock)
            for place in range(given.rounds):
                for count in (1, 2) if place % 2 == 0 else (2, 1):
                    folder = Path(name) / f"{place}-{count}"
                    folder.mkdir()
                    with contextlib.ExitStack() as stack:
                        rations = [
                            Ration(f"gateway-relays-{os.getpid()}-{slot}", given.ration) for slot in range(count)
                        ]
                        for ration in rations:
                            stack.callback(ration.close)
                        with running(count, folder, (ports[0], ports[1]), requests, key) as (child, port):
                            relays = find_relays(child)
                            for ration, pid in zip(rations, relays, strict=True):
                                ration.take(pid)
                            rate, shares = asyncio.run(measure(port, requests, relays, given.seconds))
                    rates[count].append(rate)
                    shown = ", ".join(f"{share:.3f}" for share in shares)
                    print(f"relays: {count}  {rate:.0f} requests/s, cores used by relay: {shown}", flush=True)
        finally:
            mock.stop()
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    print(f"median {one:.0f} and {two:.0f} requests/s: relays: 2 gives {two / one:.2f} times the throughput of one")
    sys.exit(0 if two >= 1.7 * one else 1)


if __name__ == "__main__":
    main()
