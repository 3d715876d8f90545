"""One request to an engine and its answer: the connection that parses it, and the exchange that tells its reader.

Nothing here waits: a reader is told what comes in the callback that received it, so that a streamed token costs no task
switch. A connection carries one exchange at a time; any doubt closes it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from gateway.errors import GatewayError, Headers, OperatorFault, UpstreamFailed
from gateway.proxy.head_memo import HeadMemo
from gateway.proxy.headers import lines_for_client
from gateway.proxy.pieces import Piece, write_pieces
from gateway.proxy.shortcut import CHUNK_STARTS, LONGEST_CHUNK_BYTES, Shortcut

logger = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 200
_STALE_WITHIN_S = 0.5  # lost later, it was lost at work: the request must not be sent again

LOST = "The engine closed the connection before its answer had ended."


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What the head of an answer says. Whole answers that differ in length and date only share one.

    `client_lines` are the header lines that the client gets.
    """

    status: int
    client_lines: bytes
    is_stream: bool


NO_HEAD = AnswerHead(0, b"", is_stream=False)


class Reader(Protocol):
    """Who reads an answer. It is told the head, data as it comes, then the end or a failure, once."""

    def on_head(self, head: AnswerHead) -> None:
        """The head is in."""

    def on_data(self, data: bytes) -> Shortcut | None:
        """Body bytes, all that one read brought. Returns the way that plain chunks may go from here on, untold."""

    def on_end(self) -> None:
        """The answer has ended in order."""

    def on_failure(self, error: GatewayError) -> None:
        """There will be no more; `error` says why."""


class Pool(Protocol):
    """What an exchange asks of the one that keeps connections."""

    now_s: Callable[[], float]

    def connect(self, address: str, exchange: "Exchange") -> None:
        """Open a connection for `exchange` and start it there."""

    def forget(self, exchange: "Exchange") -> None:
        """`exchange` is over."""

    def put_back(self, address: str, connection: "Connection", *, can_be_reused: bool) -> None:
        """Keep a connection for the next request, or close it."""


class Connection(asyncio.Protocol):
    """One connection: parses what comes and hands it to the exchange that holds the connection."""

    __slots__ = (
        "_body", "_has_ended", "_has_eof", "_has_head", "_head", "_head_bytes", "_headers", "_is_between_chunks",
        "_is_kept_alive", "_known_heads", "_parser", "_register", "_shortcut", "_status", "exchange", "idle_since_s",
        "transport",
    )  # fmt: skip

    def __init__(self, register: "set[Connection]", known_heads: HeadMemo[AnswerHead]) -> None:
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since_s = 0.0
        self._register = register
        self._known_heads = known_heads
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._prepare()

    def _prepare(self) -> None:
        self._headers: Headers = []
        self._head = NO_HEAD
        self._head_bytes = self._status = 0
        self._has_head = self._has_ended = self._has_eof = self._is_kept_alive = self._is_between_chunks = False
        self._shortcut: Shortcut | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports have another base
        self._register.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # nobody asked: these bytes must never reach the next client
            self.close()
            return
        shortcut = self._shortcut
        if shortcut is not None:
            size = len(data)
            if size < LONGEST_CHUNK_BYTES and data.startswith(CHUNK_STARTS[size]) and data.endswith(b"\n\n\r\n"):
                for stop in shortcut.stops:
                    if data.find(stop) >= 0:
                        break
                else:
                    shortcut.event_count += data.count(b"\n\n")
                    exchange.has_moved = True
                    shortcut.write(data)
                    return
            self._shortcut = None
        is_first = not self._head_bytes
        if is_first:
            known = self._known_heads.recall(data)
            if known is not None:
                self._head, _, body = known
                self._body = [body] if body else []
                self._has_head = self._has_ended = self._is_kept_alive = True
                self._deliver(exchange)
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._has_ended:
                exchange.fail(UpstreamFailed(f"The engine sent an answer that is not HTTP: {error}"))
                return
            self.close()  # the answer is whole; what stands behind it is nobody's
        if not data.endswith(b"\r\n"):  # perhaps the next chunk has begun, with some digits of its size
            self._is_between_chunks = False
        if not exchange.has_head:
            exchange.is_untouched = False
            self._head_bytes += len(data)
            if fault := self._find_head_fault():
                exchange.fail(UpstreamFailed(fault))
                return
            if self._has_head:
                self._head = _read_head(self._status, self._headers)
                # Of other statuses some have no body, and interim ones stand before the head that was read.
                if is_first and self._is_kept_alive and data.startswith(b"HTTP/1.1 200 "):
                    self._known_heads.remember(data, self._headers, self._head)
        if self._has_head:
            self._deliver(exchange)

    def _find_head_fault(self) -> str | None:
        if len(self._headers) > _MAX_HEADERS or (not self._has_head and self._head_bytes > _MAX_HEAD_BYTES):
            return "The engine sent more than 64 KiB or 200 lines of response headers."
        if self._has_head and not 200 <= self._status <= 599:
            return f"The engine sent an answer that is not HTTP: its status is {self._status}."
        return None

    def _deliver(self, exchange: "Exchange") -> None:
        """Hand on what one read has brought. The reader may abort at any call: `exchange` then lets go of us."""
        try:
            if not exchange.has_head:
                exchange.take_head(self._head)
            body = self._body
            if body and self.exchange is exchange:
                self._body = []
                exchange.has_moved = True
                shortcut = exchange.reader.on_data(body[0] if len(body) == 1 else b"".join(body))
                if self._is_between_chunks and self.exchange is exchange:
                    self._shortcut = shortcut
            if self._has_ended and self.exchange is exchange:
                exchange.take_end(can_be_reused=self._is_kept_alive)
        except Exception:
            logger.exception("relaying an answer failed inside the gateway")
            exchange.break_down()

    def eof_received(self) -> bool:
        self._has_eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._register.discard(self)
        self._parser = None  # it holds us: a circle would wait for the garbage collector
        exchange = self.exchange
        if exchange is None:
            return
        # Without a length or chunks the close is how a body ends; otherwise the answer is cut.
        is_framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)
        if self._has_head and self._has_eof and not is_framed:
            self._has_ended = True
            self._deliver(exchange)
        else:
            exchange.lose()

    def pause_writing(self) -> None:
        """A request's body waits in the transport; it is in memory anyway."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._has_ended:  # a second answer behind the first, in one read
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # what comes later are trailers
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if not self._has_head:
            self._has_head = True
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._has_ended:
            self._body.append(body)

    def on_chunk_header(self) -> None:
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        self._is_between_chunks = True

    def on_message_complete(self) -> None:
        self._is_between_chunks = False
        if 100 <= self._status < 200:  # an interim answer: the real one follows
            self._prepare()
            return
        self._has_ended = True
        self._is_kept_alive = self._parser.should_keep_alive()  # says so only now

    # What an exchange calls.

    @property
    def is_open(self) -> bool:
        """True while the connection can carry a request."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def is_written_out(self) -> bool:
        """True when the whole request has left: an engine may answer before it has read to the end."""
        return self.transport is not None and not self.transport.get_write_buffer_size()

    def send(self, exchange: "Exchange", head: bytes, body: Sequence[Piece]) -> None:
        """Write a request for `exchange`, which holds the connection from now on."""
        if self.transport is None:
            raise RuntimeError("only open connections are used")
        self.exchange = exchange
        self._prepare()
        write_pieces(self.transport, (head, *body))

    def close(self) -> None:
        """Close at once; the engine aborts the request within tens of milliseconds."""
        if self.transport is not None:
            self.transport.abort()


def _read_head(status: int, headers: Headers) -> AnswerHead:
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    return AnswerHead(status, lines_for_client(headers), is_stream=kind.startswith(b"text/event-stream"))


class Exchange:
    """One request and its answer, told to a reader. `abort` it when the answer is no longer wanted."""

    __slots__ = (
        "_address", "_connection", "_is_kept", "_request", "_upstream", "has_head", "has_moved", "is_over",
        "is_untouched", "last_s", "paused_s", "reader", "started_s",
    )  # fmt: skip

    def __init__(self, upstream: Pool, address: str, head: bytes, body: Sequence[Piece], reader: Reader) -> None:
        self._upstream = upstream
        self._address = address
        self._request: tuple[bytes, Sequence[Piece]] = (head, body)
        self.reader = reader
        self._connection: Connection | None = None
        self._is_kept = False
        self.has_head = self.is_over = False
        self.has_moved = False
        """Data has come since the pool last looked: a clock for each token would cost more than the token."""
        self.is_untouched = True
        """No byte of an answer has come."""
        self.started_s = self.last_s = upstream.now_s()
        self.paused_s: float | None = None

    @property
    def is_sent(self) -> bool:
        """The request is on its way to the engine, or there."""
        return self._connection is not None

    def start(self, connection: Connection, *, is_kept: bool) -> None:
        """Send the request over an open connection."""
        self._connection, self._is_kept = connection, is_kept
        connection.send(self, *self._request)
        if self.paused_s is not None and connection.transport is not None:
            connection.transport.pause_reading()

    def pause(self) -> None:
        """Read no further: the client does not keep up. What is held back stays with the engine."""
        if self.paused_s is None:
            self.paused_s = self._upstream.now_s()
            if self._connection is not None and self._connection.transport is not None:
                self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on after a pause."""
        if self.paused_s is not None:
            self.paused_s = None
            self.last_s = self._upstream.now_s()
            if self._connection is not None and self._connection.transport is not None:
                self._connection.transport.resume_reading()

    def abort(self) -> None:
        """Close the connection and tell the reader nothing more: the engine then stops its work."""
        if not self.is_over:
            self._release(can_be_reused=False)

    def fail(self, error: GatewayError) -> None:
        """End with a failure."""
        if not self.is_over:
            self._release(can_be_reused=False)
            self.reader.on_failure(error)

    def break_down(self) -> None:
        """End with a defect of ours, which may have come up when the reader was told of the end."""
        self.abort()
        self.reader.on_failure(OperatorFault("The gateway failed on this answer; its log has the details."))

    # What the connection tells.

    def take_head(self, head: AnswerHead) -> None:
        """The head is in: from here on nothing is sent again."""
        self.has_head = True
        self.is_untouched = False
        self._request = (b"", ())
        self.last_s = self._upstream.now_s()
        self.reader.on_head(head)

    def take_end(self, *, can_be_reused: bool) -> None:
        """The answer is whole."""
        if not self.is_over:
            self._release(can_be_reused=can_be_reused)
            self.reader.on_end()

    def lose(self) -> None:
        """The connection is gone. A kept one that the engine had closed meanwhile is replaced, once."""
        is_stale = self._is_kept and self.is_untouched and self._upstream.now_s() - self.started_s < _STALE_WITHIN_S
        if is_stale and not self.is_over:
            self._connection = None
            self._upstream.connect(self._address, self)
        else:
            self.fail(UpstreamFailed(LOST))

    def _release(self, *, can_be_reused: bool) -> None:
        self.is_over = True
        self._upstream.forget(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.exchange = None
            self._upstream.put_back(self._address, connection, can_be_reused=can_be_reused and self.paused_s is None)
