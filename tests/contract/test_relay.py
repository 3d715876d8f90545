"""What crosses the gateway, and what it adds: headers, defaults, and bytes that stay as they are."""

import concurrent.futures
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, wait_for

BODY: dict[str, Any] = {"model": "shapes:v1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
CHAT = "/v1/chat/completions"


def engine(runtime_dir: Path, number: int = 0) -> httpx.Client:
    """The engine itself; v1 has the most traffic and so the first number."""
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(runtime_dir / f"{number}.sock")), base_url="http://engine"
    )


def last_request(runtime_dir: Path) -> dict[str, Any]:
    with engine(runtime_dir) as client:
        found: dict[str, Any] = client.get("/simulator/last").json()
    return found


def test_placement_headers_are_on_every_answer(gateway: RunningGateway) -> None:
    answer = gateway.http.post(CHAT, json=BODY, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-gateway-model"] == "shapes"
    assert answer.headers["x-gateway-version"] == "v1"
    assert answer.headers["x-gateway-replica"] == "v1-0"
    assert "x-gateway-error-origin" not in answer.headers


def test_the_engine_gets_defaults_and_its_own_name_and_no_secrets(gateway: RunningGateway, runtime_dir: Path) -> None:
    headers = {"authorization": "Bearer secret", "cookie": "secret", "x-request-id": "mine-2"}
    gateway.http.post(CHAT, json=BODY | {"top_k": 3, "do_sample": False}, headers=headers)
    seen = last_request(runtime_dir)
    body = seen["body"] if isinstance(seen["body"], dict) else json.loads(seen["body"])
    assert body["model"] == "shapes"
    assert (body["temperature"], body["repetition_penalty"], body["top_k"]) == (0, 1.05, 3)
    assert body["messages"][0] == {"role": "system", "content": "You look at shapes."}
    assert "do_sample" not in body
    assert "secret" not in json.dumps(seen)


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_is_the_engines_own_byte_for_byte(
    gateway: RunningGateway, runtime_dir: Path, is_stream: bool
) -> None:
    # All that the gateway would fill in is said, so that both get the same request.
    body = BODY | {"model": "shapes", "stream": is_stream, "temperature": 0, "repetition_penalty": 1, "seed": 7}
    body["messages"] = [{"role": "system", "content": "x"}, *BODY["messages"]]
    headers = {"x-request-id": "same", "x-gateway-version": "v1"}
    with engine(runtime_dir) as direct:
        theirs = direct.post(CHAT, json=body, headers=headers)
    ours = gateway.http.post(CHAT, json=body, headers=headers)
    assert without_time(ours.content) == without_time(theirs.content)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def without_time(data: bytes) -> list[bytes]:
    return [part for part in data.replace(b"\n", b",").split(b",") if not part.startswith(b'"created"')]


def test_pins_by_header_and_their_contradictions(gateway: RunningGateway) -> None:
    pinned = gateway.http.post(CHAT, json=BODY | {"model": "shapes"}, headers={"x-gateway-version": "v2"})
    assert pinned.headers["x-gateway-version"] == "v2"
    assert gateway.http.post(CHAT, json=BODY, headers={"x-gateway-version": "v2"}).status_code == 400
    assert (
        gateway.http.post(CHAT, json=BODY | {"model": "shapes"}, headers={"x-gateway-version": "v9"}).status_code == 404
    )


def test_a_session_stays_on_its_version_and_the_split_holds(gateway: RunningGateway) -> None:
    def version(session: int) -> str:
        headers = {"x-session-id": str(session)}
        body = {"model": "shapes", "prompt": "x"}
        return gateway.http.post("/tokenize", json=body, headers=headers).headers["x-gateway-version"]

    found = [version(session) for session in range(200)]
    assert 0.03 < found.count("v2") / len(found) < 0.2
    assert [version(session) for session in range(20)] == found[:20]


def test_a_hang_up_stops_the_engine(gateway: RunningGateway, runtime_dir: Path) -> None:
    def running() -> float:
        with engine(runtime_dir, 1) as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))

    body = BODY | {"model": "shapes:v2", "stream": True, "max_tokens": 2000, "ignore_eos": True}
    with gateway.http.stream("POST", CHAT, json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert running() == 1
    wait_for(lambda: running() == 0, 1.0)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        (CHAT, b"", {}, 400),
        (CHAT, b"{", {}, 400),
        (CHAT, b"[]", {}, 400),
        (CHAT, b"\xff\xfe", {}, 400),
        (CHAT, b'{"model": 7}', {}, 400),
        (CHAT, b'{"model": "other"}', {}, 404),
        (CHAT, b'{"model": "shapes:v1", "do_sample": "x"}', {}, 400),
        (CHAT, b'{"model": "shapes:v1"}', {"content-type": "text/plain"}, 415),
        (CHAT, b'{"model": "shapes:v1"}', {"content-encoding": "gzip"}, 415),
        (CHAT, b"x" * (9 * 2**20), {}, 413),
        ("/v1/nothing", b"{}", {}, 404),
        ("/v1/models", b"{}", {}, 405),
        ("/metrics", b"{}", {}, 404),
        ("/v1/load_lora_adapter", b"{}", {}, 404),
    ],
)
def test_bad_requests_get_an_openai_error_that_says_what_to_do(
    gateway: RunningGateway, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = gateway.http.post(path, content=content, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 15
    assert answer.headers["x-request-id"]
    assert answer.headers["x-gateway-error-origin"] == "gateway"


def test_get_on_a_relayed_route_is_405(gateway: RunningGateway) -> None:
    assert gateway.http.get(CHAT).status_code == 405


def test_the_engines_refusals_pass_unchanged_and_are_marked(gateway: RunningGateway) -> None:
    answer = gateway.http.post(CHAT, json={"model": "shapes:v1", "messages": "no list"})
    assert answer.status_code == 400
    assert answer.headers["x-gateway-error-origin"] == "engine"
    assert "error" in answer.json()


def test_many_at_once_each_get_their_own_answer(gateway: RunningGateway) -> None:
    def ask(number: int) -> tuple[str, str]:
        messages = [{"role": "user", "content": f"question {number}"}]
        answer = gateway.http.post(CHAT, json=BODY | {"messages": messages, "max_tokens": 8})
        return f"question {number}", answer.json()["choices"][0]["message"]["content"]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        first = dict(pool.map(ask, range(64)))
        second = dict(pool.map(ask, range(64)))
    assert first == second
    assert len(set(first.values())) > 30
