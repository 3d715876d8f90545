"""One run: the mock engine on its core, the routers on the other, measured in turns, round after round."""

import contextlib
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .answers_check import RouterFault, check_answers, wait_until_ready
from .measure import (
    Effort,
    Reading,
    Target,
    is_idle,
    measure_chunks_64,
    measure_chunks_256,
    measure_growth,
    measure_idle_memory,
    measure_latency,
    measure_pictures,
    measure_quiet,
    measure_requests,
)
from .processes import Child
from .requests import Requests
from .routers import DIRECT, ROUTERS, Site

_ROOT = Path(__file__).parents[2]
Phase = Callable[[Target, Effort, Reading], Awaitable[Reading]]
_PHASES: tuple[Phase, ...] = (
    measure_requests,
    measure_chunks_64,
    measure_chunks_256,
    measure_latency,
    measure_pictures,
)


@dataclass(frozen=True)
class Running:
    """A router that runs; without a child it is the engine itself."""

    target: Target
    child: Child | None

    def stop(self) -> None:
        """End it."""
        if self.child is not None:
            self.child.stop()


class Bench:
    """Measures routers in turns. `rounds` and `faults` grow while it runs, by name of router."""

    def __init__(
        self, envs: Path, python: str, *, router_cores: set[int], load_cores: set[int], effort: Effort
    ) -> None:
        self.rounds: dict[str, list[Reading]] = {}
        self.faults: dict[str, str] = {}
        self._failed: set[tuple[str, Phase]] = set()
        self._envs = envs
        self._python = python
        self._router_cores = router_cores
        self._load_cores = load_cores
        self._effort = effort
        self._key = f"sk-{secrets.token_hex(16)}"
        self._requests = Requests(self._key, effort.seed, are_traced=effort.are_traced)

    async def run(self, names: Sequence[str]) -> None:
        """Measure everything. A phase that a router fails is noted in `faults` and left out of its later rounds."""
        with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
            ports = find_ports(2)
            mock = self._start_mock(Path(folder), ports)
            try:
                wait_until_ready(ports[0], self._requests, mock)
                self.rounds = {name: [{}] for name in names}  # the first holds memory
                for name in names:
                    if name != DIRECT:
                        print(f"memory: {name}", file=sys.stderr, flush=True)
                        with self._noting_faults(name):
                            await self._measure_memory(name, Path(folder), ports)
                await self._run_rounds(names, Path(folder), ports)
            finally:
                mock.stop()

    def _start_mock(self, folder: Path, ports: Sequence[int]) -> Child:
        command = [sys.executable, "-m", "loadtests.overhead.mock", "--ports", *map(str, ports)]
        return Child(command, cores=self._load_cores, log=folder / "mock.log", folder=_ROOT, more_env={})

    async def _measure_memory(self, name: str, folder: Path, ports: Sequence[int]) -> None:
        """In a fresh process: what load left behind in its heap would hide what streams take."""
        one = self._start(name, folder, ports)
        try:
            if one.child is not None:
                await self._take(name, measure_idle_memory(one.target, one.child, self._effort))
                await self._take(name, measure_growth(one.target, one.child, self._effort))
        finally:
            one.stop()

    async def _run_rounds(self, names: Sequence[str], folder: Path, ports: Sequence[int]) -> None:
        """All routers are up at once, idle but for the one that is measured, phase after phase in turns.

        So each number of one router has those of the others close by in time, and ratios hold on a machine whose speed
        changes from minute to minute.
        """
        running: dict[str, Running] = {}
        try:
            for name in names:
                if name == DIRECT:
                    running[name] = Running(Target(ports[0], ports[0], None, self._requests), None)
                elif name not in self.faults:
                    with self._noting_faults(name):
                        running[name] = self._start(name, folder, ports)
            for place in range(self._effort.rounds):
                print(f"round {place + 1} of {self._effort.rounds}", file=sys.stderr, flush=True)
                order = list(running) if place % 2 == 0 else list(running)[::-1]
                for name in order:
                    self.rounds[name].append({})
                quiet = await measure_quiet(self._router_cores | self._load_cores)
                for phase in _PHASES:
                    for name in order:
                        if running[name].child is not None or phase is measure_requests:
                            self.rounds[name][-1] |= quiet
                            await self._run_phase(name, running, phase, folder, ports)
        finally:
            for one in running.values():
                one.stop()

    async def _run_phase(
        self, name: str, running: dict[str, Running], phase: Phase, folder: Path, ports: Sequence[int]
    ) -> None:
        """One phase of one router, which is at rest again when the next one's turn comes, or is started anew."""
        if (name, phase) in self._failed:
            return
        one = running[name]
        try:
            await self._take(name, phase(one.target, self._effort, self.rounds[name][-1]))
            is_sound = one.child is None or await is_idle(one.child)
        except (RouterFault, OSError, TimeoutError, ExceptionGroup) as fault:
            self._failed.add((name, phase))
            self._note_fault(name, fault)
            is_sound = False
        if not is_sound:
            one.stop()
            with self._noting_faults(name):
                running[name] = self._start(name, folder, ports)

    def _note_fault(self, name: str, fault: Exception) -> None:
        self.faults[name] = f"{type(fault).__name__}: {fault}"
        print(f"  {name}: {self.faults[name]}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _noting_faults(self, name: str) -> Iterator[None]:
        try:
            yield
        except (RouterFault, OSError, TimeoutError, ExceptionGroup) as fault:
            self._note_fault(name, fault)

    def _start(self, name: str, folder: Path, ports: Sequence[int]) -> Running:
        """Start and check a router. Raises RouterFault."""
        port, spare_port = find_ports(2)
        own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        site = Site(own, self._envs, self._python, port, spare_port, (ports[0], ports[1]), self._key, self._effort.seed)
        launch = ROUTERS[name].launch(site)
        child = Child(
            launch.command, cores=self._router_cores, log=own / "output.log", folder=launch.folder, more_env=launch.env
        )
        try:
            wait_until_ready(port, self._requests, child)
            check_answers(port, self._requests)
        except BaseException:
            child.stop()
            raise
        return Running(Target(port, ports[0], child, self._requests), child)

    async def _take(self, name: str, phase: Awaitable[Reading]) -> None:
        started_s = time.monotonic()
        reading = await phase
        self.rounds[name][-1] |= reading
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in reading.items())
        print(f"  {time.monotonic() - started_s:5.1f} s  {name:<14} {shown}", file=sys.stderr, flush=True)


def find_ports(count: int) -> list[int]:
    """Free ports on loopback, free a moment ago."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
