"""One of the gateway's own processes, kept: started, listened to, started again when it ends or falls silent.

The only file that starts processes of our own; engines are started in `engines/process.py`.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.processes.channel import Channel
from gateway.processes.messages import AnyMessage, Up, Welcome
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)

_OVERSLEPT_S = 5.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run: a Python module, with the number of its channel's descriptor and then `args` as arguments.

    `fds` are open in the child under the same numbers.
    """

    name: str
    module: str
    args: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildTiming:
    """Seconds a child is kept by. One that dies is replaced at once; one that dies again soon, after a pause."""

    start_timeout_s: float = 60.0
    silence_s: float = 30.0
    look_every_s: float = 1.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    stable_after_s: float = 60.0


class Child:
    """Keeps a process from `run` until `stop`. `starts` counts its lives."""

    def __init__(
        self,
        spec: ChildSpec,
        timing: ChildTiming,
        welcome: Callable[[], Welcome],
        on_message: Callable[[AnyMessage], None],
    ) -> None:
        self.starts = 0
        self._spec = spec
        self._timing = timing
        self._welcome = welcome
        self._on_message = on_message
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._is_up = False
        self._heard_s = 0.0
        self._stopping = asyncio.Event()
        self._settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def came_up(self) -> bool:
        """Wait for the end of its first start: True when it answers, False when it ended instead; it says why."""
        return await asyncio.shield(self._settled)

    async def run(self) -> None:
        """Keep the process; returns when it was stopped, or when its first start failed."""
        pause_s = 0.0
        try:
            while not self._stopping.is_set():
                began_s = time.monotonic()
                how = await self._live()
                if self._stopping.is_set():
                    break
                if not self._settled.done():
                    logger.error("%s %s", self._spec.name, how)
                    return
                if time.monotonic() - began_s > self._timing.stable_after_s:
                    pause_s = 0.0
                logger.error("%s %s: it is started again%s", self._spec.name, how, f" in {pause_s:g} s" * bool(pause_s))
                await self._sleep(pause_s)
                pause_s = min(max(pause_s * 2, self._timing.first_pause_s), self._timing.longest_pause_s)
        finally:
            if not self._settled.done():
                self._settled.set_result(False)

    @property
    def is_up(self) -> bool:
        """True while it answers."""
        return self._is_up and self._process is not None

    def send(self, message: AnyMessage) -> None:
        """Tell it something; nothing happens while there is none."""
        if self._channel is not None:
            self._channel.send(message)

    def retire(self) -> None:
        """From now on it is not started again."""
        self._stopping.set()

    def stop(self) -> None:
        """Ask it to end (SIGTERM); it is not started again."""
        self.retire()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now; it is started again unless it was stopped."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live(self) -> str:
        """One life, from launch to end; how it ended, in words."""
        self._is_up = False
        self._heard_s = time.monotonic()
        self.starts += 1
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return f"could not be started ({error})"
        try:
            self._process = process = await self._launch(theirs)
        except OSError as error:
            ours.close()
            return f"could not be started ({error})"
        finally:
            theirs.close()
        try:
            self._channel = await Channel.open(ours, self._take, lambda: None)
            self._channel.send(self._welcome())
            if self._stopping.is_set():
                self.stop()
            return await self._watch(process)
        finally:
            if self._channel is not None:
                self._channel.close()
            self._channel = self._process = None
            if process.returncode is None:  # cancelled: nothing may be left behind
                process.kill()
                await process.wait()

    async def _launch(self, channel: socket.socket) -> asyncio.subprocess.Process:
        fds = (channel.fileno(), *self._spec.fds)
        return await asyncio.create_subprocess_exec(
            # -P: a file in the current folder must not stand in for a module.
            *(sys.executable, "-P", "-m", self._spec.module, str(channel.fileno()), *self._spec.args),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=fds,
            start_new_session=True,  # a terminal's Ctrl-C is for the main process, which passes it on
        )

    async def _watch(self, process: asyncio.subprocess.Process) -> str:
        tasks = TaskSet()
        ending = tasks.start(process.wait(), f"{self._spec.name} exit")
        silence, looked_s = "", time.monotonic()
        try:
            while not ending.done():
                await asyncio.wait((ending,), timeout=self._timing.look_every_s)
                now_s = time.monotonic()
                if now_s - looked_s > self._timing.look_every_s + _OVERSLEPT_S:
                    self._heard_s = now_s  # it was we who slept, perhaps with the whole machine
                looked_s = now_s
                allowed_s = self._timing.silence_s if self._is_up else self._timing.start_timeout_s
                if not silence and now_s - self._heard_s > allowed_s:
                    silence = f"said nothing for {allowed_s:g} s and was killed"
                    self.kill()
        finally:
            await tasks.close()
        code = ending.result()
        return silence or (f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")

    def _take(self, message: AnyMessage) -> None:
        self._heard_s = time.monotonic()
        if isinstance(message, Up):
            self._is_up = True
            if not self._settled.done():
                self._settled.set_result(True)
        else:
            self._on_message(message)

    async def _sleep(self, pause_s: float) -> None:
        if pause_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
