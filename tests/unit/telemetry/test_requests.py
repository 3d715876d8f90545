import pytest

from gateway.telemetry.requests import RequestLedger, RequestRecord

Told = list[tuple[str, RequestRecord, float]]


class Listener:
    def __init__(self, told: Told) -> None:
        self._told = told

    def write(self, record: RequestRecord, total_s: float) -> None:
        self._told.append(("written", record, total_s))

    def count(self, record: RequestRecord, total_s: float) -> None:
        self._told.append(("counted", record, total_s))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.requests.time.monotonic", lambda: 12.5)


def test_a_request_that_has_ended_is_written_and_counted_with_its_duration() -> None:
    told: Told = []
    record = RequestRecord("id1", "/v1/x", 10.0)
    RequestLedger(Listener(told), Listener(told)).settle(record)
    assert sorted(told, key=lambda item: item[0]) == [("counted", record, 2.5), ("written", record, 2.5)]


def test_without_a_log_it_is_counted_all_the_same() -> None:
    told: Told = []
    record = RequestRecord("id1", "/v1/x", 12.0)
    RequestLedger(None, Listener(told)).settle(record)
    assert told == [("counted", record, 0.5)]


def test_a_record_that_nobody_filled_is_an_error_without_numbers() -> None:
    record = RequestRecord("id1", "/v1/x", 0.0)
    assert (record.outcome, record.status, record.is_estimated) == ("error", 0, False)
    assert (record.first_byte_s, record.tokens_in, record.tokens_out) == (None, None, None)
