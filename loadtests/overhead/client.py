"""The client's connections: one answer at a time, framed and counted, never decoded, so that the client costs little.

Whether a router's answers are right is looked at once, by `answers_check`, with another HTTP client.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_HEAD, _SIZED, _CHUNKED, _IDLE = range(4)


class Tally:
    """What many connections received together. Written by connections, read by the measuring side."""

    def __init__(self) -> None:
        self.events = 0
        self.good = 0
        self.bad = 0  # status 400 and up, and answers that a close cut short

    @property
    def answers(self) -> int:
        return self.good + self.bad


class Connection(asyncio.Protocol):
    """A keep-alive connection. An event that is cut within its first bytes is not counted, which is rare."""

    def __init__(self, tally: Tally) -> None:
        self.status = 0
        self.is_open = False
        self.is_good = False  # the last answer: whole, and no error status
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._on_end: Callable[[Connection], None] | None = None
        self._on_event: Callable[[], None] | None = None
        self._state = _IDLE
        self._held = b""
        self._left_bytes = 0

    @property
    def is_busy(self) -> bool:
        """True while an answer is awaited or under way."""
        return self._state != _IDLE

    def ask(
        self,
        request: bytes,
        on_end: "Callable[[Connection], None] | None" = None,
        on_event: Callable[[], None] | None = None,
    ) -> None:
        """Send a request; `on_end` is called when its answer is whole or lost, `on_event` at each read of a stream."""
        self._on_end, self._on_event = on_end, on_event
        self._state, self._held, self.status, self.is_good = _HEAD, b"", 0, False
        if self._transport is None:
            asyncio.get_running_loop().call_soon(self._end, False)
        else:
            self._transport.write(request)

    def close(self) -> None:
        """Hang up at once; nothing is called back."""
        self._on_end = self._on_event = None
        self._state = _IDLE
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.is_open = None, False
        if self._state != _IDLE:
            self._end(is_whole=False)

    def data_received(self, data: bytes) -> None:
        if self._state == _HEAD:
            data = self._held + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._held = data
                return
            self.status = int(data[9:12])
            found = _LENGTH.search(data, 0, end)
            self._state, self._left_bytes = (_SIZED, int(found[1])) if found else (_CHUNKED, 0)
            self._held = b""
            data = data[end + 4 :]
        if self._state == _SIZED:
            self._left_bytes -= len(data)
            if self._left_bytes <= 0:
                self._end(is_whole=True)
        elif self._state == _CHUNKED and data:
            self._tally.events += data.count(b"data: ")
            if self._on_event is not None:
                self._on_event()
            self._held = data if len(data) >= len(_LAST_CHUNK) else (self._held + data)[-len(_LAST_CHUNK) :]
            if self._held.endswith(_LAST_CHUNK):
                self._end(is_whole=True)

    def _end(self, is_whole: bool) -> None:
        self._state = _IDLE
        self.is_good = is_whole and self.status < 400
        if self.is_good:
            self._tally.good += 1
        else:
            self._tally.bad += 1
        on_end, self._on_end, self._on_event = self._on_end, None, None
        if on_end is not None:
            on_end(self)


async def connect(port: int, tally: Tally) -> Connection:
    """Connect to a router on loopback. Raises OSError or TimeoutError."""
    async with asyncio.timeout(10):
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(tally), "127.0.0.1", port)
    return connection


async def fetch(connection: Connection, request: bytes, timeout_s: float) -> None:
    """Send a request and wait for its end; after `timeout_s` hang up."""
    ended = asyncio.Event()
    connection.ask(request, lambda _: ended.set())
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        connection.close()
