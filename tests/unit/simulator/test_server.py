import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.simulator.engine import Engine
from gateway.simulator.options import Options
from gateway.simulator.server import Server

OPTIONS = Options(port=0, names=("m",), model="/w", adapters={"lora": "/l"}, ttft_s=0, itl_s=0, tokens=4)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

Serve = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Engine]]]


@asynccontextmanager
async def serve(options: Options = OPTIONS) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    engine = Engine(options)
    server = Server(options, engine)
    address = await server.start()
    transport = httpx.AsyncHTTPTransport(uds=options.uds) if options.uds else None
    base = "http://engine" if options.uds else address
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=10, trust_env=False) as client:
        yield client, engine
    await server.stop()


async def test_health_version_and_models() -> None:
    async with serve() as (client, _):
        assert (await client.get("/health")).content == b""
        assert (await client.get("/version")).json() == {"version": "0.32.0"}
        model, adapter = (await client.get("/v1/models")).json()["data"]
    assert (model["id"], model["root"], model["parent"], model["max_model_len"]) == ("m", "/w", None, 32768)
    assert (adapter["id"], adapter["root"], adapter["parent"]) == ("lora", "/l", "m")


async def test_chat_whole_and_streamed_are_the_same_text() -> None:
    async with serve() as (client, _):
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        stream = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    frames = stream.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    text = "".join(json.loads(frame[6:])["choices"][0]["delta"]["content"] for frame in frames[:-2])
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert whole["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": CHAT["messages"], "max_tokens": 3}),
    ],
)
async def test_the_other_generating_routes(path: str, body: dict[str, Any]) -> None:
    async with serve() as (client, _):
        whole = await client.post(path, json=body)
        stream = await client.post(path, json=body | {"stream": True})
    assert (whole.status_code, whole.json()["model"]) == (200, "m")
    assert stream.text.endswith("\n\n")


async def test_the_helper_routes() -> None:
    async with serve() as (client, _):
        tokens = (await client.post("/tokenize", json={"prompt": "grün"})).json()
        assert tokens["count"] == len(tokens["tokens"]) == 5
        assert (await client.post("/detokenize", json={"tokens": tokens["tokens"]})).json() == {"prompt": "grün"}
        chat = (await client.post("/tokenize", json=CHAT)).json()
        rendered = (await client.post("/v1/chat/completions/render", json=CHAT)).json()
        assert rendered["token_ids"] == chat["tokens"]
        counted = await client.post("/v1/messages/count_tokens", json=CHAT)
        assert counted.json() == {"input_tokens": chat["count"]}


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(encoding: str) -> None:
    body = {"input": ["a", "b"], "encoding_format": encoding}
    async with serve() as (client, _):
        data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert data[0]["embedding"] != data[1]["embedding"]
    assert isinstance(data[0]["embedding"], str if encoding == "base64" else list)


async def test_the_last_request_can_be_read_back() -> None:
    async with serve() as (client, _):
        await client.post("/v1/chat/completions", json=CHAT, headers={"X-Probe": "1"})
        await client.get("/health")
        last = (await client.get("/simulator/last")).json()
    assert (last["method"], last["path"], last["headers"]["x-probe"]) == ("POST", "/v1/chat/completions", "1")
    assert json.loads(last["body"]) == CHAT


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/chat/completions", CHAT | {"model": "x"}, 404),
        ("POST", "/v1/chat/completions", {}, 400),
        ("POST", "/v1/chat/completions", CHAT | {"stream_options": 3, "stream": True}, 400),
        ("POST", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": "x"}, 400),
        ("POST", "/v1/responses", {"input": 3}, 400),
        ("POST", "/tokenize", {}, 400),
        ("POST", "/detokenize", {"tokens": "x"}, 400),
        ("POST", "/v1/embeddings", {"input": 3}, 400),
    ],
)
async def test_errors_have_the_shape_of_openai(method: str, path: str, body: Any, status: int) -> None:
    async with serve() as (client, _):
        reply = await client.request(method, path, json=body)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["error"]["code"] == status


async def test_errors_of_messages_have_the_shape_of_anthropic() -> None:
    async with serve() as (client, _):
        reply = await client.post("/v1/messages", json={"model": "x"})
    assert (reply.status_code, reply.json()["type"], reply.json()["error"]["type"]) == (404, "error", "NotFoundError")


async def test_a_key_is_asked_for_under_v1_only() -> None:
    async with serve(replace(OPTIONS, api_key="k")) as (client, _):
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers={"authorization": "Bearer k"})).status_code == 200


@pytest.mark.parametrize("echoes", [True, False])
async def test_the_request_id_names_the_reply(echoes: bool) -> None:
    async with serve(replace(OPTIONS, echo_request_id=echoes)) as (client, _):
        reply = await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r1"})
    assert reply.json()["id"] == "chatcmpl-r1"
    assert reply.headers.get("x-request-id") == ("r1" if echoes else None)


async def test_a_client_that_hangs_up_frees_the_engine() -> None:
    async with serve(replace(OPTIONS, itl_s=3600)) as (client, engine):
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
            assert b"assistant" in await anext(reply.aiter_bytes())
            metrics = (await client.get("/metrics")).text
            assert 'vllm:num_requests_running{engine="0",model_name="m"} 1.0' in metrics
        await engine.wait_idle()
        assert 'vllm:num_requests_running{engine="0",model_name="m"} 0.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize(("rate", "counts"), [(0.0, (40, 160, 0)), (0.25, (20, 80, 20)), (1.0, (8, 32, 32))])
async def test_guesses_are_counted_as_if_they_had_been_made(rate: float, counts: tuple[int, int, int]) -> None:
    async with serve(replace(OPTIONS, guessed_tokens=4, acceptance=rate, tokens=40, itl_s=0)) as (client, _):
        await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 40})
        metrics = (await client.get("/metrics")).text
        for name, count in zip(("drafts", "draft_tokens", "accepted_tokens"), counts, strict=True):
            assert f'vllm:spec_decode_num_{name}_total{{engine="0",model_name="m"}} {count}.0' in metrics
    async with serve(OPTIONS) as (client, _):
        assert "spec_decode" not in (await client.get("/metrics")).text


async def test_a_unix_socket_that_is_left_over_fails_the_start(tmp_path: Path) -> None:
    options = replace(OPTIONS, uds=str(tmp_path / "s"))
    async with serve(options) as (client, _):
        assert (await client.get("/health")).status_code == 200
    (tmp_path / "s").touch()
    with pytest.raises(OSError, match="in use"):
        await Server(options, Engine(options)).start()


async def test_a_cut_stream_ends_without_an_end() -> None:
    async with serve(replace(OPTIONS, faults={"cut-stream": 2})) as (client, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json=CHAT | {"stream": True})


async def test_stopping_ends_open_streams_when_the_time_is_up() -> None:
    engine = Engine(options := replace(OPTIONS, itl_s=3600))
    server = Server(options, engine)
    request: dict[str, Any] = {"method": "POST", "url": "/v1/chat/completions", "json": CHAT | {"stream": True}}
    address = await server.start()
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client, client.stream(**request) as reply:
        pieces = reply.aiter_bytes()
        await anext(pieces)
        await server.stop()
        with pytest.raises(httpx.RemoteProtocolError):
            _ = [piece async for piece in pieces]
    await engine.wait_idle()


async def test_asleep_it_lets_requests_hang_until_it_is_woken() -> None:
    async with serve(replace(OPTIONS, can_sleep=True)) as (client, _):
        assert (await client.post("/sleep?level=1")).json()["status"] == "sleeping"
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=CHAT, timeout=0.1)
        assert (await client.post("/wake_up")).json()["status"] == "awake"
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    async with serve() as (client, _):
        assert (await client.post("/sleep")).status_code == 404, "only if it was started so"
