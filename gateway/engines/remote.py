"""The watch over an engine that somebody else runs: is it there, does a token come out, is it still there.

Writes that engine's status, like a keeper. Never starts, stops or restarts anything.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.engines.engine import EngineState, EngineStatus, ProbeFailed
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """An engine elsewhere: `address` is `http://host:port`."""

    name: str
    model: str
    version: str
    index: int
    address: str


@dataclass(frozen=True, slots=True)
class RemoteTiming:
    """Seconds and counts a watch lives by. Pauses between tries are short: a look costs the engine nothing."""

    retry_s: float = 1.0
    health_every_s: float = 2.0
    failed_checks: int = 3


class RemoteProbe(Protocol):
    """The questions a watch asks; `probe.Probe` is the real one."""

    async def is_healthy(self) -> bool: ...
    async def read_served_name(self) -> str: ...
    async def read_max_model_len(self) -> int | None: ...
    async def warm(self, *, is_visual: bool, adapters: tuple[str, ...] = ()) -> None: ...
    async def close(self) -> None: ...


class RemoteWatch:
    """Watches one engine from `run` until `stop`. `served_name` is what the engine calls its model."""

    def __init__(
        self,
        spec: RemoteSpec,
        make_probe: Callable[[RemoteSpec], RemoteProbe],
        on_change: Callable[[EngineStatus], None],
        timing: RemoteTiming,
    ) -> None:
        self.spec = spec
        self.served_name = spec.model
        self.status = EngineStatus(spec.name, spec.model, spec.version, EngineState.STARTING, time.time())
        self._make_probe = make_probe
        self._on_change = on_change
        self._timing = timing
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Look again and again; returns when it was stopped, at once even while a question waits for its answer."""
        probe = self._make_probe(self.spec)
        tasks = TaskSet()
        looking = tasks.start(self._look_on(probe), f"{self.spec.name} watch")
        stopping = tasks.start(self._stopping.wait(), f"{self.spec.name} stop")
        try:
            await asyncio.wait((looking, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.close()
            await probe.close()
        if self._stopping.is_set():
            self._update(EngineState.STOPPED)

    def stop(self) -> None:
        """Look no more. The engine itself goes on, and so do its answers."""
        self._stopping.set()

    def retire(self) -> None:
        """See `stop`: there is nothing to wait for."""
        self.stop()

    async def _look_on(self, probe: RemoteProbe) -> None:
        while not self._stopping.is_set():
            try:
                await self._meet(probe)
                await self._watch(probe)
            except ProbeFailed as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001 - the root of its task: an engine is never left unwatched
                self._fail(f"the gateway could not watch it: {error!r}")
            await asyncio.sleep(self._timing.retry_s)

    async def _meet(self, probe: RemoteProbe) -> None:
        if not await probe.is_healthy():
            raise ProbeFailed(f"{self.spec.address}/health does not answer with 200")
        self.served_name = await probe.read_served_name()
        await probe.warm(is_visual=False)
        length = await probe.read_max_model_len()
        self._update(EngineState.READY, reason=None, next_try_at=None, max_model_len=length)

    async def _watch(self, probe: RemoteProbe) -> None:
        failed = 0
        while failed < self._timing.failed_checks:
            await asyncio.sleep(self._timing.health_every_s)
            failed = 0 if await self._is_well(probe) else failed + 1
        raise ProbeFailed(f"{self.spec.address}/health failed {failed} times in a row")

    async def _is_well(self, probe: RemoteProbe) -> bool:
        """Raises ProbeFailed when it has become another engine: it would be asked for a model that it does not have."""
        if not await probe.is_healthy():
            return False
        try:
            name = await probe.read_served_name()
        except ProbeFailed:
            return False
        if name != self.served_name:
            raise ProbeFailed(f"{self.spec.address} now calls its model {name!r}, not {self.served_name!r}")
        return True

    def _fail(self, reason: str) -> None:
        if reason != self.status.reason:
            logger.error("%s failed: %s (tried again every %g s)", self.spec.name, reason, self._timing.retry_s)
        self._update(EngineState.FAILED, reason=reason, next_try_at=time.time() + self._timing.retry_s)

    def _update(self, state: EngineState, **changes: object) -> None:
        since = self.status.since if state is self.status.state else time.time()
        self.status = replace(self.status, state=state, since=since, **changes)  # type: ignore[arg-type]
        self._on_change(self.status)
