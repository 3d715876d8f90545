import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest, Draining, NoReplica, UnknownRoute, UpstreamFailed
from gateway.fleet.replica import Replica
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.forward import Call, Forwarder
from gateway.proxy.upstream import Upstream
from gateway.telemetry.logs import RequestRecord
from gateway.traffic.routes import ModelRoute, RouteBoard, Routes, VersionRoute
from gateway.traffic.split import Split
from tests.support.scripted_engine import Script, answer, chunked, recorder, scripted_engine

ANSWER = b'{"id":"1","model":"shapes","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
EVENTS = [
    b'data: {"model":"shapes","choices":[{"delta":{"content":"red"}}]}\n\n',
    b'data: {"model":"shapes","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n',
    b"data: [DONE]\n\n",
]


def routes(address: str, *, is_draining: bool = False) -> Routes:
    versions = {
        "v1": VersionRoute("v1", (Replica("v1-0", "shapes", "v1", address, "shapes"),), frozenset({"mirror"})),
        "v2": VersionRoute("v2", state="warming"),
    }
    split = Split.from_weights("shapes", {"v1": 1.0, "v2": 0.0})
    return Routes({"shapes": ModelRoute("shapes", versions, split, ("header:x-session-id", "user"))}, is_draining)


def forwarder(address: str, **more: Any) -> Forwarder:
    return Forwarder(RouteBoard(routes(address, **more)), Upstream(first_byte_timeout_s=5, idle_timeout_s=5))


def call(body: dict[str, Any] | bytes, *headers: tuple[bytes, bytes]) -> Call:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    endpoint = ENDPOINTS["/v1/chat/completions"]
    return Call(endpoint, "id1", list(headers), data, "127.0.0.1", RequestRecord("id1", endpoint.path, 0.0))


async def ask(folder: Path, scripts: list[Script], body: dict[str, Any], *headers: tuple[bytes, bytes]) -> Any:
    async with scripted_engine(folder, scripts) as (engine, address):
        sent, send = recorder()
        relay = forwarder(address)
        asked = call(body, *headers)
        await relay.forward(asked, send)
        assert relay.running_count == 0
        return sent, asked, engine


def body_of(sent: list[dict[str, Any]]) -> bytes:
    return b"".join(message["body"] for message in sent[1:])


async def test_an_answer_passes_unchanged_with_the_placement_headers(tmp_path: Path) -> None:
    sent, asked, engine = await ask(tmp_path, [[answer(ANSWER)]], {"model": "shapes"})
    assert sent[0]["status"] == 200
    headers = dict(sent[0]["headers"])
    assert headers[b"x-request-id"] == b"id1"
    assert (headers[b"x-gateway-model"], headers[b"x-gateway-version"], headers[b"x-gateway-replica"]) == (
        b"shapes",
        b"v1",
        b"v1-0",
    )
    assert b"x-gateway-error-origin" not in headers
    assert headers[b"content-length"] == str(len(ANSWER)).encode()
    assert body_of(sent) == ANSWER
    assert (asked.record.outcome, asked.record.tokens_in, asked.record.tokens_out) == ("done", 3, 2)
    assert b"x-request-id: id1" in engine.requests[0]


async def test_the_public_name_asked_for_is_the_name_answered(tmp_path: Path) -> None:
    sent, _, _ = await ask(tmp_path, [[answer(ANSWER)]], {"model": "shapes:v1"})
    assert json.loads(body_of(sent))["model"] == "shapes:v1"


async def test_without_a_model_the_only_one_is_meant(tmp_path: Path) -> None:
    sent, _, engine = await ask(tmp_path, [[answer(ANSWER)]], {"messages": []})
    assert sent[0]["status"] == 200
    assert b'"model":"shapes"' in engine.requests[0]


async def test_a_stream_hides_the_usage_nobody_asked_for(tmp_path: Path) -> None:
    sent, asked, engine = await ask(tmp_path, [chunked(EVENTS)], {"model": "shapes", "stream": True})
    assert body_of(sent) == EVENTS[0] + EVENTS[2]
    assert sent[-1].get("more_body", False) is False
    assert b'"stream_options":{"include_usage":true}' in engine.requests[0]
    assert (asked.record.outcome, asked.record.tokens_out) == ("done", 1)


async def test_a_stream_shows_the_usage_that_was_asked_for(tmp_path: Path) -> None:
    body = {"model": "shapes", "stream": True, "stream_options": {"include_usage": True}}
    sent, _, _ = await ask(tmp_path, [chunked(EVENTS)], body)
    assert body_of(sent) == b"".join(EVENTS)


@pytest.mark.parametrize("has_end", [True, False])
async def test_a_stream_that_breaks_ends_with_an_error_event(tmp_path: Path, has_end: bool) -> None:
    sent, asked, _ = await ask(tmp_path, [chunked(EVENTS[:1], has_end=has_end)], {"model": "shapes", "stream": True})
    events = body_of(sent).split(b"\n\n")
    assert events[0] + b"\n\n" == EVENTS[0]
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    assert events[2] == b"data: [DONE]"
    assert asked.record.outcome == "broken"


async def test_an_engines_error_passes_unchanged_and_is_marked(tmp_path: Path) -> None:
    error = b'{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'
    sent, asked, _ = await ask(tmp_path, [[answer(error, status="400 Bad Request")]], {"model": "shapes"})
    assert sent[0]["status"] == 400
    assert dict(sent[0]["headers"])[b"x-gateway-error-origin"] == b"engine"
    assert body_of(sent) == error
    assert asked.record.outcome == "engine_error"


async def test_a_route_the_engine_does_not_have_is_an_openai_error(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[answer(b'{"detail":"Not Found"}', status="404 Not Found")]]) as (_, address):
        with pytest.raises(UnknownRoute, match="shapes:v1 does not answer /v1/chat/completions"):
            await forwarder(address).forward(call({"model": "shapes"}), recorder()[1])


async def test_an_answer_cut_in_the_middle_is_an_error_not_half_an_answer(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[answer(ANSWER)[:-10], None]]) as (_, address):
        sent, send = recorder()
        with pytest.raises(UpstreamFailed):
            await forwarder(address).forward(call({"model": "shapes"}), send)
        assert sent == []


async def test_a_version_without_a_replica_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoReplica, match="warming") as caught:
        await forwarder("unix:///nowhere").forward(call({"model": "shapes:v2"}), recorder()[1])
    assert caught.value.retry_after_s is not None


async def test_the_version_header_pins() -> None:
    pinned = call({"model": "shapes"}, (b"x-gateway-version", b"v2"))
    with pytest.raises(NoReplica, match="shapes:v2"):
        await forwarder("unix:///nowhere").forward(pinned, recorder()[1])


async def test_draining_takes_nothing_new() -> None:
    with pytest.raises(Draining):
        await forwarder("unix:///nowhere", is_draining=True).forward(call({"model": "shapes"}), recorder()[1])


async def test_a_user_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest, match="user"):
        await forwarder("unix:///nowhere").forward(call({"model": "shapes", "user": 7}), recorder()[1])


async def test_a_hang_up_frees_the_slot_and_the_engine(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[5.0]]) as (engine, address):
        relay = forwarder(address)
        work = asyncio.get_running_loop().create_task(relay.forward(call({"model": "shapes"}), recorder()[1]))
        while not engine.requests:
            await asyncio.sleep(0)
        assert relay.running_count == 1
        work.cancel()
        async with asyncio.timeout(2):
            await engine.hung_up.wait()
        assert relay.running_count == 0
