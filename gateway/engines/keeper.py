"""The life of one engine: start it, see that it answers, watch it, restart it with growing pauses, stop it.

A keeper is the one writer of its engine's status. It never trusts an exit code of 0 nor an open port: ready means that
a real token came out, and any exit that was not asked for is a failure.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from gateway.engines.engine import (
    Admission,
    EngineSpec,
    EngineState,
    EngineStatus,
    ProbeFailed,
    SmokePrompt,
)
from gateway.engines.mounts import MountProbe, Mounts, find_smoke
from gateway.engines.process import EngineProcess, Spawner
from gateway.engines.progress import LoadProgress
from gateway.engines.settling import Fetch, settle
from gateway.sources import SourceFailed
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TOLD_LINES = 400  # the root of a failure stands far above the last line


class EngineProbe(MountProbe, Protocol):
    """The questions a keeper asks; `probe.Probe` is the real one."""

    async def is_healthy(self) -> bool: ...
    async def read_max_model_len(self) -> int | None: ...
    async def warm(
        self, *, is_visual: bool, adapters: tuple[str, ...] = (), smoke: tuple[SmokePrompt, ...] = ()
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class KeeperTiming:
    """Seconds and counts a keeper lives by."""

    start_timeout_s: float = 900.0
    poll_s: float = 0.2
    health_every_s: float = 5.0
    failed_checks: int = 6
    stop_grace_s: float = 8.0
    last_words_s: float = 3.0
    unload_after_s: float = 60.0
    mount_timeout_s: float = 100.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    stable_after_s: float = 120.0


@dataclass(frozen=True, slots=True)
class KeeperTools:
    """What keepers act through.

    `fetch` gets files of other machines; `admit` looks at a spec's files and may block; engines that can be forked go
    to `fork_spawner`, where there is one; `explain` turns last lines and an exit code into a sentence; `slots` bounds
    how many engines load at once; `turns` keeps them in the order in which they were asked for.
    """

    spawner: Spawner
    fork_spawner: Spawner | None
    make_probe: Callable[[EngineSpec], EngineProbe]
    fetch: Fetch
    admit: Callable[[EngineSpec], Admission]
    explain: Callable[[list[str], int], str]
    slots: asyncio.Semaphore
    turns: asyncio.Lock
    on_change: Callable[[EngineStatus], None]


class EngineFailed(Exception):
    """The engine is gone or of no use; `is_final`: trying again as it is cannot help."""

    def __init__(self, reason: str, tail: list[str] | None = None, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tail = tuple(tail or ())
        self.is_final = is_final


class EngineKeeper:
    """Keeps one engine alive from `run` until `stop`."""

    def __init__(self, spec: EngineSpec, tools: KeeperTools, timing: KeeperTiming) -> None:
        self.mounts = Mounts(spec, tools.make_probe)
        self.served_name = spec.served_name
        folder = None if spec.checkpoint is None else str(spec.checkpoint)
        self.status = EngineStatus(
            spec.name, spec.model, spec.version, EngineState.STARTING, time.time(), checkpoint=folder,
            adapters=tuple(name for name, _ in spec.adapters),
        )  # fmt: skip
        self._tools = tools
        self._timing = timing
        self._stopping = asyncio.Event()
        self._process: EngineProcess | None = None
        self._started_s = 0.0
        self._up_since_s = 0.0
        self._is_up = False
        self._has_been_up = False

    async def run(self) -> None:
        """Live the engine's life; returns when it was stopped or failed for good."""
        try:
            await self._live_and_restart()
        finally:
            if self._process is not None:  # cancelled: nothing may be left behind
                self._process.kill()

    async def _live_and_restart(self) -> None:
        pause_s = self._timing.first_pause_s
        while not self._stopping.is_set():
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - the root of an engine's life: whatever happens, it is told
                if self._stopping.is_set():
                    break
                failure = _as_failure(error)
                has_been_stable = self._was_ready_for() > self._timing.stable_after_s
                pause_s = self._timing.first_pause_s if has_been_stable else pause_s
                self._fail(failure, pause_s)
                await self._end_process()
                if failure.is_final:
                    return
                await self._sleep(pause_s)
                pause_s = min(pause_s * 2, self._timing.longest_pause_s)
                self._update(EngineState.STARTING, restarts=self.status.restarts + 1, next_try_at=None, phase="")
        await self._end_process()
        self._update(EngineState.STOPPED, phase="", pid=None, next_try_at=None)

    def stop(self) -> None:
        """Ask the engine to end: SIGTERM, a grace time, SIGKILL to its whole group. `run` returns soon after."""
        if not self._stopping.is_set():
            if self.status.state is not EngineState.FAILED:
                self._update(EngineState.DRAINING, phase="stopping")
            self._stopping.set()

    @property
    def spec(self) -> EngineSpec:
        """What it keeps, as its next life begins."""
        return self.mounts.spec

    def hold(self, spec: EngineSpec, digests: Mapping[str, str]) -> None:
        """From here on these are the engine's adapters, in its next life too. Tells nobody: see `tell`."""
        self.mounts.hold(spec, digests)
        self.status = replace(self.status, **self._describe_adapters())

    def tell(self) -> None:
        """Tell what the status is now."""
        self._tools.on_change(self.status)

    def _describe_adapters(self) -> dict[str, Any]:
        mounts, is_up = self.mounts, self._is_up
        return {"adapters": mounts.list_names(is_up=is_up), "digests": mounts.list_digests(is_up=is_up)}

    async def _live(self) -> None:
        """One life from launch to end. Raises EngineFailed unless it was stopped."""
        await self._settle()
        if self._stopping.is_set():
            return
        self._update(EngineState.STARTING, phase="checking the checkpoint", progress=0.0)
        async with self._tools.turns:
            spec = self.spec
            admission = await asyncio.to_thread(self._tools.admit, spec)
        if admission.fault is not None:
            # What was served before may only be out of reach for a moment.
            raise EngineFailed(admission.fault, is_final=not self._has_been_up)
        if self._tools.slots.locked():
            self._update(EngineState.STARTING, phase="waiting for another engine to load")
        async with self._tools.slots:
            if self._stopping.is_set():
                return
            process = await self._unless_stopped(self._launch(spec), "launch")
            if process is None:
                return
            await self._guard(process, self._bring_up(spec, admission), self._timing.start_timeout_s)
        if not self._stopping.is_set():
            await self._guard(process, self._watch(), None)

    async def _settle(self) -> None:
        """Fetch what lies elsewhere, once. Raises EngineFailed."""

        def note(phase: str, fraction: float) -> None:
            if not self._stopping.is_set():
                self._update(EngineState.STARTING, phase=phase, progress=fraction)

        try:
            spec = await self._unless_stopped(settle(self.spec, self._tools.fetch, note), "fetch")
        except SourceFailed as failure:
            raise EngineFailed(str(failure), is_final=failure.is_final) from failure
        if spec is not None and spec is not self.spec:
            self.mounts.spec = spec
            self.status = replace(self.status, checkpoint=None if spec.checkpoint is None else str(spec.checkpoint))

    async def _unless_stopped(self, work: Coroutine[None, None, T], name: str) -> T | None:
        """Do `work`; give up at once when told to stop, since loading vLLM, or a checkpoint, takes its time."""
        tasks = TaskSet()
        working = tasks.start(_outcome_of(work), f"{self.spec.name} {name}")
        stopping = tasks.start(self._stopping.wait(), f"{self.spec.name} stop")
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.close()
        if working.cancelled():
            return None
        outcome = working.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _launch(self, spec: EngineSpec) -> EngineProcess:
        self._started_s = time.monotonic()
        self.spec.socket.unlink(missing_ok=True)  # vLLM neither removes nor reuses a socket file
        progress = LoadProgress()

        def note(line: str) -> None:
            logger.debug("%s | %s", self.spec.name, line)
            if self.status.state is EngineState.STARTING and progress.read(line):
                self._update(EngineState.STARTING, phase=progress.phase, progress=progress.fraction)

        self._update(EngineState.STARTING, phase="loading", progress=0.02)
        try:
            forking = self._tools.fork_spawner if self.spec.can_fork else None
            self._process = await (forking or self._tools.spawner).spawn(spec.build_launch(), note)
        except ValueError as error:
            raise EngineFailed(str(error), is_final=True) from error
        except OSError as error:
            raise EngineFailed(f"the engine could not be launched: {error}") from error
        self._update(EngineState.STARTING, pid=self._process.pid)
        return self._process

    async def _guard(self, process: EngineProcess, work: Coroutine[None, None, None], timeout_s: float | None) -> None:
        """Do `work` while the process lives and nobody wants it stopped. Raises EngineFailed when the process ends."""
        tasks = TaskSet()
        working = tasks.start(_outcome_of(work), f"{self.spec.name} work")
        ending = tasks.start(process.wait(), f"{self.spec.name} exit")
        stopping = tasks.start(self._stopping.wait(), f"{self.spec.name} stop")
        try:
            done, _ = await asyncio.wait(
                (working, ending, stopping), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await tasks.close()
        if stopping in done:
            return
        if ending in done:
            code = ending.result()
            reason = self._explain(process, code)
            # vLLM exits with 2 for flags it does not know: no restart mends that.
            raise EngineFailed(reason, process.tail(), is_final=code == 2 and not self._is_up)
        if not done:
            raise EngineFailed(f"the engine was not ready within {timeout_s:g} s", process.tail())
        if isinstance(error := working.result(), Exception):
            failure = _as_failure(error)
            is_warming = self.status.state is EngineState.WARMING
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
        is_warming = self.status.state is EngineState.WARMING
        return f"it started, and died at its first request: {reason}" if is_warming else reason

    async def _bring_up(self, spec: EngineSpec, admission: Admission) -> None:
        """From launch to ready. `spec` is what was launched; adapters may have been added meanwhile."""
        probe = self._tools.make_probe(spec)
        try:
            while not await probe.is_healthy():
                await asyncio.sleep(self._timing.poll_s)
            self._update(EngineState.WARMING, phase="waiting for a first token", progress=0.95)
            adapters = tuple(name for name, _ in spec.adapters)
            await probe.warm(is_visual=admission.is_visual, adapters=adapters, smoke=find_smoke(spec))
            length = await probe.read_max_model_len()
            if admission.digests and (await asyncio.to_thread(self._tools.admit, spec)).digests != admission.digests:
                raise EngineFailed("the checkpoint's files changed while the engine loaded them")
        except ProbeFailed as error:
            # What has answered rightly before may do so again.
            raise EngineFailed(str(error), is_final=error.is_final and not self._has_been_up) from error
        finally:
            await probe.close()
        self.mounts.begin(spec, admission.digests)
        await self._catch_up()
        self._is_up = self._has_been_up = True
        self._up_since_s = time.monotonic()
        self._update(
            EngineState.READY, phase="", progress=None, reason=None, tail=(), max_model_len=length,
            ready_after_s=time.monotonic() - self._started_s, **self._describe_adapters(),
        )  # fmt: skip

    async def _catch_up(self) -> None:
        """Mount what was asked for while the engine loaded. Returns with nothing left to do."""
        while missing := self.mounts.find_missing():
            try:
                await self.mounts.mount(*missing)
            except ProbeFailed as error:
                # Others of the version have it; this one is worth more without it than not at all.
                logger.error("%s goes without the adapter %s: %s", self.spec.name, missing[0], error)  # noqa: TRY400
                self.mounts.drop(missing[0])

    async def _watch(self) -> None:
        probe = self._tools.make_probe(self.spec)
        failed = 0
        try:
            while failed < self._timing.failed_checks:
                await asyncio.sleep(self._timing.health_every_s)
                failed = 0 if await probe.is_healthy() else failed + 1
        finally:
            await probe.close()
        raise EngineFailed(f"the engine failed {failed} health checks in a row")

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        self.mounts.end()
        if process is None:
            return
        # vLLM takes no SIGTERM while it loads.
        if self._is_up and self._stopping.is_set():
            process.terminate()
            try:
                async with asyncio.timeout(self._timing.stop_grace_s):
                    await process.wait()
            except TimeoutError:
                logger.warning(
                    "%s did not end within %g s of SIGTERM: killing it", self.spec.name, self._timing.stop_grace_s
                )
        self._is_up = False
        process.kill()
        await process.wait()
        self.spec.socket.unlink(missing_ok=True)

    async def _sleep(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _was_ready_for(self) -> float:
        return time.monotonic() - self._up_since_s if self._is_up else 0.0

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


def _as_failure(error: Exception) -> EngineFailed:
    if isinstance(error, EngineFailed):
        return error
    logger.error("an engine's keeper met something unforeseen", exc_info=error)
    return EngineFailed(f"the gateway could not keep it: {error!r}")


async def _outcome_of(work: Coroutine[None, None, T]) -> T | Exception:
    """Await `work`; its failure becomes a value, since it is an expected end of a task."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - handed on to the one who waits
        return error
