from collections.abc import Callable, Sequence

import pytest

from gateway.telemetry.ledger import RequestLedger
from gateway.telemetry.requests import RequestRecord, Settled

Told = list[tuple[str, RequestRecord, float]]


class Listener:
    def __init__(self, told: Told) -> None:
        self._told = told

    def write(self, settled: Sequence[Settled]) -> None:
        self._told += [("written", record, ended_s) for record, ended_s in settled]

    def count(self, record: RequestRecord, total_s: float) -> None:
        self._told.append(("counted", record, total_s))


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """The loop's timers, fired by the test."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        assert 0 < delay_s <= 0.5
        self.timers.append(FakeTimer(callback))
        return self.timers[-1]


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    made = FakeLoop()
    monkeypatch.setattr("gateway.telemetry.ledger.asyncio.get_running_loop", lambda: made)
    monkeypatch.setattr("gateway.telemetry.ledger.time.monotonic", lambda: 12.5)
    return made


def test_a_request_that_has_ended_is_written_and_counted_once() -> None:
    told: Told = []
    record = RequestRecord("id1", "/v1/x", 10.0)
    ledger = RequestLedger(Listener(told), Listener(told))
    ledger.settle(record)
    ledger.tell()
    ledger.tell()
    assert told == [("counted", record, 2.5), ("written", record, 12.5)]


def test_without_a_log_it_is_counted_all_the_same() -> None:
    told: Told = []
    record = RequestRecord("id1", "/v1/x", 12.0)
    ledger = RequestLedger(None, Listener(told))
    ledger.settle(record)
    ledger.tell()
    assert told == [("counted", record, 0.5)]


def test_requests_gather_until_the_timer_fires_one_timer_for_all(loop: FakeLoop) -> None:
    told: Told = []
    ledger = RequestLedger(None, Listener(told))
    for _ in range(3):
        ledger.settle(RequestRecord("id1", "/v1/x", 10.0))
    assert told == []
    [timer] = loop.timers
    timer.callback()
    assert len(told) == 3
    ledger.settle(RequestRecord("id1", "/v1/x", 10.0))
    assert len(loop.timers) == 2


def test_many_requests_do_not_wait_for_the_timer(loop: FakeLoop) -> None:
    told: Told = []
    ledger = RequestLedger(Listener(told), Listener(told))
    for _ in range(64):
        ledger.settle(RequestRecord("id1", "/v1/x", 10.0))
    assert len(told) == 128
    assert [timer.is_cancelled for timer in loop.timers] == [True]


def test_nothing_settled_writes_nothing() -> None:
    told: Told = []
    RequestLedger(Listener(told), Listener(told)).tell()
    assert told == []


def test_a_request_that_was_cut_is_told_with_what_those_before_it_came_to() -> None:
    told: Told = []
    ledger = RequestLedger(Listener(told), Listener(told))
    ledger.settle(RequestRecord("id1", "/v1/x", 1.0, body_bytes=90, sent_s=10.5, tokens_in=30, tokens_out=10))
    ledger.settle(RequestRecord("id2", "/v1/x", 1.0, body_bytes=100, sent_s=11.5, is_estimated=True))
    ledger.settle(RequestRecord("id3", "/v1/x", 1.0, body_bytes=90, sent_s=10.5))
    ledger.settle(RequestRecord("id4", "/v1/x", 1.0, body_bytes=100, sent_s=11.5, is_estimated=True))
    ledger.tell()
    counted = [(record.tokens_in, record.tokens_out) for kind, record, _ in told if kind == "counted"]
    assert counted == [(30, 10), (30, 5), (None, None), (30, 5)]


def test_who_compares_versions_is_told_of_whole_records() -> None:
    seen: list[tuple[int | None, float]] = []

    class Observer:
        def tell(self, settled: Sequence[Settled]) -> None:
            seen.extend((record.tokens_out, ended_s) for record, ended_s in settled)

    ledger = RequestLedger(None, Listener([]), Observer())
    ledger.settle(RequestRecord("id1", "/v1/x", 1.0, body_bytes=90, sent_s=10.5, tokens_in=30, tokens_out=10))
    ledger.settle(RequestRecord("id2", "/v1/x", 1.0, body_bytes=90, sent_s=10.5, is_estimated=True))
    ledger.tell()
    ledger.tell()
    assert seen == [(10, 12.5), (10, 12.5)]
