"""A request that is to be sent again, what is kept of it meanwhile, and how both of its answers are read."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gateway.errors import GatewayError
from gateway.proxy import body as request_body
from gateway.proxy.answers import Said, read_answer
from gateway.proxy.asking import Asked
from gateway.proxy.body import Fields
from gateway.proxy.call import Client, RequestHead
from gateway.proxy.sse import is_whole, read_stream_usage, read_usage
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.routes import Target, VersionRoute
from gateway.traffic.shadow import Reply, Shadow

_MOST_BYTES = 64 * 2**20
_MOST_ANSWER_BYTES = 2 * 2**20
_FAILED_FROM = 500


class Room:
    """What all copies of a relay take: those that wait, and those of requests that are being answered."""

    def __init__(self) -> None:
        self.taken_bytes = 0


class Held:
    """What one copy takes of the `room`, until it is let go, by whoever had it last."""

    __slots__ = ("_room", "size_bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Take so much more; False when all copies take too much."""
        self.size_bytes += size_bytes
        self._room.taken_bytes += size_bytes
        return self._room.taken_bytes <= _MOST_BYTES

    def __del__(self) -> None:
        self._room.taken_bytes -= self.size_bytes


@dataclass(slots=True, eq=False)
class Copy:
    """A request that is to be sent again, with what came of it the first time. Times by the monotonic clock.

    `body_bytes` is the length of what the client sent, `held` of that and of the `pieces` of the answer.
    """

    head: RequestHead
    fields: Fields
    record: RequestRecord
    target: Target
    shadow: Shadow
    body_bytes: int
    held: Held
    pieces: list[bytes] = field(default_factory=list)
    ended_s: float = 0.0


class CopiedClient:
    """A client whose request is copied: passes on what it is told, keeps it, and offers the copy once all is said.

    A copy that grows too large is let go at once, and `drop` is told.
    """

    def __init__(self, client: Client, copy: Copy, offer: Callable[[Copy], None], drop: Callable[[Copy], None]) -> None:
        self._client = client
        self._copy: Copy | None = copy
        self._offer = offer
        self._drop = drop

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """See `Client`. An answer to a client's mistake is no answer to compare with."""
        self._client.answer(status, lines, body)
        if status < 400 or status >= _FAILED_FROM:
            self._keep(body)
            self._finish()

    def refuse(self, error: GatewayError) -> None:
        """See `Client`."""
        self._client.refuse(error)
        if error.status >= _FAILED_FROM:
            self._finish()

    def abandon(self) -> None:
        """See `Client`."""
        self._client.abandon()

    def begin(self, status: int, lines: bytes) -> None:
        """See `Client`. All pieces are to come by `write`."""
        self._client.begin(status, lines)

    def write(self, data: bytes) -> None:
        """See `Client`."""
        self._client.write(data)
        self._keep(data)

    def end(self, data: bytes) -> None:
        """See `Client`."""
        self._client.end(data)
        self._keep(data)
        self._finish()

    def _keep(self, data: bytes) -> None:
        copy = self._copy
        if copy is None:
            return
        has_room = copy.held.take(len(data))
        if has_room and copy.held.size_bytes <= copy.body_bytes + _MOST_ANSWER_BYTES:
            copy.pieces.append(data)
        else:
            self._copy = None
            self._drop(copy)

    def _finish(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.ended_s = time.monotonic()
            self._offer(copy)


Read = tuple[Reply, Said | None]
"""A reply, and what it says, where that can be read."""


def read_both(copy: Copy, asked: Asked) -> tuple[Read, Read]:
    """What the client got, and what came of the copy; what they say only where both have come."""
    primary, shadow = _read_primary(copy), _read_shadow(copy, asked)
    if primary.is_failed or shadow.is_failed:
        return (primary, None), (shadow, None)
    ours = read_answer(b"".join(copy.pieces), is_stream=copy.record.is_stream)
    theirs = read_answer(asked.document, is_stream=asked.is_stream)
    return _say(primary, ours), _say(shadow, theirs)


def _say(reply: Reply, said: Said | None) -> Read:
    return replace(reply, text=None if said is None else said.text), said


def _read_primary(copy: Copy) -> Reply:
    record = copy.record
    if record.outcome != "done":
        return Reply(is_failed=True)
    is_timed = not record.is_held_up  # else the time would be the client's
    return Reply(
        is_failed=False,
        tokens_out=None if record.is_estimated else record.tokens_out,
        ttft_s=_since(record, record.first_byte_s) if record.is_stream and is_timed else None,
        total_s=copy.ended_s - record.sent_s if is_timed else None,
    )


def _read_shadow(copy: Copy, asked: Asked) -> Reply:
    if asked.is_failed or (asked.is_stream and not is_whole(asked.document, copy.head.endpoint)):
        return Reply(is_failed=True)
    usage = read_stream_usage(asked.document) if asked.is_stream else read_usage(asked.document)
    return Reply(
        is_failed=False,
        tokens_out=None if usage is None else usage.tokens_out,
        ttft_s=asked.first_byte_s if asked.is_stream else None,
        total_s=asked.total_s,
    )


def _since(record: RequestRecord, after_s: float | None) -> float | None:
    """From when the engine was asked, of what is measured from when the client did."""
    return None if after_s is None else record.started_s + after_s - record.sent_s


def is_greedy(copy: Copy, version: VersionRoute) -> bool:
    """True if both versions were asked for their likeliest answer."""
    return all(request_body.is_greedy(copy.fields, of.defaults) for of in (copy.target.version, version))
