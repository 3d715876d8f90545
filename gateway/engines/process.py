"""Starts and signals engine processes; the only file that does.

Knows nothing of what runs in them and never restarts one: it reports the end, the supervisor judges it.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.engines import forkserver, launcher
from gateway.engines.output import OnLine, OutputTail

logger = logging.getLogger(__name__)

_STORE_LOGINS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_", "GOOGLE_APPLICATION_CREDENTIALS")
_OUTPUT_GRACE_S = 1.0
_FORK_SERVER_START_S = 300.0
_FORK_SERVER_STOP_S = 5.0


class LaunchFailed(OSError):
    """An engine process could not be started; the message is a sentence for people."""


@dataclass(frozen=True)
class LaunchSpec:
    """What to start: a Python module run as main, with arguments, and variables added to the gateway's environment."""

    name: str
    module: str
    args: tuple[str, ...]
    env: Mapping[str, str]


class EngineProcess:
    """A process and its group, running or ended. Made by a spawner, which also reports how it ended."""

    def __init__(self, pid: int, output: OutputTail, close_output: Callable[[], None]) -> None:
        self.pid = pid
        self._output = output
        self._close_output = close_output
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._code: int | None = None
        self._has_output_ended = False
        self._grace: asyncio.TimerHandle | None = None

    def tail(self, lines: int = 20) -> list[str]:
        """The last output lines, oldest first; a few hundred are kept."""
        return self._output.lines(lines)

    async def wait(self) -> int:
        """The exit code, negative for a signal. Any number of callers may wait; the output is complete by then."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM, to it alone). Does nothing once it has."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and its whole group now. Does nothing once it has ended: its group was killed then."""
        if self._code is None:
            self._kill_group()

    def report_exit(self, code: int) -> None:
        """For the spawner: the process is gone. Kills what it left behind in its group."""
        if self._code is not None:
            return
        self._code = code
        self._kill_group()
        # Somebody who left the group may hold the output open: not worth waiting for.
        self._grace = self._loop.call_later(_OUTPUT_GRACE_S, self._close_output)
        self._settle()

    def report_output_end(self) -> None:
        """For the spawner: no more output will come."""
        if not self._has_output_ended:
            self._has_output_ended = True
            self._output.end()
            self._settle()

    def _settle(self) -> None:
        if self._code is not None and self._has_output_ended and not self._ended.done():
            self._ended.set_result(self._code)
            if self._grace is not None:
                self._grace.cancel()

    def _kill_group(self) -> None:
        # A group keeps its number from being given to others for as long as it has a member.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Spawner(Protocol):
    """Starts engine processes. Used on the main thread only: a process dies with the thread that started it."""

    async def spawn(self, spec: LaunchSpec, on_line: OnLine | None = None) -> EngineProcess:
        """Start a process in a group of its own. `on_line` gets each output line. Raises LaunchFailed."""

    async def close(self) -> None:
        """Give up what the spawner holds. Engines are to be ended before."""


class DirectSpawner:
    """Starts each engine as a new Python interpreter."""

    async def spawn(self, spec: LaunchSpec, on_line: OnLine | None = None) -> EngineProcess:
        """Start the process. Raises LaunchFailed when the system refuses (no memory, no process slots)."""
        return await _start_interpreter(spec, OutputTail(on_line))

    async def close(self) -> None:
        """Nothing is held."""


async def _start_interpreter(spec: LaunchSpec, output: OutputTail, pass_fds: tuple[int, ...] = ()) -> EngineProcess:
    try:
        _, protocol = await asyncio.get_running_loop().subprocess_exec(
            lambda: _InterpreterProtocol(output),
            # -P: a file in the current folder must not stand in for a module of the engine.
            *(sys.executable, "-P", "-m", spec.module, *spec.args),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_full_environment(spec),
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as failure:
        raise LaunchFailed(f"{spec.name}: the system did not start a process: {failure}") from failure
    return protocol.process


def _full_environment(spec: LaunchSpec) -> dict[str, str]:
    # The gateway's own variables hold its keys: a checkpoint's code must not find them. Nor those of stores, where the
    # engine has no business there: a version's own `env` may say otherwise.
    kept_back = ("GATEWAY_", *_STORE_LOGINS) if spec.env.get("HF_HUB_OFFLINE") == "1" else ("GATEWAY_",)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(kept_back)}
    return {**inherited, **spec.env, launcher.PARENT_VARIABLE: str(os.getpid())}


class _InterpreterProtocol(asyncio.SubprocessProtocol):
    process: EngineProcess
    _transport: Any  # of the event loop's own kind

    def __init__(self, output: OutputTail) -> None:
        self._output = output

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.process = EngineProcess(self._transport.get_pid(), self._output, self._transport.close)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output.feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.process.report_output_end()

    def process_exited(self) -> None:
        self.process.report_exit(self._transport.get_returncode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()


class ForkSpawner:
    """Forks engines from one process that has imported vLLM already; for engines on the CPU only.

    The fork server starts with the first engine. When it dies its engines die with it; the next spawn starts another.
    """

    def __init__(self, server_module: str = forkserver.__name__) -> None:
        self._server_module = server_module
        self._server: _ForkServer | None = None
        self._starting = asyncio.Lock()

    async def spawn(self, spec: LaunchSpec, on_line: OnLine | None = None) -> EngineProcess:
        """Fork an engine. Raises LaunchFailed when the fork server can't start, refuses or dies."""
        if spec.module != launcher.__name__:
            raise LaunchFailed(f"{spec.name}: only {launcher.__name__} can be forked, not {spec.module}")
        async with self._starting:
            if self._server is not None and self._server.has_ended:
                await self._server.stop()  # dead, but perhaps not yet gone
                self._server = None
            if self._server is None:
                self._server = await _ForkServer.start(self._server_module, spec)
            server = self._server
        return await server.fork(spec, on_line)

    async def close(self) -> None:
        """End the fork server, and with it any engine that still runs."""
        if self._server is not None:
            await self._server.stop()


class _ForkServer:
    """The gateway's end of the fork server: sends requests, and tells each forked engine's process how it ended."""

    def __init__(self, control: socket.socket) -> None:
        self.has_ended = False
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._process: EngineProcess | None = None
        self._refusal: str | None = None
        self._pending: dict[int, tuple[asyncio.Future[EngineProcess], _PipeProtocol]] = {}
        self._engines: dict[int, EngineProcess] = {}
        self._request_count = 0

    @classmethod
    async def start(cls, module: str, spec: LaunchSpec) -> "_ForkServer":
        """Start one whose environment while importing is that of `spec`, the first engine."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        server = cls(ours)
        own = LaunchSpec(
            name="fork server",
            module=module,
            args=(str(theirs.fileno()),),
            env={**spec.env, "OMP_NUM_THREADS": "1"},
        )
        try:
            server._process = await _start_interpreter(own, OutputTail(), pass_fds=(theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        server._loop.add_reader(ours.fileno(), server._read_events)
        return server

    async def fork(self, spec: LaunchSpec, on_line: OnLine | None) -> EngineProcess:
        """Fork an engine; waits for the server's imports when they still run."""
        read_fd, write_fd = os.pipe()
        protocol = _PipeProtocol(OutputTail(on_line))
        forked: asyncio.Future[EngineProcess] = self._loop.create_future()
        try:
            await self._loop.connect_read_pipe(lambda: protocol, os.fdopen(read_fd, "rb", buffering=0))
            self._request_count += 1
            self._pending[self._request_count] = (forked, protocol)
            request = {"number": self._request_count, "args": spec.args, "environment": _full_environment(spec)}
            socket.send_fds(self._control, [json.dumps(request).encode()], [write_fd])
            async with asyncio.timeout(_FORK_SERVER_START_S):
                return await forked
        except (OSError, TimeoutError) as failure:
            protocol.close()
            forked.cancel()  # should it come to life yet, it is killed
            raise LaunchFailed(f"{spec.name}: {await self._explain(failure)}") from failure
        finally:
            os.close(write_fd)

    async def stop(self) -> None:
        """End the server by hanging up, by force when it does not react."""
        if self._process is None:
            return
        self._end()
        try:
            async with asyncio.timeout(_FORK_SERVER_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    packet = self._control.recv(forkserver.PACKET_BYTES)
                except ConnectionError:
                    continue  # said once, before what the server had still sent
                if not packet:
                    self._end()
                    return
                self._handle(json.loads(packet))

    def _handle(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "forked":
                forked, protocol = self._pending.pop(event["number"])
                process = EngineProcess(event["pid"], protocol.output, protocol.close)
                protocol.process = process
                self._engines[process.pid] = process
                if forked.cancelled():
                    process.kill()
                else:
                    forked.set_result(process)
            case "ended":
                self._engines.pop(event["pid"]).report_exit(event["code"])
            case "refused":
                self._refusal = event["reason"]

    async def _explain(self, failure: Exception) -> str:
        if isinstance(failure, TimeoutError):
            return f"no answer from the fork server within {_FORK_SERVER_START_S:.0f} s"
        if not isinstance(failure, ConnectionError) or self._process is None:
            return str(failure)
        if not self.has_ended:
            self._read_events()
        if self._refusal is not None:
            return self._refusal
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FORK_SERVER_STOP_S):
                await self._process.wait()  # its last line may still be on the way
        return ": ".join(("the fork server died", *self._process.tail(1)))

    def _end(self) -> None:
        """No more comes from the server: who waits for a fork gets an error, and its engines count as ended."""
        if self.has_ended:
            return
        self.has_ended = True
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for forked, _ in self._pending.values():
            if not forked.done():
                forked.set_exception(ConnectionError("the fork server is gone"))
        # The kernel kills them too, since they are bound to the server's life; this does not wait for it.
        for process in self._engines.values():
            process.report_exit(-signal.SIGKILL)
        if self._engines:
            logger.error("the fork server ended, and with it %d of its engines", len(self._engines))
        self._pending.clear()
        self._engines.clear()


class _PipeProtocol(asyncio.Protocol):
    """Reads a forked engine's output."""

    def __init__(self, output: OutputTail) -> None:
        self.output = output
        self.process: EngineProcess | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.output.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.process is not None:
            self.process.report_output_end()

    def close(self) -> None:
        self._transport.close()
