"""Questions of the gateway's own to an engine, whose answers are read whole."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.fleet.replica import Replica
from gateway.proxy.exchange import NO_HEAD, AnswerHead
from gateway.proxy.pieces import Piece
from gateway.proxy.upstream import Upstream, write_head

_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it. Durations in seconds since it was sent; `first_byte_s` is None where nothing came."""

    status: int
    document: bytes
    is_stream: bool
    first_byte_s: float | None
    total_s: float
    error: GatewayError | None = None

    @property
    def is_failed(self) -> bool:
        """True if there is no whole answer."""
        return self.error is not None or self.status >= 400


async def ask(
    upstream: Upstream,
    replica: Replica,
    path: str,
    body: Sequence[Piece],
    request_id: str,
    lines: bytes = b"content-type: application/json\r\n",
) -> Asked:
    """Post `body` to an engine, with `lines` in the head. Whatever goes wrong is in what is returned."""
    gathering = _Gathering()
    head = write_head(replica.address, path, lines, request_id, sum(len(piece) for piece in body))
    exchange = upstream.request(replica.address, head, body, gathering)
    gathering.abort = exchange.abort
    try:
        return await gathering.asked
    finally:
        exchange.abort()  # for whoever is cancelled meanwhile; else it is over
        gathering.let_go()


class _Gathering:
    """See `Reader`."""

    def __init__(self) -> None:
        self.asked: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        self.abort: Callable[[], None] | None = None
        self._head = NO_HEAD
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._sent_s = time.monotonic()
        self._first_s: float | None = None

    def on_head(self, head: AnswerHead) -> None:
        """See `Reader`."""
        self._head = head

    def on_data(self, data: bytes) -> None:
        """See `Reader`."""
        if self._first_s is None:
            self._first_s = time.monotonic()
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            if self.abort is not None:
                self.abort()
            self._end(GatewayError("The engine's answer is longer than it can be."))

    def on_end(self) -> None:
        """See `Reader`."""
        self._end(None)

    def on_failure(self, error: GatewayError) -> None:
        """See `Reader`."""
        self._end(error)

    def let_go(self) -> None:
        """Hold nothing that holds this: megabytes would wait for the collector."""
        self.abort = None
        self._pieces.clear()

    def _end(self, error: GatewayError | None) -> None:
        if self.asked.done():
            return
        first_s = None if self._first_s is None else self._first_s - self._sent_s
        total_s = time.monotonic() - self._sent_s
        document = b"".join(self._pieces)
        self.asked.set_result(Asked(self._head.status, document, self._head.is_stream, first_s, total_s, error))
