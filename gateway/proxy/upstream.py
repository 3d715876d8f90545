"""The HTTP/1.1 client to engines: small, pooled, over httptools; unix sockets and TCP.

The only place that opens connections to engines. One goes back to its pool when its answer has ended cleanly.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.errors import ClientStalled, Draining, NoReplica, UpstreamFailed, UpstreamTimeout
from gateway.proxy.exchange import LOST, AnswerHead, Connection, Exchange, Reader
from gateway.proxy.head_memo import HeadMemo
from gateway.proxy.pieces import Piece
from gateway.tasks import TaskSet

_MAX_IDLE_S = 4.0  # the engine's own server closes idle connections after 5 s
_MAX_IDLE_CONNECTIONS = 256
_CONNECT_TIMEOUT_S = 5.0
_SWEEP_S = 0.25


class Upstream:
    """Connections to all engines, kept by address, and the clock that exchanges live under. Times in seconds."""

    def __init__(self, *, first_byte_timeout_s: float, idle_timeout_s: float) -> None:
        self._first_byte_timeout_s = first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time
        self._idle: dict[str, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._known_heads = HeadMemo[AnswerHead](b"date")
        self._running: set[Exchange] = set()
        self._connecting = TaskSet()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    def request(self, address: str, head: bytes, body: Sequence[Piece], reader: Reader) -> Exchange:
        """Send a request (`head` with its blank line, `body` in pieces) to the engine at `address`.

        Returns at once; `reader` is told everything later. It gets NoReplica when nobody listens, UpstreamFailed or
        UpstreamTimeout when the answer does not begin or breaks.
        """
        exchange = Exchange(self, address, head, body, reader)
        self._running.add(exchange)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        connection = self._take(address)
        if connection is not None:
            exchange.start(connection, is_kept=True)
        else:
            self.connect(address, exchange)
        return exchange

    def connect(self, address: str, exchange: Exchange) -> None:
        """Open a connection for `exchange` and start it there."""
        self._connecting.start(self._connect(address, exchange), "connect to an engine")

    def close(self) -> None:
        """Close every connection, those with an answer under way too, and open no more."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.close()

    # What exchanges call.

    def forget(self, exchange: Exchange) -> None:
        """`exchange` is over."""
        self._running.discard(exchange)

    def put_back(self, address: str, connection: Connection, *, can_be_reused: bool) -> None:
        """Keep a connection for the next request, or close it."""
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle[address] = deque()
        now_s = self.now_s()
        while idle and idle[0].idle_since_s < now_s - _MAX_IDLE_S:
            idle.popleft().close()
        if can_be_reused and connection.is_written_out and len(idle) < _MAX_IDLE_CONNECTIONS:
            connection.idle_since_s = now_s
            idle.append(connection)
        else:
            connection.close()

    def _take(self, address: str) -> Connection | None:
        idle = self._idle.get(address)
        oldest_allowed_s = self.now_s() - _MAX_IDLE_S
        while idle:
            connection = idle.pop()
            if connection.is_open and connection.idle_since_s > oldest_allowed_s:
                return connection
            connection.close()
        return None

    async def _connect(self, address: str, exchange: Exchange) -> None:
        if self._is_closed:
            exchange.fail(_draining())
            return
        parts = urlsplit(address)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if parts.scheme == "unix":
                    _, connection = await self._loop.create_unix_connection(self._new_connection, parts.path)
                else:
                    _, connection = await self._loop.create_connection(
                        self._new_connection, parts.hostname or "", parts.port or 80
                    )
        except (OSError, TimeoutError, ValueError):  # ValueError: a name that cannot be looked up
            message = "The engine that serves this model cannot be reached right now: try again shortly."
            exchange.fail(NoReplica(message, retry_after_s=1))
            return
        if exchange.is_over or self._is_closed:
            connection.close()
            exchange.fail(_draining())
        elif not connection.is_open:
            exchange.fail(UpstreamFailed(LOST))
        else:
            exchange.start(connection, is_kept=False)

    def _new_connection(self) -> Connection:
        return Connection(self._open, self._known_heads)

    def _sweep(self) -> None:
        """Fail what has been silent for too long. One timer for all: a token must not cost one."""
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._running else None
        now_s = self.now_s()
        for exchange in list(self._running):
            if exchange.paused_s is not None:
                if now_s - exchange.paused_s > self._idle_timeout_s:
                    exchange.fail(ClientStalled(f"The client took nothing for {self._idle_timeout_s:g} s."))
            elif not exchange.has_head:
                if now_s - exchange.started_s > self._first_byte_timeout_s:
                    limit = f"{self._first_byte_timeout_s:g}"
                    exchange.fail(UpstreamTimeout(f"The engine did not begin its answer within {limit} s."))
            elif exchange.has_moved:
                exchange.has_moved, exchange.last_s = False, now_s
            elif now_s - exchange.last_s > self._idle_timeout_s:
                limit = f"{self._idle_timeout_s:g}"
                exchange.fail(UpstreamTimeout(f"The engine did not go on with its answer within {limit} s."))


def _draining() -> Draining:
    return Draining("This gateway is shutting down: send the request to another one.", retry_after_s=5)


def write_head(address: str, path: str, lines: bytes, request_id: str, body_length: int) -> bytes:
    """The head of a POST to the engine at `address`, with its blank line; `lines` are header lines to pass on."""
    first = _write_first_lines(address, path)
    return b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (first, body_length, request_id.encode(), lines)


@lru_cache
def _write_first_lines(address: str, path: str) -> bytes:
    host = "engine" if address.startswith("unix:") else address.removeprefix("http://").rstrip("/")
    return f"POST {path} HTTP/1.1\r\nhost: {host}\r\n".encode()
