from typing import Any

import msgspec
import pytest

from gateway.state import Entry, First, Value
from gateway.telemetry.observations import Observation
from gateway.telemetry.samples import Metric, Sample, find_bucket
from gateway.traffic import evidence


def observation(**fields: Any) -> Observation:
    known = Observation(
        "id1", "m", "v1", 5, 77, is_own=True, did_fail=False, caller="anna", ttft_s=0.5, itl_s=0.02, total_s=2.0,
        tokens_in=9, tokens_out=40, finish="stop",
    )  # fmt: skip
    return msgspec.structs.replace(known, **fields)


def values(prices: evidence.Prices | None = None, **fields: Any) -> dict[Metric, float]:
    return {metric: value for metric, [value] in evidence.list_values([observation(**fields)], prices).items()}


def test_an_answer_that_came_whole_tells_all() -> None:
    assert values(prices=(0.0, 6250.0)) == {
        Metric.ERROR_RATE: 0.0, Metric.TTFT_S: 0.5, Metric.ITL_S: 0.02, Metric.TOTAL_S: 2.0, Metric.TOKENS_IN: 9.0,
        Metric.TOKENS_OUT: 40.0, Metric.COST: 0.25, Metric.LENGTH_STOPS: 0.0, Metric.REFUSALS: 0.0,
    }  # fmt: skip


def test_a_failure_is_a_failure_and_nothing_else() -> None:
    assert values(did_fail=True) == {Metric.ERROR_RATE: 1.0}


def test_what_is_the_clients_doing_tells_nothing() -> None:
    assert values(did_fail=None) == {}


def test_what_is_not_known_is_not_told() -> None:
    sparse = values(ttft_s=None, itl_s=None, tokens_in=None, tokens_out=None, finish="")
    assert sparse == {Metric.ERROR_RATE: 0.0, Metric.TOTAL_S: 2.0}


@pytest.mark.parametrize(
    ("finish", "limited", "refused"), [("length", 1, 0), ("content_filter", 0, 1), ("tool_calls", 0, 0)]
)
def test_why_an_answer_ended_counts(finish: str, limited: int, refused: int) -> None:
    found = values(finish=finish)
    assert (found[Metric.LENGTH_STOPS], found[Metric.REFUSALS]) == (limited, refused)


def test_a_users_first_request_and_first_stream_count() -> None:
    one = observation(finish="")
    request, stream = [evidence.write_first(one, group, None) for group in evidence.list_groups(one)]
    assert request == First(5, "v1", "request", 77, [
        Value("error_rate", 0.0), Value("total_s", 2.0, find_bucket(2.0)), Value("tokens_in", 9.0), Value("tokens_out", 40.0),
    ])  # fmt: skip
    assert stream == First(5, "v1", "stream", 77, [
        Value("ttft_s", 0.5, find_bucket(0.5)), Value("itl_s", 0.02, find_bucket(0.02))])  # fmt: skip


def test_who_asked_for_the_version_or_stands_in_for_it_is_no_evidence() -> None:
    assert evidence.list_groups(observation(is_own=False)) == ()
    assert evidence.list_groups(observation(did_fail=None)) == ()
    assert evidence.list_groups(observation(did_fail=True)) == (evidence.REQUEST_GROUP,)


def test_requests_add_up() -> None:
    sums: dict[tuple[int, str, str], Sample] = {}
    sparse = observation(ttft_s=None, itl_s=None, tokens_in=None, tokens_out=None, finish="")
    for total_s in (1.0, 3.0):
        evidence.add(sums, [msgspec.structs.replace(sparse, total_s=total_s)])
    assert sums[5, "v1", "error_rate"] == Sample(2, 0.0, 0.0, {})
    assert sums[5, "v1", "total_s"] == Sample(2, 4.0, 10.0, {find_bucket(1.0): 1, find_bucket(3.0): 1})


def test_what_is_remembered_for_feedback() -> None:
    key, entry = evidence.remember(observation())
    assert entry == Entry("m", "v1", 5, 77, True)
    assert key == evidence.write_key("anna", observation().request_id) != evidence.write_key("", key)


def test_tokens_have_a_price() -> None:
    assert evidence.find_cost(observation(), 1.0, 10.0) == pytest.approx((9 + 400) / 1e6)
    assert evidence.find_cost(observation(tokens_in=None), 1.0, 10.0) is None


@pytest.mark.parametrize(
    ("value", "is_fine"),
    [(0.0, True), (1.0, True), (1.01, False), (-0.1, False), (float("nan"), False), (float("inf"), False)],
)
def test_what_can_be_a_judgement(value: float, is_fine: bool) -> None:
    assert evidence.is_number(value, 0.0, 1.0) == is_fine
