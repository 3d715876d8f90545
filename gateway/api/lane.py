"""The lean lane: relayed routes served inside the HTTP protocol itself, ahead of the FastAPI app for everything else.

A relayed request costs no task, no ASGI messages and no queue: its bytes come in through `data_received` and its answer
goes out in the callback that brought it from the engine. Whatever is not relayed goes on to uvicorn unchanged.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.auth import KeyRing
from gateway.api.deadlines import Deadlines
from gateway.api.heads import MAX_HEAD_BYTES, HeadReader, find_endpoint, head_too_large, is_expecting, too_large
from gateway.errors import BadRequest, BodyTooSlow, GatewayError, Headers, OperatorFault, render
from gateway.proxy.call import Call
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.forward import Forwarder, placement_lines
from gateway.proxy.headers import request_id, trace_lines, write_lines
from gateway.proxy.pieces import write_pieces
from gateway.proxy.waiting import Sent
from gateway.telemetry.ledger import RequestLedger
from gateway.telemetry.requests import RequestRecord

logger = logging.getLogger(__name__)

_NEVER_S = float("inf")
# How long a client may take for each part of its work, and how long a connection without a request is kept.
_HEAD_TIMEOUT_S = 30.0
_BODY_TIMEOUT_S = 300.0
_IDLE_TIMEOUT_S = 75.0
_LEFTOVER_TIMEOUT_S = 10.0  # for what is left of a body that was refused, and of an answer the client is slow to take


class Lane:
    """What all connections of the public port share."""

    def __init__(
        self, forwarder: Forwarder, ledger: RequestLedger, keys: KeyRing | None, *, max_body_bytes: int
    ) -> None:
        self.forwarder = forwarder
        self.ledger = ledger
        self.heads = HeadReader(keys, max_body_bytes)
        self.deadlines = Deadlines()
        self._default_headers: Headers = []
        self._default_lines = b""

    def write_defaults(self, headers: Headers) -> bytes:
        """The lines that the server adds to every answer; it makes them anew once a second."""
        if headers is not self._default_headers:
            self._default_headers, self._default_lines = headers, write_lines(headers)
        return self._default_lines


class LaneProtocol(HttpToolsProtocol):
    """One client connection. It takes one request at a time.

    A client that sends its next request before the answer to the last one (pipelining) gets that answer and a closed
    connection: it has to ask again, as HTTP/1.1 (RFC 9112, 9.3.2) wants of clients that pipeline.
    """

    def __init__(self, lane: Lane, **given: Any) -> None:
        super().__init__(**given)
        self._lane = lane
        self.due_s = _NEVER_S
        """When the loop's clock passes this, the client has been too slow."""
        self._head_bytes = 0
        self._has_head = False
        self._is_deaf = False
        self._is_upgrading = False
        self._is_parser_idle = True
        self._unsent_bytes = 0
        self._first_read = b""
        self._record: RequestRecord | None = None
        self._call: Call | None = None
        self._whole_call: Call | None = None
        self._body = bytearray()  # grows in place: pieces joined at the end would need twice the memory
        self._passage: Sent | None = None
        self._is_chunked = self._is_lasting = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._lane.deadlines.watch(self)
        self._wait(_IDLE_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if not self._has_head and not self._is_answering:
            if self._is_parser_idle:
                if (known := self._lane.heads.recall(data)) is not None:
                    head, offered_id, trace, body = known
                    self._head_bytes = 0  # a blank line may have come before
                    self._is_chunked, self._is_lasting = head.is_chunked, head.is_lasting
                    self._forward(Call(head, body, self._client_ip, self._begin(head.endpoint, offered_id), trace))
                    return
                self._first_read = data
            if not self._head_bytes:
                self._wait(_HEAD_TIMEOUT_S)
            self._head_bytes += len(data)
        self._parse(data)
        self._first_read = b""
        call = self._whole_call
        if call is not None:
            self._whole_call = None
            call.body, self._body = self._body, bytearray()
            self._forward(call)
        elif not self._has_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(head_too_large())

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if self._is_answering:  # what came behind the request under way will not be read
                self._is_deaf = True
                if self.cycle is not None:
                    self.cycle.keep_alive = False
            elif self._has_head and self._record is None:  # answered already: this was the rest of its body
                self._is_lasting = False
                self._rest()
            else:
                self._refuse_head(BadRequest("The request is not valid HTTP/1.1."))
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_upgrading:
                self._decline_upgrade(data[upgrade.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read a request that asks for another protocol anew, as one that does not.

        Java's own client asks for HTTP/2 so with every first request. The parser takes the body of such a request for
        the other protocol's first bytes.
        """
        self._is_upgrading = False
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"".join((first, *lines, b"\r\n", rest)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lane.deadlines.forget(self)
        passage, record = self._passage, self._record
        self._passage = self._record = None
        if passage is not None:
            passage.hang_up()
        if record is not None:
            if passage is None:
                record.status, record.outcome = 499, "hung_up"
            self._lane.ledger.settle(record)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if self._passage is not None:
            self._passage.pause()
        elif not self._is_answering:  # refusals too would gather for a client that takes nothing
            self.flow.pause_reading()
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._passage is not None:
            self._passage.resume()
        elif not self._is_answering:
            self.flow.resume_reading()
        super().resume_writing()

    # What httptools calls. What it raises there would pass for a client's mistake: nothing is forwarded from in here.

    def on_message_begin(self) -> None:
        self._is_parser_idle = False
        if self._record is not None or (self.cycle is not None and not self.cycle.response_complete):
            self._is_deaf = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        if not self._is_deaf:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Behind the body stand trailers, which are no headers, and what a client pipelines, which is not read.
        if not self._has_head and not self._is_deaf:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_upgrading = True  # see `_decline_upgrade`
            return
        endpoint = find_endpoint(self.url)
        if endpoint is None:
            self._hand_over()
            self._has_head = True
        else:
            self._has_head = True
            self._take(endpoint)

    def on_body(self, body: bytes) -> None:
        if self._is_deaf:
            return
        if self._record is None:
            if self.cycle is not None:  # none: a relayed request that was refused, whose body is still coming
                super().on_body(body)
            return
        if len(self._body) + len(body) > self._lane.heads.max_body_bytes:
            self.refuse(too_large(self._lane.heads.max_body_bytes))
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._is_deaf or self._is_upgrading:
            return
        self._has_head = False
        self._head_bytes = 0
        self._is_parser_idle = True
        if self._record is not None:
            self._whole_call = self._call
        elif self.cycle is not None and not self.cycle.response_complete:
            super().on_message_complete()
            self.due_s = _NEVER_S
        else:
            self._rest()

    # A request on its way in.

    def _hand_over(self) -> None:
        """Not ours: uvicorn begins the request anew, with what has been read of it."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = is_expecting(dict(headers))
        self._is_lasting = True  # uvicorn closes by itself what is not to last
        self._wait(_BODY_TIMEOUT_S)
        super().on_headers_complete()

    def _take(self, endpoint: Endpoint) -> None:
        self._is_chunked = self.parser.get_http_version() == "1.1"
        self._is_lasting = self._is_chunked and self.parser.should_keep_alive()
        record = self._begin(endpoint, next((value for name, value in self.headers if name == b"x-request-id"), None))
        try:
            head = self._lane.heads.read(
                endpoint, self.parser.get_method(), self.headers, self._first_read,
                is_chunked=self._is_chunked, is_lasting=self._is_lasting,
            )  # fmt: skip
        except GatewayError as error:
            self.refuse(error)
            return
        self._call = Call(head, b"", self._client_ip, record, trace_lines(self.headers))
        self._wait(_BODY_TIMEOUT_S)
        if self._is_chunked and is_expecting(head.by_name):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin(self, endpoint: Endpoint, offered_id: bytes | None) -> RequestRecord:
        self.cycle = None  # type: ignore[assignment]
        self._record = record = RequestRecord(request_id(offered_id), endpoint.path, time.monotonic())
        return record

    def _forward(self, call: Call) -> None:
        self.due_s = _NEVER_S
        try:
            self._passage = self._lane.forwarder.forward(call, self)
        except GatewayError as error:
            self.refuse(error)
        except Exception:
            logger.exception("request %s failed inside the gateway", call.record.request_id)
            self.refuse(OperatorFault("The gateway failed on this request; its log has the details."))
        else:
            if self.flow.write_paused:  # the client has not taken the last answer yet
                self._passage.pause()

    # The client's side of a passage (see `call.Client`).

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer, in one write."""
        head = self._write_head(status, b"%bcontent-length: %d\r\n" % (lines, len(body)))
        write_pieces(self.transport, (head, body))
        self._finish(status)

    def refuse(self, error: GatewayError) -> None:
        """Send an error of the gateway's own."""
        record = self._record
        if record is not None:
            record.outcome = error.code or error.type
        status, headers, body = render(error)
        lines = write_lines(headers) + (placement_lines(record) if record is not None else b"")
        if self._has_head and self._whole_call is None:  # the rest is read and dropped, so that this answer is seen
            self._is_lasting = False
        write_pieces(self.transport, (self._write_head(status, lines), body))
        self._finish(status)

    def abandon(self) -> None:
        """End the connection: the answer cannot be ended."""
        self.transport.abort()

    def begin(self, status: int, lines: bytes) -> Callable[[bytes], None] | None:
        """Send the head of a stream. HTTP/1.0 knows no chunks: there the end of the connection ends the stream."""
        if self._record is not None:
            self._record.status = status
        if self._is_chunked:
            lines += b"transfer-encoding: chunked\r\n"
        else:
            self._is_lasting = False
        self.transport.write(self._write_head(status, lines))
        return self.transport.write if self._is_chunked else None

    def write(self, data: bytes) -> None:
        """Send a piece of the stream."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def end(self, data: bytes) -> None:
        """Send the last piece."""
        if self._is_chunked:
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n")
        elif data:
            self.transport.write(data)
        self._finish(self._record.status if self._record is not None else 200)

    def _write_head(self, status: int, lines: bytes) -> bytes:
        if self._lane.forwarder.is_draining:  # the client's next request belongs elsewhere
            self._is_lasting = False
        end = b"\r\n" if self._is_lasting and not self._is_deaf else b"connection: close\r\n\r\n"
        return STATUS_LINE[status] + self._lane.write_defaults(self.server_state.default_headers) + lines + end

    def _finish(self, status: int) -> None:
        """The answer is written: settle the account, and wait for the next request or for the rest of this one."""
        record, self._record, self._passage, self._call = self._record, None, None, None
        self._body.clear()
        self.server_state.total_requests += 1
        if record is not None:
            record.status = status
            self._lane.ledger.settle(record)
        if self._has_head and self._whole_call is None:
            self._wait(_LEFTOVER_TIMEOUT_S)
        else:
            self._rest()

    def _rest(self) -> None:
        """Between two requests."""
        if self._is_deaf or not self._is_lasting:
            self._is_deaf = True
            self.transport.close()  # after what is still to be written
            self._wait(_LEFTOVER_TIMEOUT_S)
        else:
            self._wait(_IDLE_TIMEOUT_S)
            if self.flow.write_paused:
                self.flow.pause_reading()

    # Endings that the client has not asked for.

    def give_up(self) -> None:
        """The client has been too slow."""
        self._wait(_LEFTOVER_TIMEOUT_S)
        if self._record is not None and self._passage is None:
            self.refuse(BodyTooSlow(f"The request body did not arrive within {_BODY_TIMEOUT_S:g} s."))
        elif not self._is_answering:
            unsent_bytes = self.transport.get_write_buffer_size()
            if unsent_bytes == self._unsent_bytes or not unsent_bytes:
                self.transport.abort()
            self._unsent_bytes = unsent_bytes  # a slow client that still takes its answer may go on

    @property
    def _is_answering(self) -> bool:
        """True from the end of a request to the end of its answer."""
        is_relaying = self._whole_call is not None or self._passage is not None
        return is_relaying or (self.cycle is not None and not self.cycle.response_complete)

    @property
    def _client_ip(self) -> str:
        return self.client[0] if self.client else ""

    def shutdown(self) -> None:
        """Close once the answer under way, if any, has been sent."""
        if self._record is not None:
            self._is_lasting = False
        else:
            super().shutdown()

    def _refuse_head(self, error: GatewayError) -> None:
        self._is_lasting = False
        self._has_head = False
        self.refuse(error)

    def _wait(self, limit_s: float) -> None:
        self.due_s = self.loop.time() + limit_s
