"""Keeping one engine: one life after the other, with growing pauses between those that fail. Sleep, and the end.

A keeper is the one writer of its engine's status.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.engines.drafting import DraftWatch
from gateway.engines.engine import EngineSpec, EngineState, EngineStatus
from gateway.engines.failures import EngineFailed, as_failure
from gateway.engines.life import EngineLife
from gateway.engines.mounts import Mounts
from gateway.engines.room import Room
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.engines.want import NOT_UP, Want, Wanted

logger = logging.getLogger(__name__)


class EngineKeeper:
    """Keeps one engine from `run` until it was retired or stopped."""

    def __init__(self, spec: EngineSpec, tools: KeeperTools, timing: KeeperTiming, room: Room) -> None:
        self.mounts = Mounts(spec, tools.make_probe)
        self.drafts = DraftWatch()
        self.served_name = spec.served_name
        folder = None if spec.checkpoint is None else str(spec.checkpoint)
        self.status = EngineStatus(
            spec.name, spec.model, spec.version, EngineState.STARTING, time.time(), checkpoint=folder,
            adapters=tuple(name for name, _ in spec.adapters),
        )  # fmt: skip
        self._tools = tools
        self._timing = timing
        self._room = room
        self._want = Want()
        self._life: EngineLife | None = None
        self._has_been_up = False

    async def run(self) -> None:
        """Live the engine's lives; returns when it was stopped or failed for good."""
        try:
            await self._live_on()
        finally:
            if self._life is not None:  # cancelled: nothing may be left behind
                self._life.kill()

    async def _live_on(self) -> None:
        pause_s = self._timing.first_pause_s
        while not self._want.is_leaving:
            if self._want.value in (Wanted.DOZING, Wanted.ASLEEP):
                self._want.fall_asleep()
                if self._want.is_up:
                    continue
                self._update(EngineState.ASLEEP, phase="", progress=None, pid=None, **self._describe_mounts())
                await self._want.until(Wanted.UP, Wanted.GONE, Wanted.ENDED)
                continue
            life, failure = await self._live()
            if failure is None:
                continue
            lasted_s = 0.0 if life.up_since_s is None else time.monotonic() - life.up_since_s
            pause_s = self._timing.first_pause_s if lasted_s > self._timing.stable_after_s else pause_s
            self._fail(failure, pause_s)
            await life.end(is_failure=True, comes_back=not failure.is_final and self.spec.sleep_after_s is None)
            if failure.is_final:
                return
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, self._timing.longest_pause_s)
            self._update(EngineState.STARTING, restarts=self.status.restarts + 1, next_try_at=None, phase="")
        self._update(EngineState.STOPPED, phase="", progress=None, pid=None, next_try_at=None)

    async def _live(self) -> tuple[EngineLife, EngineFailed | None]:
        """One life, and what it failed of, which is told before its process is ended."""
        self.drafts.begin()
        self._life = life = EngineLife(
            self.mounts,
            self.drafts,
            self._tools,
            self._timing,
            self._room,
            self._want,
            self._update,
            has_been_up=self._has_been_up,
        )
        failure: EngineFailed | None = None
        try:
            await life.run()
        except Exception as error:  # noqa: BLE001 - the root of an engine's life: whatever happens, it is told
            failure = as_failure(error)
        self._has_been_up |= life.up_since_s is not None
        if failure is not None and not self._want.is_up:  # it was to go anyway
            logger.warning("%s ended before its time: %s", self.spec.name, failure.reason)
            failure = None
        if failure is None:
            await life.end(is_failure=False, comes_back=False)
        return life, failure

    def stop(self) -> None:
        """Ask the engine to end, its answers cut: SIGTERM, a grace time, SIGKILL. `run` returns soon after."""
        if not self._want.is_leaving and self.status.state is not EngineState.FAILED:
            self._update(EngineState.DRAINING, phase="stopping")
        self._want.set(Wanted.ENDED)

    def retire(self) -> None:
        """Ask the engine to end once its answers have ended. `run` returns then."""
        self._want.set(Wanted.GONE)

    def rest(self) -> None:
        """Ask the engine to end with its last answer, as another needs its place; asked for, it starts again."""
        self._want.evict()

    def doze(self) -> None:
        """As `rest`, for one that nobody asks for: an engine that `can_doze` keeps its process and its place."""
        if self._want.is_up:
            self._want.set(Wanted.DOZING if self.spec.can_doze else Wanted.ASLEEP)

    @property
    def is_dozing(self) -> bool:
        """True while it sleeps and keeps its place, and is to go on so."""
        is_asleep = self.status.state is EngineState.ASLEEP and self.status.pid is not None
        return is_asleep and self._want.value is Wanted.DOZING

    def wake(self) -> None:
        """Ask an engine that sleeps, or was going to, to be up again."""
        self._want.ask()

    def insist(self) -> None:
        """Do not let it sleep before it has been up; but nobody else is to sleep for it."""
        self._want.is_due = True

    @property
    def is_wanted(self) -> bool:
        """True unless it is to rest or to end."""
        return self._want.value is Wanted.UP

    @property
    def spec(self) -> EngineSpec:
        """What it keeps, as its next life begins."""
        return self.mounts.spec

    def hold(self, spec: EngineSpec, digests: Mapping[str, str]) -> None:
        """From here on these are the engine's adapters, in its next life too. Tells nobody: see `tell`."""
        self.mounts.hold(spec, digests)
        self.status = replace(self.status, **self._describe_mounts())

    def annotate(self, note: str) -> None:
        """Tell people something of the engine that its state does not."""
        self.status = replace(self.status, note=note)
        self.tell()

    def inherit(self, status: EngineStatus) -> None:
        """Count on from another engine, whose place this one has taken. Tells nobody."""
        if status.drafts is not None:
            self.drafts.inherit(status.drafts)
            self.status = replace(self.status, drafts=self.drafts.total)

    def tell(self) -> None:
        """Tell what the status is now."""
        self._tools.on_change(self.status)

    def _describe_mounts(self) -> dict[str, Any]:
        return self.mounts.describe(is_up=self._life is not None and self._life.is_up)

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._want.until(*NOT_UP)
        except TimeoutError:
            pass

    def _fail(self, failure: EngineFailed, pause_s: float) -> None:
        is_news = failure.reason != self.status.reason
        self._update(
            EngineState.FAILED, reason=failure.reason, tail=failure.tail, phase="", progress=None, pid=None,
            next_try_at=None if failure.is_final else time.time() + pause_s,
        )  # fmt: skip
        again = "not tried again" if failure.is_final else f"next try in {pause_s:g} s"
        logger.error("%s failed: %s (%s)", self.spec.name, failure.reason, again)
        for line in failure.tail if is_news else ():
            logger.error("%s | %s", self.spec.name, line)

    def _update(self, state: EngineState, **changes: object) -> None:
        since = self.status.since if state is self.status.state else time.time()
        self.status = replace(self.status, state=state, since=since, **changes)  # type: ignore[arg-type]
        self._tools.on_change(self.status)
