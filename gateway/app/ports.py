"""Listening: sockets, uvicorn servers on them, and the addresses to show."""

import asyncio
import contextlib
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

    @property
    def url(self) -> str:
        """The address to show."""
        return show_url(self.servers[0].sockets[0].getsockname())


async def listen(
    app: Any, at: tuple[str, int] | socket.socket, tasks: TaskSet, protocol: Any = "httptools"
) -> Server | None:
    """Start a server at host and port, or on a bound socket, and wait until it listens.

    None, with the reason logged, if it can't.
    """
    host, port = at if isinstance(at, tuple) else at.getsockname()[:2]
    config = uvicorn.Config(
        app, host=host, port=port, loop="none", http=protocol, ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=2, timeout_keep_alive=75, backlog=_BACKLOG,
    )  # fmt: skip
    server = Server(config)
    sockets = [at] if isinstance(at, socket.socket) else None
    server.serving = serving = tasks.start(_serve_forever(server, sockets), f"serve {host}:{port}")
    while not server.started:
        if serving.done():
            logger.error("nothing can listen on %s:%d: is another program using the port?", host, port)
            return None
        await asyncio.sleep(0.005)
    return server


async def _serve_forever(server: Server, sockets: list[socket.socket] | None) -> None:
    try:
        await server.serve(sockets)
    except SystemExit:  # how uvicorn says that it could not bind
        return


def bind_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets that listen on one port, of which each gets its share of the connections (SO_REUSEPORT).

    Raises OSError when the port can't be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sockets: list[socket.socket] = []
    try:
        # Sharing would silently join another gateway on the same port; a socket that does not share finds it.
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        for _ in range(count):
            shared = socket.socket(family, kind, protocol)
            sockets.append(shared)
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            shared.bind(sockets[0].getsockname() if len(sockets) > 1 else address)
            shared.listen(_BACKLOG)  # from here on others find the port taken; who connects already waits
    except OSError:
        for shared in sockets:
            shared.close()
        raise
    return sockets


def bind_or_say(host: str, port: int, count: int) -> list[socket.socket]:
    """What `bind_shared` gives; none, with the reason logged, when the port can't be had."""
    try:
        return bind_shared(host, port, count)
    except OSError as error:
        logger.error("nothing can listen on %s:%d: %s", host, port, error)  # noqa: TRY400 - a sentence is enough
        return []


def show_url(address: tuple[Any, ...]) -> str:
    """The URL to show for a socket's address: where all interfaces are listened on, the loopback one."""
    host, port = address[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to show, not to bind
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
