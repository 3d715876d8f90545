"""A client that hangs up stops the engine's work, by the engine's own running count."""

import concurrent.futures

import httpx
import pytest

from tests.support.pictures import user
from tests.support.running_gateway import RunningGateway, wait_for

pytestmark = pytest.mark.engine

LONG = {"model": "shapes:v1", "messages": user("hello"), "max_tokens": 1900, "ignore_eos": True}


def running(engine: httpx.Client) -> float:
    lines = engine.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{"))


def test_leaving_a_stream_stops_the_engine_within_a_second(demo: RunningGateway, engine: httpx.Client) -> None:
    with demo.http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        wait_for(lambda: running(engine) == 1, 2)
    wait_for(lambda: running(engine) == 0, 1)


def test_leaving_before_the_answer_stops_the_engine_too(demo: RunningGateway, engine: httpx.Client) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(demo.http.post, "/v1/chat/completions", json=LONG, timeout=httpx.Timeout(10, read=1.0))
        wait_for(lambda: running(engine) == 1, 1)
        assert isinstance(asked.exception(5), httpx.ReadTimeout)
    wait_for(lambda: running(engine) == 0, 1)
