"""Main module of the fork server: imports vLLM once, then forks one engine process per request.

For CPU engines only: CUDA does not survive a fork. It speaks JSON packets over the socket it inherits, has one thread,
and never runs a tensor operation before a fork, so that a child starts as clean as a new interpreter would.
"""

import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gateway.engines import launcher

PACKET_BYTES = 1 << 20
"""No packet on the control socket is longer; an environment and a command line fit many times."""

_MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.qwen2_5_vl",
)


@dataclass(frozen=True)
class ForkRequest:
    """One engine to start: what a new interpreter would get as `sys.argv[1:]`, environment, and output pipe."""

    number: int
    args: list[str]
    environment: dict[str, str]
    output_fd: int


class ForkServer:
    """Answers fork requests and reports how the forked processes ended. One instance, used by `main` only."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._child_pids: set[int] = set()

    def serve(self) -> ForkRequest | None:
        """Serve until the gateway closes the socket. Like fork it returns twice: in each child with its request."""
        wakeup_read, wakeup_write = os.pipe()
        for fd in (wakeup_read, wakeup_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        self.send(event="ready")
        control_fd = self._control.fileno()
        while True:
            ready, _, _ = select.select([control_fd, wakeup_read], [], [])
            if wakeup_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wakeup_read, 4096)
                self._report_ended()
            if control_fd in ready:
                request = self._receive()
                if request is None:
                    return None
                if self._fork(request) == 0:
                    _leave_server(self._control, (wakeup_read, wakeup_write))
                    return request
                os.close(request.output_fd)

    def send(self, **event: Any) -> None:
        """Report to the gateway; when it is gone there is nobody to tell."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(event).encode())

    def _receive(self) -> ForkRequest | None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._control, PACKET_BYTES, 1)
        except ConnectionError:
            return None
        if not packet:
            return None
        return ForkRequest(**json.loads(packet), output_fd=fds[0])

    def _fork(self, request: ForkRequest) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            # Both sides make the group, as shells do: whoever is first, nobody sees the child without it.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            self._child_pids.add(pid)
            self.send(event="forked", number=request.number, pid=pid)
        return pid

    def _report_ended(self) -> None:
        for pid in list(self._child_pids):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # Before the pid is released, so that the group's number cannot have passed to somebody else.
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._child_pids.discard(pid)
            self.send(event="ended", pid=pid, code=os.waitstatus_to_exitcode(status))


def main() -> NoReturn:
    """Run the fork server on the socket named in `sys.argv`, or the engine that this process has become by forking."""
    control = socket.socket(fileno=int(sys.argv[1]))
    own_environment = dict(os.environ)
    launcher.prepare_process()
    server = ForkServer(control)
    refusal = _import_engine()
    if refusal:
        server.send(event="refused", reason=refusal)
        launcher.leave(1)
    request = server.serve()
    if request is None:
        launcher.leave(0)
    become_engine(request, own_environment)
    _apply_import_time_settings()
    launcher.run_api_server()


def _import_engine() -> str | None:
    """Import everything an engine will need; the reason when this machine is not one to fork engines on."""
    import torch

    if torch.cuda.is_available():
        return "engines that use CUDA cannot be forked"
    # A thread pool in this process would be missing in its forks.
    torch.set_num_threads(1)
    for name in _MODULES:
        importlib.import_module(name)
    _guard_kernel_scan()
    _fork_everywhere()
    # Keeps the collector from touching, and so copying, the pages that all forks share.
    gc.collect()
    gc.freeze()
    return None


def _guard_kernel_scan() -> None:
    # vLLM's scan for kernels looks into every object of every loaded module and trips over a few of the many here.
    dispatcher: Any = importlib.import_module("vllm.triton_utils.dispatcher")

    def read_attributes(value: object) -> dict[str, Any]:
        attributes = vars(value)
        return attributes if isinstance(attributes, dict) else {}

    dispatcher.vars = read_attributes


def _fork_everywhere() -> None:
    # The CPU platform sets vLLM's choice back to spawn, so the choosing is replaced, in every module that took it.
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and hasattr(module, "get_mp_context"):
            vars(module)["get_mp_context"] = functools.partial(multiprocessing.get_context, "fork")


def _leave_server(control: socket.socket, wakeup_fds: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    for fd in wakeup_fds:
        os.close(fd)


def become_engine(request: ForkRequest, server_environment: dict[str, str]) -> None:
    """Give this fork the output, environment, command line and main module a new launcher process would have."""
    for fd in (1, 2):
        os.dup2(request.output_fd, fd)
    os.close(request.output_fd)
    for name in server_environment.keys() - request.environment.keys():
        os.environ.pop(name, None)
    # What vLLM set while it was imported stays, unless the engine's own environment says otherwise.
    os.environ.update(request.environment)
    os.environ[launcher.PARENT_VARIABLE] = str(os.getpid())
    launcher.adapt_environment()
    sys.argv = [launcher.__file__, *request.args]
    sys.modules["__main__"] = launcher
    os.register_at_fork(after_in_child=_leave_api_server(request.args))


def _apply_import_time_settings() -> None:
    """Repeat for this engine what torch and the model hub read from the environment only when they are imported."""
    import huggingface_hub.constants as hub
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(threads) if threads.isdigit() else os.cpu_count() or 1)
    hub.HF_HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _leave_api_server(args: list[str]) -> Callable[[], None]:
    """What a process forked by the API server has to give back: its signal wakeup and its listening socket."""
    address = _find_address(args)

    def leave() -> None:
        signal.set_wakeup_fd(-1)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in _socket_fds():
            if address is not None and _bound_to(fd, address):
                # Not closed: the socket object of the parent lives on here and would close the number's next user.
                os.dup2(nothing, fd)
        os.close(nothing)

    return leave


def _find_address(args: list[str]) -> str | None:
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == "--uds":
            return following
        if word.startswith("--uds="):
            return word.removeprefix("--uds=")
    return None


def _socket_fds() -> list[int]:
    found = []
    for fd in (int(link.name) for link in list(Path("/proc/self/fd").iterdir())):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
    return found


def _bound_to(fd: int, address: str) -> bool:
    copy = socket.socket(fileno=os.dup(fd))
    try:
        return copy.family == socket.AF_UNIX and copy.getsockname() == address
    finally:
        copy.close()


if __name__ == "__main__":
    main()
