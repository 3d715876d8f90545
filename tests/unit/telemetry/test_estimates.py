from typing import Any

import pytest

from gateway.telemetry.estimates import TokenEstimates
from gateway.telemetry.requests import RequestRecord


def record(**changes: Any) -> RequestRecord:
    fields = {"request_id": "id", "path": "/v1/x", "started_s": 0.0, "model": "shapes", "version": "v1"}
    return RequestRecord(**(fields | {"body_bytes": 900} | changes))


def counted(tokens_in: int, tokens_out: int | None, **changes: Any) -> RequestRecord:
    return record(tokens_in=tokens_in, tokens_out=tokens_out, **changes)


def filled(estimates: TokenEstimates, total_s: float = 1.0, **changes: Any) -> tuple[int | None, int | None]:
    cut = record(is_estimated=True, **changes)
    estimates.fill(cut, total_s)
    return cut.tokens_in, cut.tokens_out


def test_of_what_nothing_is_known_nothing_is_said() -> None:
    estimates = TokenEstimates()
    assert filled(estimates) == (None, None)
    estimates.learn(counted(100, 10), 1.0)
    for other in ({"model": "m"}, {"version": "v2"}, {"path": "/v1/y"}):
        assert filled(estimates, **other) == (None, None)


def test_an_answer_has_come_as_far_as_the_time_allowed() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(100, 10), 1.0)
    estimates.learn(counted(100, 90), 9.0)
    assert filled(estimates, 5.0) == (100, 50)
    assert filled(estimates, 0.01) == (100, 0)


def test_no_answer_is_longer_than_the_longest() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(100, 30), 3.0)
    assert filled(estimates, 600.0) == (100, 30), "an engine that hangs generates nothing"


def test_few_requests_count_alike() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(5, 1), 1.0)
    for _ in range(10):
        estimates.learn(counted(500, 1), 1.0)
    assert filled(estimates)[0] == pytest.approx(455, abs=15)


def test_of_two_sizes_as_near_the_smaller_counts() -> None:
    for sizes in ((200, 60_000), (60_000, 200)):
        estimates = TokenEstimates()
        for size in sizes:
            estimates.learn(counted(size // 10, 1, body_bytes=size), 1.0)
        assert filled(estimates, body_bytes=3000)[0] == 20


def test_answers_in_no_time_say_nothing_of_pace() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(100, 30), 0.0)
    assert filled(estimates) == (100, 0)


def test_what_came_is_left_as_it_is() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(100, 10), 1.0)
    assert filled(estimates, 5.0, tokens_out=3) == (100, 3)


@pytest.mark.parametrize(
    ("body_bytes", "tokens_in"), [(0, 20), (150, 20), (255, 20), (500, 20), (5_000, 300), (100_000, 300), (2**30, 300)]
)
def test_a_prompt_is_like_those_of_its_size(body_bytes: int, tokens_in: int) -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(20, 1, body_bytes=200), 1.0)
    estimates.learn(counted(300, 1, body_bytes=60_000), 1.0)
    assert filled(estimates, body_bytes=body_bytes)[0] == tokens_in


def test_what_is_known_follows_what_comes() -> None:
    estimates = TokenEstimates()
    for _ in range(300):
        estimates.learn(counted(100, 10), 1.0)
    for _ in range(300):
        estimates.learn(counted(200, 40), 1.0)
    tokens_in, tokens_out = filled(estimates, 0.5)
    assert tokens_in == pytest.approx(200, abs=2)
    assert tokens_out == pytest.approx(20, abs=1)


def test_one_request_changes_little() -> None:
    estimates = TokenEstimates()
    for _ in range(300):
        estimates.learn(counted(100, 10), 1.0)
    estimates.learn(counted(600, 60), 1.0)
    assert filled(estimates, 1.0) == (110, 11)


def test_without_an_answer_there_are_prompts_alone() -> None:
    estimates = TokenEstimates()
    estimates.learn(counted(100, None), 0.5)
    assert filled(estimates) == (100, 0)
