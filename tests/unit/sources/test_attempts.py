import threading

import pytest

from gateway.sources.attempts import Attempts, FetchTiming
from gateway.sources.source import FetchCancelled, SourceFailed

PASSING = SourceFailed("down", is_final=False)


class Waits(threading.Event):
    """Notes the pauses and waits for none."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return self.is_set()


def test_pauses_grow_up_to_a_bound_and_the_last_failure_is_told() -> None:
    waits = Waits()
    attempts = Attempts(FetchTiming(attempts=5, first_pause_s=1, longest_pause_s=3), waits)
    with pytest.raises(SourceFailed, match="down"):
        for _ in range(9):
            attempts.fail(PASSING)
    assert waits.pauses == [1, 2, 3, 3]


def test_what_is_final_is_not_tried_again() -> None:
    waits = Waits()
    with pytest.raises(SourceFailed, match="gone"):
        Attempts(FetchTiming(), waits).fail(SourceFailed("gone", is_final=True))
    assert waits.pauses == []


def test_progress_makes_up_for_failures() -> None:
    waits = Waits()
    attempts = Attempts(FetchTiming(attempts=2, first_pause_s=1), waits)
    for _ in range(5):
        attempts.fail(PASSING)
        attempts.start_over()
    assert waits.pauses == [1] * 5


def test_a_pause_ends_when_nobody_wants_it_any_more() -> None:
    waits = Waits()
    waits.set()
    with pytest.raises(FetchCancelled):
        Attempts(FetchTiming(), waits).fail(PASSING)
