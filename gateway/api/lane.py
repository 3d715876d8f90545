"""The lean lane: relayed routes as bare ASGI, ahead of the FastAPI app that serves everything that is not hot."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import (
    BodyTooLarge,
    BodyTooSlow,
    GatewayError,
    MethodNotAllowed,
    OperatorFault,
    UnsupportedMedia,
    render,
)
from gateway.proxy.endpoints import ENDPOINTS, Endpoint
from gateway.proxy.forward import Call, Forwarder, Send, placement_headers
from gateway.proxy.headers import request_id
from gateway.tasks import TaskSet
from gateway.telemetry.logs import RequestRecord

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_TIMEOUT_S = 300.0


class HungUp(Exception):
    """The client closed its connection before the whole request had come."""


class RelayLane:
    """The public port's outermost ASGI app. Relayed routes go to the forwarder, all others to `rest`."""

    def __init__(self, forwarder: Forwarder, rest: AsgiApp, *, max_body_bytes: int) -> None:
        self._forwarder = forwarder
        self._rest = rest
        self._max_body_bytes = max_body_bytes
        self._watchers = TaskSet()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINTS.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._rest(scope, receive, send)
        else:
            await self._relay(endpoint, scope, receive, send)

    async def _relay(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        offered = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        record = RequestRecord(request_id(offered), endpoint.path, time.monotonic())
        client = scope.get("client")
        call = Call(endpoint, record.request_id, scope["headers"], b"", client[0] if client else "", record)
        try:
            _check_head(scope, self._max_body_bytes)
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                call.body = await _read_body(receive, self._max_body_bytes)
            await self._forward(call, receive, send)
        except HungUp:
            record.status, record.outcome = 499, "hung_up"
        except GatewayError as error:
            await _answer(call, error, send)
        except TimeoutError:
            await _answer(call, BodyTooSlow(f"The request body did not arrive within {_BODY_TIMEOUT_S:g} s."), send)
        except Exception:
            logger.exception("request %s failed inside the gateway", record.request_id)
            if call.has_begun:
                raise  # the server closes the connection: the client must not take this for a whole answer
            await _answer(call, OperatorFault("The gateway failed on this request; its log has the details."), send)
        finally:
            record.write(time.monotonic())

    async def _forward(self, call: Call, receive: Receive, send: Send) -> None:
        """Forward, and stop at once when the client hangs up."""
        task = asyncio.current_task()
        if task is None:
            raise OperatorFault("The lane runs outside a task.")
        watcher = self._watchers.start(_cancel_on_hang_up(receive, task), "hang-up watch")
        try:
            await self._forwarder.forward(call, send)
        except asyncio.CancelledError:
            if not watcher.done():
                raise  # not ours: the server is being stopped
            task.uncancel()
            raise HungUp from None
        finally:
            watcher.cancel()


async def _cancel_on_hang_up(receive: Receive, task: "asyncio.Task[Any]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def _check_head(scope: Scope, max_body_bytes: int) -> None:
    """Refuse what the request's head already shows to be wrong, before a byte of the body is read."""
    if scope["method"] != "POST":
        raise MethodNotAllowed(f"{scope['path']} takes POST, not {scope['method']}.")
    for name, value in scope["headers"]:
        if name == b"content-type" and value.split(b";")[0].strip().lower() != b"application/json":
            shown = value[:100].decode("latin-1")
            raise UnsupportedMedia(f"The content type {shown!r} is not supported: send content-type: application/json.")
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMedia("Compressed request bodies are not supported: send the JSON as it is.")
        if name == b"content-length" and int(value) > max_body_bytes:
            raise _too_large(max_body_bytes)


async def _read_body(receive: Receive, max_body_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_body_bytes:
            raise _too_large(max_body_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(max_body_bytes: int) -> BodyTooLarge:
    limit = f"{max_body_bytes / 2**20:g} MiB"
    return BodyTooLarge(
        f"The request body is larger than {limit}: send smaller pictures, or raise server.max_body_bytes."
    )


async def _answer(call: Call, error: GatewayError, send: Send) -> None:
    """Send an error of the gateway's own, if nothing was sent yet."""
    call.record.status, call.record.outcome = error.status, error.code or error.type
    if call.has_begun:
        raise error
    status, headers, body = render(error, placement_headers(call.record))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
