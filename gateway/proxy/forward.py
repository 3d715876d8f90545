"""One request, start to end: place it, send it to a replica, relay the answer. Nothing here waits: see `Passage`."""

import random
import time
from collections.abc import Sequence
from typing import Protocol

from gateway.errors import (
    ClientStalled,
    Draining,
    GatewayError,
    NoReplica,
    OperatorFault,
    UnknownRoute,
    UpstreamFailed,
)
from gateway.fleet.replica import Replica
from gateway.proxy import body as request_body
from gateway.proxy.beginning import read_beginning
from gateway.proxy.call import Call, Client
from gateway.proxy.exchange import NO_HEAD, AnswerHead, Exchange
from gateway.proxy.pieces import Piece
from gateway.proxy.placing import place
from gateway.proxy.shortcut import Shortcut
from gateway.proxy.sse import EventStream, Renaming, Usage, error_event, read_end, read_usage
from gateway.proxy.upstream import Upstream, write_head
from gateway.proxy.waiting import Sent, WaitingRoom
from gateway.routing.facts import Facts
from gateway.routing.policy import POLICIES
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.routes import How, RouteBoard, Target


class Watch(Protocol):
    """Has a request copied for a shadow: see `Shadows.watch`, which is the real one."""

    def __call__(self, call: Call, client: Client, fields: request_body.Fields, target: Target) -> Client: ...


class Forwarder:
    """Forwards calls to replicas. `running` counts the requests under way by address; copies of some are among them.

    While `is_draining` is set no new call is taken. Calls to models that have a shadow are shown to `watch`.
    """

    def __init__(self, board: RouteBoard, upstream: Upstream, waiting: WaitingRoom) -> None:
        self._board = board
        self._upstream = upstream
        self._waiting = waiting
        board.listeners.append(waiting.look_again)
        self.running: dict[str, int] = {}
        self.watch: Watch | None = None
        self.is_draining = False
        self._turns: dict[tuple[str, str], int] = {}

    @property
    def running_count(self) -> int:
        """Requests under way."""
        return sum(self.running.values())

    def drain(self) -> None:
        """Take no request any more, and let none wait."""
        self.is_draining = True
        self._waiting.close(_refuse_for_drain)

    def forward(self, call: Call, client: Client) -> Sent:
        """Send `call` on its way; its answer comes through `client`, later. One whose engines sleep waits for them.

        Raises GatewayError, with nothing sent and nothing to settle, for a request that cannot be placed.
        """
        if self.is_draining:
            raise _refuse_for_drain()
        routes = self._board.routes
        fields = request_body.parse_fields(call.body)
        target, sticky_key, _ = place(call.head, fields, routes, call.client_ip, call.record.request_id)
        _note_target(call, target)
        if target.version.can_wake and not target.version.replicas:
            return self._waiting.hold(call, client, (target.model.name, target.version.name), self.forward)
        replica = self._choose(target, fields, sticky_key)
        if target.model.shadow is not None and self.watch is not None:
            client = self.watch(call, client, fields, target)
        hides_usage = not request_body.wants_usage(fields)
        engine_name = target.engine_name(replica)
        endpoint = call.head.endpoint
        body = request_body.rewrite(fields, target.version, endpoint, engine_name, len(call.body))
        call.record.body_bytes = len(call.body)
        call.body = b""
        call.record.replica = replica.name
        call.record.sent_s = time.monotonic()
        # An adapter's answers carry the adapter's own name, which is its public name.
        renaming = None if engine_name == target.public_name else Renaming(engine_name, target.public_name)
        passage = Passage(
            call, client, renaming, is_streaming=request_body.is_streaming(fields), hides_usage=hides_usage,
            running=self.running, address=replica.address,
        )  # fmt: skip
        size = len(body[0]) if len(body) == 1 else sum(map(len, body))
        lines = call.head.engine_lines + call.trace_lines
        head = write_head(replica.address, endpoint.path, lines, call.record.request_id, size)
        passage.start(self._upstream, head, body)
        return passage

    def _choose(self, target: Target, fields: request_body.Fields, sticky_key: bytes) -> Replica:
        version = target.version
        if len(version.replicas) == 1:
            return version.replicas[0]
        if not version.replicas:
            name = f"{target.model.name}:{target.version.name}"
            message = f"No engine is ready for {name} ({target.version.state}): try again shortly."
            raise NoReplica(message, retry_after_s=5)
        of = (target.model.name, version.name)
        self._turns[of] = turn = self._turns.get(of, 0) + 1
        prefix = read_beginning(fields) if version.routing == "prefix_affinity" else b""
        facts = Facts(luck=random.random(), turn=turn, session=sticky_key, prefix=prefix)  # noqa: S311 - a lot
        return POLICIES[version.routing](version.replicas, self.running, facts)


def _note_target(call: Call, target: Target) -> None:
    record = call.record
    record.model, record.version, record.caller = target.model.name, target.version.name, call.head.caller or ""
    if call.head.endpoint.is_judged:
        record.stage, record.unit, record.is_own = target.model.stage, target.unit, target.how is How.SPLIT


def _refuse_for_drain() -> Draining:
    message = "This gateway is shutting down: send the request to another one, or again shortly."
    return Draining(message, retry_after_s=5)


class Passage:
    """One call between client and engine: reads the answer as it comes and passes it on in the same callback.

    It ends exactly once: with the answer, with a failure, or with `hang_up`.
    """

    __slots__ = (
        "_address", "_call", "_client", "_events", "_exchange", "_head", "_hides_usage", "_is_streaming", "_pieces",
        "_renaming", "_running", "_shortcut", "is_over",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        client: Client,
        renaming: Renaming | None,
        *,
        is_streaming: bool,
        hides_usage: bool,
        running: dict[str, int],
        address: str,
    ) -> None:
        self._call = call
        self._client = client
        self._renaming = renaming
        self._is_streaming = is_streaming
        self._hides_usage = hides_usage
        self._running = running
        self._address = address
        self._exchange: Exchange | None = None
        self._head = NO_HEAD
        self._events: EventStream | None = None
        self._shortcut: Shortcut | None = None
        self._pieces: list[bytes] = []
        self.is_over = False

    def start(self, upstream: Upstream, head: bytes, body: Sequence[Piece]) -> None:
        """Send the request."""
        self._exchange = upstream.request(self._address, head, body, self)
        self._running[self._address] = self._running.get(self._address, 0) + 1

    # What the client's side tells.

    def pause(self) -> None:
        """The client does not keep up: hold the engine back."""
        if self._exchange is not None:
            self._call.record.is_held_up = True
            self._exchange.pause()

    def resume(self) -> None:
        """The client takes more."""
        if self._exchange is not None:
            self._exchange.resume()

    def hang_up(self) -> None:
        """The client is gone: close the engine's connection, which stops its work."""
        if not self.is_over:
            exchange = self._exchange
            self._settle(is_cut=exchange is not None and exchange.is_sent)
            if self._events is not None and self._events.has_ended:
                # Clients may close as soon as they have the last event, before the engine has ended its answer.
                self._call.record.outcome = "broken" if self._events.has_failed else "done"
            else:
                self._call.record.status, self._call.record.outcome = 499, "hung_up"
            if exchange is not None:
                exchange.abort()

    # What the engine's side tells.

    def on_head(self, head: AnswerHead) -> None:
        """See `Reader`. A stream is passed on from here; an answer that is none is read whole first."""
        self._head = head
        if head.is_stream:
            endpoint = self._call.head.endpoint
            record = self._call.record
            record.is_stream = True
            self._events = EventStream(
                endpoint, hides_usage=self._hides_usage, renaming=self._renaming, notes_finish=bool(record.stage)
            )
            write_chunk = self._client.begin(head.status, self._client_lines())
            if write_chunk is not None and self._renaming is None:
                self._shortcut = Shortcut(write_chunk, self._events.stops)

    def on_data(self, data: bytes) -> Shortcut | None:
        """See `Reader`."""
        record = self._call.record
        if record.first_byte_s is None:
            record.first_byte_s = time.monotonic() - record.started_s
        if self._events is None:
            self._pieces.append(data)
            return None
        try:
            data = self._events.feed(data)
        except UpstreamFailed as error:
            if self._exchange is not None:
                self._exchange.abort()
            self.on_failure(error)
            return None
        if data:
            self._client.write(data)
        return None if self._events.is_holding else self._shortcut

    def on_end(self) -> None:
        """See `Reader`."""
        if self._events is None:
            self._answer(b"".join(self._pieces))
            return
        ending = self._events.flush()
        if self._events.has_ended:
            self._finish_stream("broken" if self._events.has_failed else "done", ending)
        else:
            self.on_failure(UpstreamFailed("The engine ended the stream before the answer was complete."))

    def on_failure(self, error: GatewayError) -> None:
        """See `Reader`. A stream that has begun ends with an error event; anything else is still a clean error."""
        if self.is_over:
            if isinstance(error, OperatorFault):  # a defect struck while we were ending it
                self._client.abandon()
            return
        if self._events is not None:
            outcome = "hung_up" if isinstance(error, ClientStalled) else "broken"
            self._finish_stream(outcome, error_event(error, self._call.head.endpoint))
        else:
            self._settle(is_cut=isinstance(error, UpstreamFailed | ClientStalled))
            self._client.refuse(error)

    def _finish_stream(self, outcome: str, ending: bytes) -> None:
        self._call.record.outcome = outcome
        self._settle()
        self._client.end(ending)

    def _answer(self, document: bytes) -> None:
        record = self._call.record
        status = self._head.status
        if status in (404, 405) and b'"error"' not in document:
            # The engine's web server has no such route, which it does not say in the OpenAI shape.
            name, path = f"{record.model}:{record.version}", self._call.head.endpoint.path
            self.on_failure(UnknownRoute(f"{name} does not answer {path}: its model cannot do that."))
            return
        if status < 400:
            if self._renaming is not None:
                document = self._renaming.apply(document)
            usage, record.finish = read_end(document) if record.stage else (read_usage(document), "")
            _count(record, usage)
        record.outcome = "done" if status < 400 else "engine_error"
        lines = self._client_lines()
        self._settle()
        self._client.answer(status, lines, document)

    def _client_lines(self) -> bytes:
        lines = self._head.client_lines + placement_lines(self._call.record)
        return lines if self._head.status < 400 else lines + b"x-gateway-error-origin: engine\r\n"

    def _settle(self, *, is_cut: bool = False) -> None:
        """Give the slot back and count what a stream has used, on every way out.

        Where an answer `is_cut`, the engine has not said what it cost. An error costs nothing.
        """
        self.is_over = True
        self._exchange = None  # it holds us as its reader: a circle would wait for the garbage collector
        left = self._running[self._address] - 1
        if left:
            self._running[self._address] = left
        else:
            del self._running[self._address]  # addresses come and go
        record = self._call.record
        if self._events is None:
            record.is_estimated = is_cut and self._head.status < 400
            if record.is_estimated and (self._is_streaming or not self._call.head.endpoint.is_generation):
                record.tokens_out = 0  # the first would have begun the stream
        else:
            record.finish = self._events.finish
            _count(record, self._events.usage)
            if record.tokens_out is None:
                # The engine reports usage at the very end. Until then an event is a token, but for the first.
                count = self._events.event_count + (self._shortcut.event_count if self._shortcut is not None else 0)
                record.tokens_out, record.is_estimated = max(0, count - 1), True
                record.tokens_in = self._events.prompt_tokens


def placement_lines(record: RequestRecord) -> bytes:
    """The response header lines that tell where a request went, as far as it got."""
    lines = f"x-request-id: {record.request_id}\r\n"
    if record.model:
        lines += f"x-gateway-model: {record.model}\r\nx-gateway-version: {record.version}\r\n"
    if record.replica:
        lines += f"x-gateway-replica: {record.replica}\r\n"
    return lines.encode()


def _count(record: RequestRecord, usage: Usage | None) -> None:
    if usage is not None:
        record.tokens_in, record.tokens_out = usage.tokens_in, usage.tokens_out
