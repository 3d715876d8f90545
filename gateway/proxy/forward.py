"""One request, start to end: place it, send it to a replica, relay the answer, settle the account on every exit."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import BadRequest, Draining, Headers, NoReplica, UnknownRoute, UpstreamFailed
from gateway.fleet.replica import Replica
from gateway.proxy import body as request_body
from gateway.proxy import headers as header_rules
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.sse import EventStream, Renaming, Usage, error_event, read_usage
from gateway.proxy.upstream import Exchange, Upstream
from gateway.routing.least_loaded import choose
from gateway.telemetry.logs import RequestRecord
from gateway.traffic.routes import RouteBoard, Routes, Target

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""ASGI's send."""


@dataclass(slots=True)
class Call:
    """One client request as it reached us, body read, nothing checked yet. Header names are in lower case."""

    endpoint: Endpoint
    request_id: str
    headers: Headers
    body: bytes
    client_ip: str
    record: RequestRecord
    has_begun: bool = False

    def header(self, name: bytes) -> str | None:
        """The first value of a header."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), None)


class Forwarder:
    """Forwards calls to replicas. `running` counts the requests under way by address; this is its one writer."""

    def __init__(self, board: RouteBoard, upstream: Upstream) -> None:
        self._board = board
        self._upstream = upstream
        self.running: Counter[str] = Counter()

    @property
    def running_count(self) -> int:
        """Requests under way."""
        return self.running.total()

    async def forward(self, call: Call, send: Send) -> None:
        """Answer `call` through `send`. Raises GatewayError only before anything was sent to the client.

        Cancelling it (the client hung up) closes the engine's connection, which stops the engine's work.
        """
        routes = self._board.routes
        if routes.is_draining:
            raise Draining(
                "This gateway is shutting down: send the request to another one, or again shortly.", retry_after_s=5
            )
        fields = request_body.parse_fields(call.body)
        target = self._place(call, fields, routes)
        replica = self._choose(target)
        hides_usage = not request_body.wants_usage(fields)
        body = request_body.rewrite(fields, target, call.endpoint)
        call.body = b""
        call.record.replica = replica.name
        self.running[replica.address] += 1
        exchange: Exchange | None = None
        try:
            exchange = await self._upstream.request(
                replica.address, call.endpoint.path, header_rules.for_engine(call.headers, call.request_id), body
            )
            await self._relay(call, target, exchange, send, hides_usage=hides_usage)
        finally:
            self.running[replica.address] -= 1
            if exchange is not None:
                exchange.finish()

    def _place(self, call: Call, fields: request_body.Fields, routes: Routes) -> Target:
        name = request_body.read_text(fields, "model")
        if not name:
            if len(routes.models) != 1:
                message = f"The field 'model' is missing: name one of {', '.join(routes.models) or '(none)'}."
                raise BadRequest(message, param="model")
            name = next(iter(routes.models))
        sticky_key = self._sticky_key(call, fields, routes, name)
        target = routes.resolve(name, call.header(b"x-gateway-version"), sticky_key)
        call.record.model, call.record.version = target.model.name, target.version.name
        return target

    def _sticky_key(self, call: Call, fields: request_body.Fields, routes: Routes, name: str) -> bytes:
        model = routes.models.get(name)
        for source in model.sticky_by if model is not None else ():
            value: str | None = None
            if source.startswith("header:"):
                value = call.header(source.removeprefix("header:").encode())
            elif source == "user":
                value = request_body.read_text(fields, "user")
            elif source == "client_ip":
                value = call.client_ip
            if value:
                return f"{source}={value}".encode()
        return call.request_id.encode()

    def _choose(self, target: Target) -> Replica:
        if not target.version.replicas:
            name = f"{target.model.name}:{target.version.name}"
            message = f"No engine is ready for {name} ({target.version.state}): try again shortly."
            raise NoReplica(message, retry_after_s=5)
        return choose(target.version.replicas, self.running)

    async def _relay(self, call: Call, target: Target, exchange: Exchange, send: Send, *, hides_usage: bool) -> None:
        # An adapter's answers carry the adapter's own name, which is its public name.
        is_renamed = target.public_name != target.engine_name
        renaming = Renaming(target.engine_name, target.public_name) if is_renamed else None
        is_stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in exchange.headers
        )
        if is_stream:
            events = EventStream(call.endpoint, hides_usage=hides_usage, renaming=renaming)
            await self._relay_stream(call, exchange, events, send)
        else:
            await self._relay_document(call, exchange, renaming, send)

    async def _relay_document(self, call: Call, exchange: Exchange, renaming: Renaming | None, send: Send) -> None:
        """An answer that is no stream is read whole first, so that a break in it is still a clean error."""
        pieces: list[bytes] = []
        while (piece := await exchange.read()) is not None:
            call.record.first_byte_s = call.record.first_byte_s or time.monotonic() - call.record.started_s
            pieces.append(piece)
        document = b"".join(pieces)
        if exchange.status in (404, 405) and b'"error"' not in document:
            # The engine's web server has no such route, which it does not say in the OpenAI shape.
            name = f"{call.record.model}:{call.record.version}"
            raise UnknownRoute(f"{name} does not answer {call.endpoint.path}: its model cannot do that.")
        if exchange.status < 400:
            if renaming is not None:
                document = renaming.apply(document)
            _count(call.record, read_usage(document))
        headers = header_rules.for_client(exchange.headers)
        headers.append((b"content-length", str(len(document)).encode()))
        await _start(call, exchange.status, headers, send)
        await send({"type": "http.response.body", "body": document})
        call.record.outcome = "done" if exchange.status < 400 else "engine_error"

    async def _relay_stream(self, call: Call, exchange: Exchange, events: EventStream, send: Send) -> None:
        await _start(call, exchange.status, header_rules.for_client(exchange.headers), send)
        outcome = "done"
        try:
            while (piece := await exchange.read()) is not None:
                if data := events.feed(piece):
                    call.record.first_byte_s = call.record.first_byte_s or time.monotonic() - call.record.started_s
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            ending = events.flush()
            if not events.has_ended:
                raise UpstreamFailed("The engine ended the stream before the answer was complete.")
        except UpstreamFailed as error:
            outcome, ending = "broken", error_event(error, call.endpoint)
        _count(call.record, events.usage)
        await send({"type": "http.response.body", "body": ending})
        call.record.outcome = outcome


def placement_headers(record: RequestRecord) -> Headers:
    """The response headers that tell where a request went, as far as it got."""
    headers = [(b"x-request-id", record.request_id.encode())]
    for name, value in ((b"model", record.model), (b"version", record.version), (b"replica", record.replica)):
        if value != "-":
            headers.append((b"x-gateway-" + name, value.encode()))
    return headers


async def _start(call: Call, status: int, headers: Headers, send: Send) -> None:
    call.has_begun = True
    call.record.status = status
    headers += placement_headers(call.record)
    if status >= 400:
        headers.append((b"x-gateway-error-origin", b"engine"))
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _count(record: RequestRecord, usage: Usage | None) -> None:
    if usage is not None:
        record.tokens_in, record.tokens_out = usage.tokens_in, usage.tokens_out
