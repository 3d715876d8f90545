"""A gateway as those who started it see it, the folder its processes share, and the main function of its children."""

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from gateway.engines.supervisor import Supervisor
from gateway.settings import Settings
from gateway.telemetry.logs import configure_logs


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running gateway. Ports are the real ones, also where 0 was asked for."""

    engines: Supervisor
    public_url: str
    admin_url: str


OnUp = Callable[[Gateway], Coroutine[Any, Any, None]]
"""What runs beside a gateway once both ports answer."""


def dump_settings(settings: Settings) -> bytes:
    """The whole tree as JSON, with the admin key, which the model itself would not tell."""
    data: dict[str, Any] = settings.model_dump(mode="json")
    data["admin"]["key"] = settings.admin.secret
    return json.dumps(data).encode()


@contextlib.contextmanager
def runtime_dir(settings: Settings) -> Iterator[Path]:
    """The folder for sockets, private to this user; a folder of our own making is removed at the end."""
    if settings.engines.runtime_dir is not None:
        settings.engines.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield settings.engines.runtime_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_child(serve: Callable[[int, list[socket.socket]], Coroutine[Any, Any, int]]) -> NoReturn:
    """The main function of control and of each relay.

    `serve` gets the channel's descriptor and the sockets that are to be served; all are open already, their numbers
    stand in the command line: CHANNEL, the level of the log, SOCKET...
    """
    channel_fd, level, *fds = sys.argv[1:]
    configure_logs(level)

    async def run() -> int:
        return await serve(int(channel_fd), [socket.socket(fileno=int(fd)) for fd in fds])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run()))
