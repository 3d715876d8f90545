"""What one request came to, and the two places where it is told: the request log and the counters."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_TELL_AFTER_S = 0.2
_TELL_AT = 64  # requests: a third of a millisecond of telling


@dataclass(slots=True)
class RequestRecord:
    """What one request came to; filled while it runs, told once at its end. Durations in seconds.

    `status` 499 means that the client hung up. Tokens are the engine's own count, or, where `is_estimated`, the events
    of a stream that ended before the engine could say.
    """

    request_id: str
    path: str
    started_s: float
    model: str = ""
    version: str = ""
    replica: str = ""
    status: int = 0
    outcome: str = "error"
    first_byte_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    is_estimated: bool = False


Settled = tuple[RequestRecord, float]
"""A request that has ended, and when it did, by the monotonic clock in seconds."""


class RequestWriter(Protocol):
    """Where the lines of requests go."""

    def write(self, settled: Sequence[Settled]) -> None:
        """Tell of requests that have ended."""


class RequestCounter(Protocol):
    """Where a request is counted."""

    def count(self, record: RequestRecord, total_s: float) -> None:
        """Count a request that has ended."""


class RequestLedger:
    """Tells of every relayed request that has ended, once, a fifth of a second later at most.

    Many are told in one go: that costs a third of telling each between two system calls.
    """

    def __init__(self, log: RequestWriter | None, counter: RequestCounter) -> None:
        self._log = log
        self._counter = counter
        self._settled: list[Settled] = []
        self._timer: asyncio.TimerHandle | None = None

    def settle(self, record: RequestRecord) -> None:
        """The request is over: nothing of its record changes any more."""
        self._settled.append((record, time.monotonic()))
        if len(self._settled) >= _TELL_AT:
            self.tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TELL_AFTER_S, self.tell)

    def tell(self) -> None:
        """Count and write what has been settled until now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        settled, self._settled = self._settled, []
        for record, ended_s in settled:
            self._counter.count(record, ended_s - record.started_s)
        if self._log is not None and settled:
            self._log.write(settled)
