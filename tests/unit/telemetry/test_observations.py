from typing import Any

import pytest

from gateway.telemetry.observations import Observation, Observed, Observing, Usage, observe
from gateway.telemetry.requests import RequestRecord


def record(**fields: Any) -> RequestRecord:
    known = {"model": "m", "version": "v1", "status": 200, "outcome": "done", "stage": 5, "unit": 77, "is_own": True}
    return RequestRecord("id1", "/v1/x", 10.0, **known | fields)


def test_a_stream_that_ended_well_tells_all() -> None:
    ended = record(is_stream=True, first_byte_s=0.5, tokens_in=9, tokens_out=6, finish="stop", caller="anna")
    assert observe(ended, 13.0) == Observation(
        "id1", "m", "v1", 5, 77, is_own=True, did_fail=False, caller="anna", ttft_s=0.5, itl_s=0.5, total_s=3.0,
        tokens_in=9, tokens_out=6, finish="stop",
    )  # fmt: skip


def test_a_whole_answer_has_no_first_token() -> None:
    told = observe(record(first_byte_s=0.5, tokens_out=6), 13.0)
    assert (told.ttft_s, told.itl_s, told.total_s) == (None, None, 3.0)


@pytest.mark.parametrize("fields", [{"tokens_out": 1}, {"tokens_out": None}, {"tokens_out": 9, "is_estimated": True}])
def test_a_pace_needs_tokens_that_were_counted(fields: dict[str, Any]) -> None:
    assert observe(record(is_stream=True, first_byte_s=0.5, **fields), 13.0).itl_s is None


@pytest.mark.parametrize(
    ("status", "outcome", "did_fail"),
    [
        (200, "done", False),
        (200, "broken", True),
        (500, "engine_error", True),
        (503, "no_replica", True),
        (504, "engine_timeout", True),
        (400, "engine_error", None),
        (429, "engine_error", None),
        (400, "invalid_request", None),
        (499, "hung_up", None),
    ],
)
def test_who_is_at_fault(status: int, outcome: str, did_fail: bool | None) -> None:
    told = observe(record(status=status, outcome=outcome), 13.0)
    assert told.did_fail is did_fail
    assert (told.total_s is None) == (did_fail is not False)


class Told:
    def __init__(self) -> None:
        self.told: list[Observed] = []
        self.observing = Observing(self.told.append)

    def end(self, *records: RequestRecord) -> None:
        self.observing.tell([(one, 13.0) for one in records])


def test_requests_of_models_with_nothing_to_compare_are_billed_only() -> None:
    bench = Told()
    bench.end(record(stage=0, tokens_in=3, tokens_out=4))
    assert bench.told == [Observed([], [Usage("", "m", "v1", 1, 0, 3, 4)])]


def test_requests_that_never_got_anywhere_are_not_told() -> None:
    bench = Told()
    bench.end(record(version="", stage=0, status=404))
    assert bench.told == []


def test_what_is_billed_is_added_up_by_caller_model_and_version() -> None:
    bench = Told()
    bench.end(
        record(caller="anna", tokens_in=1, tokens_out=2),
        record(caller="anna", tokens_in=10, tokens_out=20, is_estimated=True, outcome="broken"),
        record(caller="anna", version="v2", status=500, outcome="engine_error"),
        record(caller="bert", tokens_in=5),
    )
    [observed] = bench.told
    assert [one.request_id for one in observed.requests] == ["id1"] * 4
    assert observed.usage == [
        Usage("anna", "m", "v1", 2, 1, 1, 2, 10, 20),
        Usage("anna", "m", "v2", 1, 1),
        Usage("bert", "m", "v1", 1, 0, 5),
    ]
