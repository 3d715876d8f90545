"""Engines without processes: a spawner and a probe whose every answer the test decides."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gateway.engines.engine import EngineSpec, ProbeFailed, SmokePrompt
from gateway.engines.placement import Device
from gateway.engines.process import LaunchSpec
from gateway.engines.remote import RemoteSpec
from gateway.settings import SourceAddress
from gateway.sources import Told
from gateway.telemetry.drafts import DraftCounts

DEVICES = (Device("cpu", 1000),)


class FakeProcess:
    """A process that ends when the test says so; SIGTERM is obeyed unless `is_stubborn`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.lines: list[str] = []
        self.is_stubborn = False
        self.signals: list[str] = []
        self._ended = asyncio.get_running_loop().create_future()

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def tail(self, lines: int = 20) -> list[str]:
        return self.lines[-lines:]

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        self.signals.append("term")
        if not self.is_stubborn:
            self.end(0)

    def kill(self) -> None:
        self.signals.append("kill")
        self.end(-9)


class FakeSpawner:
    """Starts fake processes; `failure` makes the next start fail."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.specs: list[LaunchSpec] = []
        self.failure: OSError | None = None
        self.is_closed = False
        self.on_spawn: Callable[[FakeProcess], None] = lambda process: None

    async def spawn(self, spec: LaunchSpec, on_line: Callable[[str], None] | None = None) -> FakeProcess:
        if self.failure is not None:
            raise self.failure
        process = FakeProcess(1000 + len(self.processes))
        self.processes.append(process)
        self.specs.append(spec)
        self.on_spawn(process)
        if on_line is not None:
            for line in process.lines:
                on_line(line)
        return process

    async def close(self) -> None:
        self.is_closed = True


class FakeTraffic:
    """Requests as relays would tell of them; the same for every engine and version."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = 0
        self.routed = False

    def count_running(self, address: str) -> int:
        return self.running

    def is_routed(self, address: str) -> bool:
        return self.routed

    def count_ended(self, model: str, version: str) -> int:
        return self.ended


class FakeProbe:
    """An engine's answers: `healthy` is what /health says, `fault` what the first token meets.

    `name` is what the engine calls its model; None means that it names none.
    """

    def __init__(self) -> None:
        self.healthy = True
        self.fault: str | None = None
        self.is_final = False
        self.mount_fault: str | None = None
        self.wake_fault: str | None = None
        self.mounted: list[tuple[str, str]] = []
        self.mount_smoke: tuple[SmokePrompt, ...] = ()
        self.smoke: tuple[SmokePrompt, ...] = ()
        self.name: str | None = "shapes"
        self.warmed: list[tuple[bool, tuple[str, ...]]] = []
        self.on_warm: Callable[[], None] = lambda: None
        self.looks = 0
        self.drafts: DraftCounts | None = None
        self.asked: list[tuple[str, bool]] = []
        self.answers: dict[str, str] = {}
        self.is_closed = False

    async def is_healthy(self) -> bool:
        await asyncio.sleep(0)
        self.looks += 1
        return self.healthy

    async def read_served_name(self) -> str:
        if self.name is None:
            raise ProbeFailed("/v1/models names no model")
        return self.name

    async def read_max_model_len(self) -> int | None:
        return 2048

    async def answer(self, asked: SmokePrompt, *, is_shown: bool) -> str:
        self.asked.append((asked.prompt, is_shown))
        return self.answers.get(asked.prompt, "the same")

    async def read_drafts(self) -> DraftCounts | None:
        return self.drafts

    async def warm(
        self, *, is_visual: bool, adapters: tuple[str, ...] = (), smoke: tuple[SmokePrompt, ...] = ()
    ) -> None:
        self.smoke = smoke
        self.warmed.append((is_visual, adapters))
        self.on_warm()
        if self.fault is not None:
            raise ProbeFailed(self.fault, is_final=self.is_final)

    async def fall_asleep(self) -> None:
        await asyncio.sleep(0)
        self.mounted.append(("sleep", ""))

    async def wake_up(self) -> None:
        await asyncio.sleep(0)
        self.mounted.append(("wake", ""))
        if self.wake_fault is not None:
            raise ProbeFailed(self.wake_fault)

    async def load_adapter(self, name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None:
        await asyncio.sleep(0)
        self.mount_smoke = smoke
        if self.mount_fault is not None:
            raise ProbeFailed(self.mount_fault)
        self.mounted.append(("load", name))

    async def unload_adapter(self, name: str) -> None:
        self.mounted.append(("unload", name))

    async def close(self) -> None:
        self.is_closed = True


async def fetch_nothing(address: SourceAddress, told: Told, public_id: str) -> Path:
    """For engines all of whose files are here."""
    raise AssertionError(f"{address} was asked for")


def remakeable(spec: EngineSpec) -> EngineSpec:
    """The same engine, which takes other adapters."""
    return replace(spec, remake=lambda adapters: replace(remakeable(spec), adapters=adapters))


def engine_spec(folder: Path, name: str = "shapes:v1#0", *, can_fork: bool = False) -> EngineSpec:
    """A spec whose launch starts nothing real."""
    version = name.partition(":")[2].partition("#")[0]
    launch = LaunchSpec(name=name, module="nothing", args=(), env={})
    return EngineSpec(name, "shapes", version, 0, lambda: launch, can_fork, folder / "e.sock", "shapes")


def remote_spec(name: str = "shapes:far#0", address: str = "http://far:8000") -> RemoteSpec:
    """A spec of an engine that somebody else runs."""
    return RemoteSpec(name, "shapes", name.partition(":")[2].partition("#")[0], int(name.partition("#")[2]), address)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)
