"""One life of an engine: its files looked at, its process launched, warmed, watched, drained and ended.

It never trusts an exit code of 0 nor an open port: ready means that a real token came out, and any exit that was not
asked for is a failure. Its keeper is the one who starts the next life.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from gateway.engines.drafting import DraftWatch
from gateway.engines.engine import Admission, EngineSpec, EngineState, ProbeFailed
from gateway.engines.failures import EngineFailed, as_failure
from gateway.engines.mounts import Mounts, find_smoke
from gateway.engines.preparing import Preparation, Prepared, Update
from gateway.engines.process import EngineProcess
from gateway.engines.progress import LoadProgress
from gateway.engines.room import Room
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.engines.want import NOT_UP, Want, Wanted
from gateway.tasks import TaskSet, outcome_of

logger = logging.getLogger(__name__)

_NOT_DOZING = (Wanted.UP, Wanted.ASLEEP, Wanted.GONE, Wanted.ENDED)
_TOLD_LINES = 400  # the root of a failure stands far above the last line


class EngineLife:
    """One life from `run` to `end`. `update` gets every change of the engine's status.

    `up_since_s`, of the monotonic clock, is when it became ready. An engine that `has_been_up` in an earlier life may
    be so again, whatever its files look like now.
    """

    def __init__(
        self, mounts: Mounts, drafts: DraftWatch, tools: KeeperTools, timing: KeeperTiming, room: Room, want: Want,
        update: Update, *, has_been_up: bool,
    ) -> None:  # fmt: skip
        self.up_since_s: float | None = None
        self._mounts = mounts
        self._drafts = drafts
        self._tools = tools
        self._timing = timing
        self._room = room
        self._want = want
        self._update = update
        self._has_been_up = has_been_up
        self._state = EngineState.STARTING
        self._name = mounts.spec.name
        self._preparation = Preparation(mounts, tools, timing, room, want, self._tell, has_been_up=has_been_up)
        self._process: EngineProcess | None = None
        self._started_s = 0.0

    @property
    def is_up(self) -> bool:
        """True from when it is ready until its process is gone."""
        return self.up_since_s is not None and self._process is not None

    async def run(self) -> None:
        """Live until something else is wanted than that it is up, and its answers have ended. Raises EngineFailed."""
        process = await self._start()
        while process is not None:
            await self._guard(process, self._watch(), but=NOT_UP)
            if self._want.value is not Wanted.ENDED:
                await self._guard(process, self._drain(), but=(Wanted.UP, Wanted.ENDED))
            if self._want.value is Wanted.DOZING:
                await self._guard(process, self._doze(), but=_NOT_DOZING)
                if self._want.is_up:
                    await self._guard(process, self._rouse(), but=NOT_UP, timeout_s=self._timing.start_timeout_s)
            if not self._want.is_up:
                return
            self._tell(EngineState.READY, phase="", **self._mounts.describe(is_up=True))

    def kill(self) -> None:
        """Leave nothing behind, at once."""
        if self._process is not None:
            self._process.kill()

    async def end(self, *, is_failure: bool, comes_back: bool) -> None:
        """End the process: SIGTERM and a grace time for one that is well, then SIGKILL to its whole group.

        One that `comes_back` keeps its place meanwhile.
        """
        process, was_up = self._process, self.is_up
        self._process = None
        self._mounts.end()
        if process is None:
            if not comes_back:
                self._room.release(self._name)
            return
        # vLLM takes no SIGTERM while it loads.
        if was_up and not is_failure:
            await self._end_gently(process)
        process.kill()
        await process.wait()
        if not comes_back:
            self._room.release(self._name)
        self._mounts.spec.socket.unlink(missing_ok=True)

    async def _end_gently(self, process: EngineProcess) -> None:
        grace_s = self._timing.stop_grace_s
        process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            logger.warning("%s did not end within %g s of SIGTERM: killing it", self._name, grace_s)

    async def _start(self) -> EngineProcess | None:
        """From the look at its files to ready; None when it is not wanted any more."""
        prepared = await self._preparation.run()
        if prepared is None:
            return None
        slots = self._tools.slots
        if slots.locked():
            self._tell(EngineState.STARTING, phase="waiting for another engine to load")
        if await self._want.while_up(slots.acquire(), self._name) is None:
            return None
        try:
            if not await self._preparation.prove_parity(prepared):
                return None
            process = await self._want.while_up(self._launch(prepared), self._name)  # loading vLLM takes its time
            if process is not None:
                bringing_up = self._bring_up(prepared.spec, prepared.admission)
                await self._guard(process, bringing_up, but=NOT_UP, timeout_s=self._timing.start_timeout_s)
        finally:
            slots.release()
        return process if self.is_up else None

    async def _launch(self, prepared: Prepared) -> EngineProcess:
        spec = prepared.spec
        self._started_s = time.monotonic()
        spec.socket.unlink(missing_ok=True)  # vLLM neither removes nor reuses a socket file
        progress = LoadProgress()

        def note(line: str) -> None:
            logger.debug("%s | %s", self._name, line)
            if self._state is EngineState.STARTING and progress.read(line):
                self._tell(EngineState.STARTING, phase=progress.phase, progress=progress.fraction)

        self._tell(EngineState.STARTING, phase="loading", progress=0.02)
        try:
            self._process = await self._tools.choose_spawner(spec).spawn(prepared.launch, note)
        except ValueError as error:  # words that no program can be given, as with a zero byte
            raise EngineFailed(f"the engine could not be launched: {error}", is_final=True) from error
        except OSError as error:
            raise EngineFailed(f"the engine could not be launched: {error}") from error
        self._tell(EngineState.STARTING, pid=self._process.pid)
        return self._process

    async def _guard(
        self,
        process: EngineProcess,
        work: Coroutine[None, None, None],
        *,
        but: tuple[Wanted, ...],
        timeout_s: float | None = None,
    ) -> None:
        """Do `work` while the process lives and nothing of `but` is wanted. Raises EngineFailed when it ends."""
        tasks = TaskSet()
        working = tasks.start(outcome_of(work), f"{self._name} work")
        ending = tasks.start(process.wait(), f"{self._name} exit")
        changing = tasks.start(self._want.until(*but), f"{self._name} want")
        try:
            done, _ = await asyncio.wait(
                (working, ending, changing), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await tasks.close()
        if changing in done:
            return
        if ending in done:
            code = ending.result()
            # vLLM exits with 2 for flags it does not know: no restart mends that.
            raise EngineFailed(
                self._explain(process, code), process.tail(), is_final=code == 2 and self.up_since_s is None
            )
        if not done:
            raise EngineFailed(f"the engine was not ready within {timeout_s:g} s", process.tail())
        if isinstance(error := working.result(), Exception):
            failure = as_failure(error)
            is_warming = self._state is EngineState.WARMING
            reason = (await self._read_last_words(process) if is_warming else None) or failure.reason
            raise EngineFailed(reason, list(failure.tail) or process.tail(), is_final=failure.is_final)

    async def _read_last_words(self, process: EngineProcess) -> str | None:
        """What an engine says that dies of its first request; the answer to that says only that it died."""
        try:
            async with asyncio.timeout(self._timing.last_words_s):
                code = await process.wait()
        except TimeoutError:
            return None
        return self._explain(process, code)

    def _explain(self, process: EngineProcess, code: int) -> str:
        reason = self._tools.explain(process.tail(_TOLD_LINES), code)
        is_warming = self._state is EngineState.WARMING
        return f"it started, and died at its first request: {reason}" if is_warming else reason

    async def _bring_up(self, spec: EngineSpec, admission: Admission) -> None:
        """From launch to ready. `spec` is what was launched; adapters may have been added meanwhile."""
        probe = self._tools.make_probe(spec)
        try:
            while not await probe.is_healthy():
                await asyncio.sleep(self._timing.poll_s)
            self._tell(EngineState.WARMING, phase="waiting for a first token", progress=0.95)
            adapters = tuple(name for name, _ in spec.adapters)
            await probe.warm(is_visual=admission.is_visual, adapters=adapters, smoke=find_smoke(spec))
            length = await probe.read_max_model_len()
            digests = admission.digests
            if digests and await asyncio.to_thread(self._tools.read_digests, spec) != digests:
                raise EngineFailed("the checkpoint's files changed while the engine loaded them")
        except ProbeFailed as error:
            # What has answered rightly before may do so again.
            raise EngineFailed(str(error), is_final=error.is_final and not self._has_been_up) from error
        finally:
            await probe.close()
        self._mounts.begin(spec, admission.digests)
        await self._catch_up()
        self.up_since_s = time.monotonic()
        self._want.is_asked = self._want.is_due = False
        self._tell(
            EngineState.READY, phase="", progress=None, reason=None, tail=(), max_model_len=length,
            ready_after_s=self.up_since_s - self._started_s, **self._mounts.describe(is_up=True),
        )  # fmt: skip

    async def _catch_up(self) -> None:
        """Mount what was asked for while the engine loaded. Returns with nothing left to do."""
        while missing := self._mounts.find_missing():
            try:
                await self._mounts.mount(*missing)
            except ProbeFailed as error:
                # Others of the version have it; this one is worth more without it than not at all.
                logger.error("%s goes without the adapter %s: %s", self._name, missing[0], error)  # noqa: TRY400
                self._mounts.drop(missing[0])

    async def _watch(self) -> None:
        probe = self._tools.make_probe(self._mounts.spec)
        failed = 0
        try:
            while failed < self._timing.failed_checks:
                await asyncio.sleep(self._timing.health_every_s)
                failed = 0 if await probe.is_healthy() else failed + 1
                if self._mounts.spec.drafting is not None and self._drafts.take(await probe.read_drafts()):
                    self._tell(EngineState.READY, drafts=self._drafts.total)
        finally:
            await probe.close()
        raise EngineFailed(f"the engine failed {failed} health checks in a row")

    async def _drain(self) -> None:
        """Wait until relays have no request under way there; from now on they send it none."""
        self._tell(EngineState.DRAINING, phase="finishing its answers")
        address = self._mounts.spec.address
        quiet_since_s = began_s = time.monotonic()
        while True:
            now_s, running = time.monotonic(), self._tools.traffic.count_running(address)
            if running or self._tools.traffic.is_routed(address):
                quiet_since_s = now_s
            elif now_s - quiet_since_s >= self._timing.quiet_s:
                return
            if now_s - began_s > self._timing.drain_s:
                if not self._want.is_leaving:  # it was only to sleep: that can wait
                    self._want.be_up()
                    return
                logger.warning("%s ends with %d answers cut: they took over %g s", self._name, running, now_s - began_s)
                return
            await asyncio.sleep(self._timing.poll_s)

    async def _doze(self) -> None:
        """Have the engine sleep by itself, for as long as nothing else is wanted."""
        probe = self._tools.make_probe(self._mounts.spec)
        try:
            await probe.fall_asleep()
            self._tell(EngineState.ASLEEP, phase="")
            await asyncio.Event().wait()
        finally:
            await probe.close()

    async def _rouse(self) -> None:
        """Wake an engine that sleeps, or was going to; it must answer."""
        self._tell(EngineState.STARTING, phase="waking", progress=None)
        probe = self._tools.make_probe(self._mounts.spec)
        try:
            await probe.wake_up()
            await probe.warm(is_visual=False)
            await self._catch_up()
        except ProbeFailed as error:
            raise EngineFailed(f"it did not wake: {error}") from error
        finally:
            await probe.close()

    def _tell(self, state: EngineState, **changes: Any) -> None:
        self._state = state
        self._update(state, **changes)
