"""Where requests that have ended are told of: the request log, the counters, and whoever compares versions."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from gateway.telemetry.estimates import TokenEstimates
from gateway.telemetry.requests import RequestRecord, Settled

_TELL_AFTER_S = 0.2
_TELL_AT = 64  # requests; more in one go would keep answers waiting


class RequestWriter(Protocol):
    """Where the lines of requests go."""

    def write(self, settled: Sequence[Settled]) -> None:
        """Tell of requests that have ended."""


class RequestCounter(Protocol):
    """Where a request is counted."""

    def count(self, record: RequestRecord, total_s: float) -> None:
        """Count a request that has ended."""


class RequestObserver(Protocol):
    """Where versions are compared by requests."""

    def tell(self, settled: Sequence[Settled]) -> None:
        """Tell of requests that have ended, once their records are whole."""


class RequestLedger:
    """Tells of every relayed request that has ended, once, a fifth of a second later at most.

    Many are told in one go: that costs a third of telling each between two system calls.
    """

    def __init__(
        self, log: RequestWriter | None, counter: RequestCounter, observer: RequestObserver | None = None
    ) -> None:
        self._log = log
        self._observer = observer
        self._counter = counter
        self._estimates = TokenEstimates()
        self._settled: list[Settled] = []
        self._timer: asyncio.TimerHandle | None = None

    def settle(self, record: RequestRecord) -> None:
        """The request is over; what its record lacks of tokens is filled in when it is told."""
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
            total_s = ended_s - record.started_s
            if record.is_estimated:
                self._estimates.fill(record, ended_s - record.sent_s)
            elif record.tokens_in is not None:
                self._estimates.learn(record, ended_s - record.sent_s)
            self._counter.count(record, total_s)
        if self._log is not None and settled:
            self._log.write(settled)
        if self._observer is not None and settled:
            self._observer.tell(settled)
