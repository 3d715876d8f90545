"""Trying again: faults that pass are met with growing pauses, others at once with the end."""

import threading
from dataclasses import dataclass

from gateway.sources.source import FetchCancelled, SourceFailed


@dataclass(frozen=True, slots=True)
class FetchTiming:
    """Seconds and counts that a fetch lives by."""

    attempts: int = 5
    first_pause_s: float = 1.0
    longest_pause_s: float = 16.0
    poll_s: float = 0.25
    workers: int = 8


class Attempts:
    """The attempts at one thing. `cancelled` ends a pause."""

    def __init__(self, timing: FetchTiming, cancelled: threading.Event) -> None:
        self._timing = timing
        self._cancelled = cancelled
        self.start_over()

    def start_over(self) -> None:
        """It has come further: what failed before does not count any more."""
        self._failed = 0
        self._pause_s = self._timing.first_pause_s

    def fail(self, failure: SourceFailed) -> None:
        """Wait before the next attempt. Raises the failure if there is to be none, FetchCancelled if told so."""
        self._failed += 1
        if failure.is_final or self._failed >= self._timing.attempts:
            raise failure
        if self._cancelled.wait(self._pause_s):
            raise FetchCancelled
        self._pause_s = min(self._pause_s * 2, self._timing.longest_pause_s)
