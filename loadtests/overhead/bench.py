"""One run: the mock engine on its core, then router after router on the other, round after round in turned order."""

import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from .answers_check import RouterFault, check_answers, wait_until_ready
from .measure import (
    Effort,
    Reading,
    Target,
    measure_chunks,
    measure_growth,
    measure_idle_memory,
    measure_latency,
    measure_pictures,
    measure_quiet,
    measure_requests,
    wait_until_idle,
)
from .processes import Child
from .requests import Requests
from .routers import DIRECT, ROUTERS, Site

_ROOT = Path(__file__).parents[2]


class Bench:
    """Measures routers one at a time. `rounds` and `faults` grow while it runs, by name of router."""

    def __init__(self, envs: Path, *, router_cores: set[int], load_cores: set[int], effort: Effort) -> None:
        self.rounds: dict[str, list[Reading]] = {}
        self.faults: dict[str, str] = {}
        self._envs = envs
        self._router_cores = router_cores
        self._load_cores = load_cores
        self._effort = effort
        self._key = f"sk-{secrets.token_hex(16)}"
        self._requests = Requests(self._key, effort.seed)

    async def run(self, names: Sequence[str]) -> None:
        """Measure everything. A router that fails is noted in `faults` and left out of later rounds."""
        with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
            ports = find_ports(2)
            mock = self._start_mock(Path(folder), ports)
            try:
                wait_until_ready(ports[0], self._requests, mock)
                for place in range(self._effort.rounds):
                    await self._run_round(names if place % 2 == 0 else names[::-1], place, Path(folder), ports)
            finally:
                mock.stop()

    def _start_mock(self, folder: Path, ports: Sequence[int]) -> Child:
        command = [sys.executable, "-m", "loadtests.overhead.mock", "--ports", *map(str, ports)]
        return Child(command, cores=self._load_cores, log=folder / "mock.log", folder=_ROOT, more_env={})

    async def _run_round(self, names: Sequence[str], place: int, folder: Path, ports: Sequence[int]) -> None:
        for name in names:
            if name in self.faults:
                continue
            print(f"round {place + 1} of {self._effort.rounds}: {name}", file=sys.stderr, flush=True)
            self.rounds.setdefault(name, []).append({})
            try:
                await self._take(name, measure_quiet(self._router_cores | self._load_cores))
                if name == DIRECT:
                    target = Target(ports[0], ports[0], None, self._requests)
                    await self._take(name, measure_requests(target, self._effort))
                else:
                    own = folder / f"{name}-{place}"
                    own.mkdir()
                    await self._measure(name, own, ports, has_memory=place == 0)
            except (RouterFault, OSError, TimeoutError, ExceptionGroup) as fault:
                self.faults[name] = f"{type(fault).__name__}: {fault}"
                print(f"  {self.faults[name]}", file=sys.stderr, flush=True)

    async def _measure(self, name: str, folder: Path, ports: Sequence[int], *, has_memory: bool) -> None:
        effort = self._effort
        phases: list[Callable[[Target, Child], Awaitable[Reading]]] = [
            lambda target, _: measure_requests(target, effort),
            lambda target, _: measure_chunks(target, effort, 64),
            lambda target, _: measure_chunks(target, effort, 256),
            lambda target, _: measure_latency(target, effort, self.rounds[name][-1]["requests_s"] / 2),
            lambda target, _: measure_pictures(target, effort),
        ]
        await self._with_router(name, folder, ports, phases)
        if has_memory:  # a fresh process: what load left behind in its heap would hide what streams take
            memory_phases: list[Callable[[Target, Child], Awaitable[Reading]]] = [
                lambda target, child: measure_idle_memory(target, child, effort),
                lambda target, child: measure_growth(target, child, effort),
            ]
            await self._with_router(name, folder, ports, memory_phases)

    async def _with_router(
        self,
        name: str,
        folder: Path,
        ports: Sequence[int],
        phases: Sequence[Callable[[Target, Child], Awaitable[Reading]]],
    ) -> None:
        port, spare_port = find_ports(2)
        site = Site(folder, self._envs, port, spare_port, (ports[0], ports[1]), self._key, self._effort.seed)
        launch = ROUTERS[name].launch(site)
        child = Child(
            launch.command,
            cores=self._router_cores,
            log=folder / "output.log",
            folder=launch.folder,
            more_env=launch.env,
        )
        try:
            wait_until_ready(port, self._requests, child)
            check_answers(port, self._requests)
            for phase in phases:
                await wait_until_idle(child)
                await self._take(name, phase(Target(port, ports[0], child, self._requests), child))
        finally:
            child.stop()

    async def _take(self, name: str, phase: Awaitable[Reading]) -> None:
        started_s = time.monotonic()
        reading = await phase
        self.rounds[name][-1] |= reading
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in reading.items())
        print(f"  {time.monotonic() - started_s:5.1f} s  {shown}", file=sys.stderr, flush=True)


def find_ports(count: int) -> list[int]:
    """Free ports on loopback, free a moment ago."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
