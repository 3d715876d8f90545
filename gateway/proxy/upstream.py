"""The HTTP/1.1 client to engines: small, pooled, over httptools; unix sockets and TCP.

The only place that opens connections to engines. A connection carries one exchange at a time and goes back to its pool
when the answer has ended cleanly; any doubt closes it.
"""

import asyncio
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import httptools

from gateway.errors import Draining, Headers, NoReplica, UpstreamFailed, UpstreamTimeout

_HIGH_WATER_BYTES = 256 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_JOINED_BYTES = 64 * 1024  # below it one write is cheaper than a copy saved
_MAX_IDLE_S = 4.0  # the engine's own server closes idle connections after 5 s
_STALE_WITHIN_S = 0.5  # lost later, it was lost at work: the request must not be sent again
_MAX_IDLE_CONNECTIONS = 256
_CONNECT_TIMEOUT_S = 5.0


class ConnectionLost(UpstreamFailed):
    """The engine closed the connection before its answer had ended; `is_untouched`: before its first byte."""

    def __init__(self, message: str, *, is_untouched: bool) -> None:
        super().__init__(message)
        self.is_untouched = is_untouched


class _Connection(asyncio.Protocol):
    """One connection and the answer being read from it. All methods run on the event loop's thread."""

    def __init__(self, register: "set[_Connection]") -> None:
        self.transport: asyncio.Transport | None = None
        self._register = register
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: Headers = []
        self._chunks: deque[bytes] = deque()
        self.buffered_bytes = 0
        self._head_bytes = 0
        self._has_head = False
        self._has_ended = False
        self._has_bytes = False
        self._is_kept_alive = False
        self._failure: UpstreamFailed | None = None
        self._is_read_paused = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports have another base
        self._register.add(self)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:  # nobody asked: these bytes must never reach the next client
            self.close()
            return
        self._has_bytes = True
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamFailed(f"The engine sent an answer that is not HTTP: {error}"))
            self.close()
        if not self._has_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail(UpstreamFailed("The engine sent more than 64 KiB of response headers."))
            self.close()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._register.discard(self)
        if not self._has_ended:
            self._end_at_close()
        self._wake()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # what comes later are trailers
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = True
        self.resume_writing()  # an engine that answers early may read no further

    def on_message_begin(self) -> None:
        if self._has_ended:  # a second answer behind the first, in one read
            self.close()

    def on_body(self, body: bytes) -> None:
        if self._has_ended:
            return
        self._chunks.append(body)
        self.buffered_bytes += len(body)
        if self.buffered_bytes > _HIGH_WATER_BYTES and not self._is_read_paused and self.transport is not None:
            self._is_read_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status < 200:  # an interim answer: the real one follows
            self.headers, self._has_head, self._head_bytes = [], False, 0
            return
        self._has_ended = True
        self._is_kept_alive = self._parser.should_keep_alive()  # says so only now

    # What an exchange calls.

    @property
    def is_open(self) -> bool:
        """True while the connection can carry a request."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def can_be_reused(self) -> bool:
        """True when the answer ended cleanly and the engine keeps the connection."""
        return self.is_open and self._has_ended and self._is_kept_alive

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request; `drained` waits until the engine has taken enough of it."""
        self._begin()
        if self.transport is None:
            raise ConnectionLost("The engine closed the connection before the request was sent.", is_untouched=True)
        if len(body) < _JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    async def drained(self, deadline_s: float) -> None:
        """Wait until the write buffer is low again, or the answer has begun."""
        if self._is_write_paused and self.is_open:
            self._drain = self._loop.create_future()
            await self._within(self._drain, deadline_s, "take the request")

    async def read_head(self, deadline_s: float) -> None:
        """Wait for status and headers."""
        while not self._has_head:
            await self._more(deadline_s, "begin its answer")

    async def read_body(self, deadline_s: float) -> bytes | None:
        """All body bytes that have come since the last call, as one piece; None when the body has ended."""
        while not self._chunks:
            if self._has_ended:
                return None
            await self._more(deadline_s, "go on with its answer")
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered_bytes = 0
        if self._is_read_paused and self.transport is not None:
            self._is_read_paused = False
            self.transport.resume_reading()
        return data

    def close(self) -> None:
        """Close at once; the engine aborts the request within tens of milliseconds."""
        if self.transport is not None:
            self.transport.abort()

    async def _more(self, deadline_s: float, what: str) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        await self._within(self._waiter, deadline_s, what)

    async def _within(self, future: "asyncio.Future[None]", deadline_s: float, what: str) -> None:
        timer = self._loop.call_later(deadline_s, self._expire, future, deadline_s, what)
        try:
            await future
        finally:
            timer.cancel()

    def _expire(self, future: "asyncio.Future[None]", deadline_s: float, what: str) -> None:
        if not future.done():
            future.set_exception(UpstreamTimeout(f"The engine did not {what} within {deadline_s:g} s."))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure

    def _end_at_close(self) -> None:
        """The peer has closed. Without a length or chunks that is how a body ends; otherwise the answer is cut."""
        is_framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if self._has_head and not is_framed:
            self._has_ended = True
        else:
            message = "The engine closed the connection before its answer had ended."
            self._fail(ConnectionLost(message, is_untouched=not self._has_bytes))


class Exchange:
    """One request and its answer. Always `finish` it: a clean answer's connection is kept, any other is closed."""

    def __init__(
        self, connection: _Connection, home: "deque[_Connection]", first_byte_timeout_s: float, idle_timeout_s: float
    ) -> None:
        self._connection = connection
        self._home = home
        self._first_byte_timeout_s = first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s

    @property
    def status(self) -> int:
        """The engine's HTTP status."""
        return self._connection.status

    @property
    def headers(self) -> Headers:
        """The engine's response headers, names in lower case."""
        return self._connection.headers

    @property
    def buffered_bytes(self) -> int:
        """Body bytes received and not read yet; kept low by holding the engine back."""
        return self._connection.buffered_bytes

    async def send(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the answer's head. Raises UpstreamFailed or UpstreamTimeout."""
        self._connection.send(head, body)
        await self._connection.drained(self._first_byte_timeout_s)
        await self._connection.read_head(self._first_byte_timeout_s)

    async def read(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises UpstreamFailed when the answer breaks."""
        return await self._connection.read_body(self._idle_timeout_s)

    def finish(self) -> None:
        """Hand the connection back, or close it if the answer has not ended: the engine then stops its work."""
        if self._connection.can_be_reused and len(self._home) < _MAX_IDLE_CONNECTIONS:
            self._connection.idle_since = time.monotonic()
            self._home.append(self._connection)
        else:
            self._connection.close()


class Upstream:
    """Connections to all engines, kept by address."""

    def __init__(self, *, first_byte_timeout_s: float, idle_timeout_s: float) -> None:
        self._first_byte_timeout_s = first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._idle: dict[str, deque[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._is_closed = False

    async def request(self, address: str, path: str, headers: Headers, body: bytes) -> Exchange:
        """POST `body` to the engine at `address`; returns when status and headers are in.

        A kept connection that the engine closed in the meantime is replaced once, before any byte of an answer.
        Raises NoReplica when nobody listens, UpstreamFailed or UpstreamTimeout when no answer begins.
        """
        head = _write_head(path, headers, len(body))
        idle = self._idle.setdefault(address, deque())
        connection = self._take(idle)
        is_kept = connection is not None
        while True:
            started_s = time.monotonic()
            exchange = Exchange(
                connection or await self._connect(address), idle, self._first_byte_timeout_s, self._idle_timeout_s
            )
            try:
                await exchange.send(head, body)
            except ConnectionLost as error:
                exchange.finish()
                is_stale = time.monotonic() - started_s < _STALE_WITHIN_S
                if not (is_kept and error.is_untouched and is_stale):
                    raise
                connection, is_kept = None, False
            except BaseException:
                exchange.finish()
                raise
            else:
                return exchange

    def close(self) -> None:
        """Close every connection, those with an answer under way too, and open no more."""
        self._is_closed = True
        for connection in list(self._open):
            connection.close()

    def _take(self, idle: "deque[_Connection]") -> _Connection | None:
        oldest_allowed = time.monotonic() - _MAX_IDLE_S
        while idle:
            connection = idle.pop()
            if connection.is_open and connection.idle_since > oldest_allowed:
                return connection
            connection.close()
        return None

    async def _connect(self, address: str) -> _Connection:
        if self._is_closed:
            raise Draining("This gateway is shutting down: send the request to another one.", retry_after_s=5)
        loop = asyncio.get_running_loop()
        parts = urlsplit(address)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if parts.scheme == "unix":
                    _, connection = await loop.create_unix_connection(self._new_connection, parts.path)
                else:
                    _, connection = await loop.create_connection(
                        self._new_connection, parts.hostname or "", parts.port or 80
                    )
        except (OSError, TimeoutError) as error:
            message = "The engine that serves this model cannot be reached right now: try again shortly."
            raise NoReplica(message, retry_after_s=1) from error
        return connection

    def _new_connection(self) -> _Connection:
        return _Connection(self._open)


def _write_head(path: str, headers: Headers, body_length: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-length: {body_length}\r\n".encode()]
    lines += [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join((*lines, b"\r\n"))
