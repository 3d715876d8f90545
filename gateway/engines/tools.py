"""What keepers of engines act through, and the times they live by."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.engines.engine import Admission, EngineSpec, EngineStatus, SmokePrompt
from gateway.engines.mounts import MountProbe
from gateway.engines.parity import Parity
from gateway.engines.process import Spawner
from gateway.engines.settling import Fetch
from gateway.telemetry.drafts import DraftCounts


class EngineProbe(MountProbe, Protocol):
    """The questions a keeper asks; `probe.Probe` is the real one."""

    async def is_healthy(self) -> bool: ...
    async def read_max_model_len(self) -> int | None: ...
    async def fall_asleep(self) -> None: ...
    async def wake_up(self) -> None: ...
    async def answer(self, asked: SmokePrompt, *, is_shown: bool) -> str: ...
    async def read_drafts(self) -> DraftCounts | None: ...
    async def warm(
        self, *, is_visual: bool, adapters: tuple[str, ...] = (), smoke: tuple[SmokePrompt, ...] = ()
    ) -> None: ...


class Traffic(Protocol):
    """What relays know of requests."""

    def count_running(self, address: str) -> int: ...
    def is_routed(self, address: str) -> bool: ...
    def count_ended(self, model: str, version: str) -> int: ...


@dataclass(frozen=True, slots=True)
class KeeperTiming:
    """Seconds and counts a keeper lives by.

    An engine that is to go has `drain_s` to finish its answers, and has done so when none was under way for `quiet_s`:
    twice as long as several relays take to tell.
    """

    start_timeout_s: float = 900.0
    poll_s: float = 0.2
    health_every_s: float = 5.0
    failed_checks: int = 6
    drain_s: float = 300.0
    quiet_s: float = 2.0
    stop_grace_s: float = 8.0
    last_words_s: float = 3.0
    idle_every_s: float = 1.0
    unload_after_s: float = 60.0
    mount_timeout_s: float = 100.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    stable_after_s: float = 120.0


@dataclass(frozen=True, slots=True)
class KeeperTools:
    """What keepers act through.

    `fetch` gets files of other machines. `admit` looks at a spec's files, `read_digests` only at whether they are the
    same; both may block. Engines that can be forked go to `fork_spawner`, where there is one; `explain` turns last
    lines and an exit code into a sentence; `slots` bounds how many engines load at once; `turns` keeps them in the
    order in which they were asked for; `traffic` knows the requests under way at an address; `parity` what was proven
    of speculation.
    """

    spawner: Spawner
    fork_spawner: Spawner | None
    make_probe: Callable[[EngineSpec], EngineProbe]
    fetch: Fetch
    admit: Callable[[EngineSpec], Admission]
    read_digests: Callable[[EngineSpec], Mapping[str, str]]
    explain: Callable[[list[str], int], str]
    slots: asyncio.Semaphore
    turns: asyncio.Lock
    on_change: Callable[[EngineStatus], None]
    traffic: Traffic
    parity: Parity = field(default_factory=Parity)

    def choose_spawner(self, spec: EngineSpec) -> Spawner:
        """The one that is to start this engine."""
        return self.fork_spawner if self.fork_spawner is not None and spec.can_fork else self.spawner
