"""Listening: sockets, uvicorn servers on them, and the addresses to show."""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)

_BACKLOG = 2048


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: new requests get an answer while running ones are drained."""

    serving: "asyncio.Task[None]"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_on(sockets: list[socket.socket], app: Any, tasks: TaskSet, protocol: Any = "httptools") -> Server:
    """Serve `app` on sockets that listen already; returns once it does."""
    config = uvicorn.Config(
        app, loop="none", http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=2, timeout_keep_alive=75, backlog=_BACKLOG,
    )  # fmt: skip
    server = Server(config)
    server.serving = tasks.start(server.serve(sockets), "serve a port")
    while not server.started and not server.serving.done():
        await asyncio.sleep(0.005)
    return server


def bind(host: str, port: int, shares: int = 1) -> list[list[socket.socket]]:
    """Listen on every address of `host`, once for each of `shares`, over which the kernel spreads the connections.

    Gives the sockets of each share; nothing, with the reason logged, when the port can't be had. Who connects before
    anybody serves waits. Port 0 takes any free one.
    """
    made: list[list[socket.socket]] = [[] for _ in range(shares)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            where = (address[0], port, *address[2:])
            if shares > 1:
                # Sharing would silently join another gateway on the same port; a socket that does not share finds it.
                _bind_one(family, where, is_shared=False).close()
            for share in made:
                share.append(_bind_one(family, where, is_shared=shares > 1))
                where = share[-1].getsockname()
                share[-1].listen(_BACKLOG)
            port = where[1]
    except OSError as error:
        for one in itertools.chain(*made):
            one.close()
        logger.error("nothing can listen on %s:%d: %s", host, port, error)  # noqa: TRY400 - a sentence is enough
        return []
    return made


def _bind_one(family: int, address: tuple[Any, ...], *, is_shared: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 and :: are two addresses
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def show_url(listener: socket.socket) -> str:
    """The URL to show for a socket: where all interfaces are listened on, the loopback one."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to show, not to bind
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
