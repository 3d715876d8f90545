"""What one request came to, and the two places where it is told: the request log and the counters."""

import time
from dataclasses import dataclass
from typing import Protocol


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


class RequestWriter(Protocol):
    """Where the line of a request goes."""

    def write(self, record: RequestRecord, total_s: float) -> None:
        """Tell of a request that has ended."""


class RequestCounter(Protocol):
    """Where a request is counted."""

    def count(self, record: RequestRecord, total_s: float) -> None:
        """Count a request that has ended."""


class RequestLedger:
    """Tells of every relayed request that has ended, once."""

    def __init__(self, log: RequestWriter | None, counter: RequestCounter) -> None:
        self._log = log
        self._counter = counter

    def settle(self, record: RequestRecord) -> None:
        """The request is over: write its line and count it."""
        total_s = time.monotonic() - record.started_s
        self._counter.count(record, total_s)
        if self._log is not None:
            self._log.write(record, total_s)
