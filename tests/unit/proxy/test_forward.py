import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import (
    BadRequest,
    ClientStalled,
    Draining,
    GatewayError,
    NoReplica,
    OperatorFault,
    UnknownRoute,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.fleet.replica import Replica
from gateway.proxy.call import Call, RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.exchange import AnswerHead
from gateway.proxy.forward import Forwarder, Passage, placement_lines
from gateway.proxy.headers import lines_for_engine
from gateway.proxy.upstream import Upstream
from gateway.proxy.waiting import WaitingRoom
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, RouteBoard, Routes, VersionRoute
from gateway.traffic.split import Split
from tests.support.recorders import RecordingClient
from tests.support.scripted_engine import Script, ScriptedEngine, answer, chunked, scripted_engine

ANSWER = b'{"id":"1","model":"shapes","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
WORDS = [b'data: {"model":"shapes","choices":[{"delta":{"content":"%d"}}]}\n\n' % n for n in range(4)]
USAGE = b'data: {"model":"shapes","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
EVENTS = [WORDS[0], USAGE, DONE]
HEAD = AnswerHead(200, b"content-type: text/event-stream; charset=utf-8\r\n", is_stream=True)
PLAIN_HEAD = AnswerHead(200, b"", is_stream=False)


def routes(
    *addresses: str, served_name: str = "shapes", routing: str = "least_loaded",
    sticky_by: tuple[str, ...] = ("header:x-session-id", "user"),
) -> Routes:  # fmt: skip
    replicas = tuple(Replica(f"v1-{n}", "shapes", "v1", address, served_name) for n, address in enumerate(addresses))
    versions = {
        "v1": VersionRoute("v1", replicas, {"mirror": "shapes:v1+mirror"}, {"top_k": b"5"}, routing=routing),
        "v2": VersionRoute("v2", state="warming"),
    }
    split = Split.over("shapes", Allocation.divide({"v1": 1.0, "v2": 0.0}))
    return Routes({"shapes": ModelRoute("shapes", versions, split, sticky_by)})


def nobody_waits() -> WaitingRoom:
    return WaitingRoom(lambda model, version: None, 5)


def call(body: Any, *headers: tuple[bytes, bytes], path: str = "/v1/chat/completions") -> Call:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = RequestHead(ENDPOINTS[path], dict(reversed(headers)), lines_for_engine(list(headers)))
    return Call(head, data, "9.9.9.9", RequestRecord("id1", path, 0.0))


class Asked:
    """One call over a scripted engine, with all that came of it."""

    def __init__(self, relay: Forwarder, engine: ScriptedEngine, asked: Call, client: RecordingClient) -> None:
        self.relay, self.engine, self.call, self.client = relay, engine, asked, client
        self.record = asked.record
        self.passage = relay.forward(asked, client)

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await self.client.over.wait()
        assert self.relay.running == {}
        assert self.passage.is_over

    async def step(self, name: str) -> None:
        async with asyncio.timeout(5):
            while name not in self.client.steps:
                await asyncio.sleep(0)

    @property
    def sent(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.engine.requests[0].partition(b"\r\n\r\n")[2])
        return body


@asynccontextmanager
async def asking(
    folder: Path, scripts: list[Script], body: Any, *headers: tuple[bytes, bytes], path: str = "/v1/chat/completions",
    served_name: str = "shapes",
) -> AsyncIterator[Asked]:  # fmt: skip
    async with scripted_engine(folder, scripts) as (engine, address):
        upstream = Upstream(first_byte_timeout_s=5, idle_timeout_s=5)
        relay = Forwarder(RouteBoard(routes(address, served_name=served_name)), upstream, nobody_waits())
        try:
            yield Asked(relay, engine, call(body, *headers, path=path), RecordingClient())
        finally:
            upstream.close()


async def ask(folder: Path, scripts: list[Script], body: Any, *headers: tuple[bytes, bytes], **more: Any) -> Asked:
    async with asking(folder, scripts, body, *headers, **more) as asked:
        await asked.over()
        return asked


class FakeExchange:
    """Remembers what it was told to do."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_sent = True

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def abort(self) -> None:
        self.told.append("abort")


class FakeUpstream:
    """Takes requests and answers none: the test tells the passage by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.exchange = FakeExchange()
        self.failure: Exception | None = None

    def request(self, address: str, head: bytes, body: Any, reader: Any) -> FakeExchange:
        if self.failure is not None:
            raise self.failure
        self.asked.append((address, b"".join(body)))
        return self.exchange


class Told:
    """A passage whose engine is played by the test."""

    def __init__(
        self, body: Any = None, on_step: Callable[[str], None] = lambda step: None, *, served_name: str = "shapes",
        takes_chunks: bool = True, **more: Any,
    ) -> None:  # fmt: skip
        self.upstream = FakeUpstream()
        self.relay = Forwarder(RouteBoard(routes("unix:///e", served_name=served_name)), self.upstream, nobody_waits())  # type: ignore[arg-type]
        self.client = RecordingClient(on_step, takes_chunks=takes_chunks)
        self.call = call(body or {"model": "shapes", "stream": True}, **more)
        self.record = self.call.record
        self.passage: Passage = self.relay.forward(self.call, self.client)
        assert self.relay.running == {"unix:///e": 1}

    def begun(self, *data: bytes) -> "Told":
        self.passage.on_head(HEAD)
        for piece in data:
            self.passage.on_data(piece)
        return self


def refusal(*addresses: str, asked: Call, **more: Any) -> GatewayError:
    upstream = FakeUpstream()
    relay = Forwarder(RouteBoard(routes(*addresses, **more)), upstream, nobody_waits())  # type: ignore[arg-type]
    client = RecordingClient()
    with pytest.raises(GatewayError) as caught:
        relay.forward(asked, client)
    assert (upstream.asked, client.steps, relay.running) == ([], [], {})
    return caught.value


# Answers.


async def test_an_answer_passes_unchanged_with_the_placement_headers(tmp_path: Path) -> None:
    extra = "x-engine: 1\r\nset-cookie: a=b\r\nserver: uvicorn\r\nx-request-id: other\r\n"
    asked = await ask(tmp_path, [[answer(ANSWER, extra=extra)]], {"model": "shapes"})
    assert asked.client.steps == ["answer"]
    assert asked.client.status == 200
    assert asked.client.headers == {
        b"content-type": b"application/json",
        b"x-engine": b"1",
        b"x-request-id": b"id1",
        b"x-gateway-model": b"shapes",
        b"x-gateway-version": b"v1",
        b"x-gateway-replica": b"v1-0",
    }
    assert asked.client.body == ANSWER
    record = asked.record
    assert (record.outcome, record.tokens_in, record.tokens_out, record.is_estimated) == ("done", 3, 2, False)
    assert (record.model, record.version, record.replica) == ("shapes", "v1", "v1-0")
    assert record.first_byte_s is not None
    assert b"x-request-id: id1" in asked.engine.requests[0]
    assert asked.sent == {"model": "shapes", "top_k": 5}


async def test_the_engine_gets_the_place_in_a_trace(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[answer(ANSWER)]]) as (engine, address):
        upstream = Upstream(first_byte_timeout_s=5, idle_timeout_s=5)
        traced = call({}, (b"accept", b"*/*"))
        traced.trace_lines = b"traceparent: 00-1\r\n"
        asked = Asked(
            Forwarder(RouteBoard(routes(address)), upstream, nobody_waits()), engine, traced, RecordingClient()
        )
        await asked.over()
        upstream.close()
    head = engine.requests[0].partition(b"\r\n\r\n")[0]
    assert {b"accept: */*", b"traceparent: 00-1"} <= set(head.split(b"\r\n"))


@pytest.mark.parametrize(
    ("served_name", "asked_for", "expected"),
    [
        ("shapes", "shapes", "shapes"),
        ("shapes", "shapes:v1", "shapes:v1"),
        ("org/Shapes-7B", "shapes", "org/Shapes-7B"),
        ("org/Shapes-7B", "shapes:v1", "org/Shapes-7B"),
        ("org/Shapes-7B", "shapes:v1+mirror", "shapes:v1+mirror"),
    ],
)  # fmt: skip
async def test_the_engine_gets_its_own_name_and_the_client_the_one_asked_for(
    tmp_path: Path, served_name: str, asked_for: str, expected: str
) -> None:
    engine_name = expected if "+" in asked_for else served_name
    document = json.dumps({"model": engine_name, "choices": []}).encode()
    asked = await ask(tmp_path, [[answer(document)]], {"model": asked_for}, served_name=served_name)
    assert asked.sent["model"] == engine_name
    assert json.loads(asked.client.body)["model"] == asked_for
    events = [word.replace(b'"shapes"', json.dumps(engine_name).encode()) for word in WORDS] + [DONE]
    body = {"model": asked_for, "stream": True}
    asked = await ask(tmp_path, [chunked(events)], body, served_name=served_name)
    assert asked.sent["model"] == engine_name
    assert asked.client.body == b"".join(WORDS).replace(b'"shapes"', json.dumps(asked_for).encode()) + DONE


async def test_without_a_model_the_only_one_is_meant(tmp_path: Path) -> None:
    asked = await ask(tmp_path, [[answer(ANSWER)]], {"messages": []})
    assert asked.client.status == 200
    assert asked.sent["model"] == "shapes"


async def test_an_engines_error_passes_unchanged_and_is_marked(tmp_path: Path) -> None:
    error = b'{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'
    asked = await ask(tmp_path, [[answer(error, status="400 Bad Request")]], {"model": "shapes:v1"})
    assert (asked.client.status, asked.client.body) == (400, error)
    assert asked.client.headers[b"x-gateway-error-origin"] == b"engine"
    assert (asked.record.outcome, asked.record.tokens_out) == ("engine_error", None)


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
async def test_a_route_the_engine_does_not_have_is_an_openai_error(tmp_path: Path, status: str) -> None:
    asked = await ask(tmp_path, [[answer(b'{"detail":"Not Found"}', status=status)]], {"model": "shapes"})
    assert asked.client.steps == ["refuse"]
    assert isinstance(asked.client.error, UnknownRoute)
    assert "shapes:v1 does not answer /v1/chat/completions" in asked.client.error.message


async def test_a_404_that_the_engine_means_passes(tmp_path: Path) -> None:
    error = b'{"error":{"message":"no such LoRA"}}'
    asked = await ask(tmp_path, [[answer(error, status="404 Not Found")]], {"model": "shapes"})
    assert (asked.client.status, asked.client.body) == (404, error)


async def test_an_answer_cut_in_the_middle_is_an_error_not_half_an_answer(tmp_path: Path) -> None:
    asked = await ask(tmp_path, [[answer(ANSWER)[:-10], None]], {"model": "shapes"})
    assert asked.client.steps == ["refuse"]
    assert isinstance(asked.client.error, UpstreamFailed)


async def test_an_engine_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    upstream = Upstream(first_byte_timeout_s=5, idle_timeout_s=5)
    relay = Forwarder(RouteBoard(routes(f"unix://{tmp_path}/nobody.sock")), upstream, nobody_waits())
    client = RecordingClient()
    relay.forward(call({"model": "shapes"}), client)
    assert relay.running_count == 1
    async with asyncio.timeout(5):
        await client.over.wait()
    assert isinstance(client.error, NoReplica)
    assert relay.running == {}
    upstream.close()


async def test_a_large_body_reaches_the_engine_whole(tmp_path: Path) -> None:
    body = {
        "model": "shapes",
        "messages": [{"role": "user", "content": "x" * 300_000}],
        "seed": 1,
        "user": "ü" * 70_000,
    }
    asked = await ask(tmp_path, [[answer(ANSWER)]], body)
    assert asked.sent == {**body, "top_k": 5}
    assert asked.call.body == b""  # not held on to for as long as the answer takes


# Streams.


async def test_a_stream_hides_the_usage_nobody_asked_for(tmp_path: Path) -> None:
    asked = await ask(tmp_path, [chunked(EVENTS)], {"model": "shapes", "stream": True})
    assert asked.client.steps[0] == "begin"
    assert asked.client.steps[-1] == "end"
    assert asked.client.body == EVENTS[0] + EVENTS[2]
    assert asked.client.headers[b"content-type"].startswith(b"text/event-stream")
    assert asked.client.headers[b"x-gateway-replica"] == b"v1-0"
    assert b"transfer-encoding" not in asked.client.headers
    assert asked.sent["stream_options"] == {"include_usage": True}
    record = asked.record
    assert (record.outcome, record.tokens_in, record.tokens_out, record.is_estimated) == ("done", 3, 1, False)


async def test_a_stream_shows_the_usage_that_was_asked_for(tmp_path: Path) -> None:
    body = {"model": "shapes", "stream": True, "stream_options": {"include_usage": True}}
    asked = await ask(tmp_path, [chunked(EVENTS)], body)
    assert asked.client.body == b"".join(EVENTS)


@pytest.mark.parametrize("has_end", [True, False])
async def test_a_stream_that_breaks_ends_with_an_error_event(tmp_path: Path, has_end: bool) -> None:
    cut = [*EVENTS[:1], b'data: {"half'][: 1 if has_end else 2]
    asked = await ask(tmp_path, [chunked(cut, has_end=has_end)], {"model": "shapes", "stream": True})
    events = asked.client.body.split(b"\n\n")
    assert events[0] + b"\n\n" == EVENTS[0]
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    assert events[2:] == [b"data: [DONE]", b""]
    assert (asked.record.outcome, asked.client.steps[-1]) == ("broken", "end")


async def test_half_an_event_is_not_sent_before_an_error_event() -> None:
    told = Told().begun(WORDS[0], b'data: {"half')
    told.passage.on_end()
    assert b"half" not in told.client.body
    assert b'"upstream_error"' in told.client.body


async def test_an_endless_event_breaks_the_stream_and_the_engines_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.proxy.sse._MAX_EVENT_BYTES", 100)
    told = Told().begun(WORDS[0], b"data: " + b"x" * 200)
    assert told.upstream.exchange.told == ["abort"]
    assert told.client.steps[-1] == "end"
    assert b"more than 4 MiB" in told.client.body
    assert (told.record.outcome, told.relay.running) == ("broken", {})


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_a_broken_stream_ends_in_the_manner_of_its_route(path: str) -> None:
    told = Told(path=path).begun(b"event: x\ndata: {}\n\n")
    told.passage.on_failure(UpstreamFailed("It broke."))
    assert told.client.body.startswith(b"event: x\ndata: {}\n\nevent: error\ndata: ")
    assert told.client.steps == ["begin", "write", "end"]


async def test_plain_chunks_may_take_the_shortcut_to_the_client() -> None:
    told = Told().begun()
    shortcut = told.passage.on_data(WORDS[0])
    assert shortcut is not None
    shortcut.write(b"1b\r\n" + WORDS[1] + b"\r\n")
    assert told.client.body == WORDS[0] + WORDS[1]
    assert {b"[DONE]", b'"usage":', b'{"error"'} == set(shortcut.stops)


async def test_no_chunk_may_overtake_an_event_that_is_held() -> None:
    told = Told().begun(WORDS[0])
    assert told.passage.on_data(WORDS[1][:-1]) is None
    assert told.passage.on_data(WORDS[1][-1:]) is not None


async def test_answers_that_are_renamed_or_no_streams_take_no_shortcut() -> None:
    told = Told({"model": "shapes", "stream": True}, served_name="other").begun()
    assert told.passage.on_data(WORDS[0]) is None
    told = Told()
    told.passage.on_head(PLAIN_HEAD)
    assert told.passage.on_data(ANSWER) is None


async def test_a_client_that_takes_no_chunks_gets_none() -> None:
    told = Told(takes_chunks=False).begun()
    assert told.passage.on_data(WORDS[0]) is None


async def test_what_one_read_brings_goes_out_in_the_same_callback() -> None:
    told = Told()
    told.begun()
    for word in WORDS:
        before = told.client.body
        told.passage.on_data(word)
        assert told.client.body == before + word
    told.passage.on_data(DONE[:5])
    assert told.client.body == b"".join(WORDS)


# Endings.


async def test_a_hang_up_frees_the_slot_and_the_engine(tmp_path: Path) -> None:
    async with asking(tmp_path, [[5.0]], {"model": "shapes"}) as asked:
        while not asked.engine.requests:
            await asyncio.sleep(0)
        assert asked.relay.running_count == 1
        asked.passage.hang_up()
        assert asked.relay.running == {}
        async with asyncio.timeout(2):
            await asked.engine.hung_up.wait()
        assert asked.client.steps == []
        assert (asked.record.status, asked.record.outcome) == (499, "hung_up")


async def test_a_hang_up_before_the_connection_is_open_sends_nothing(tmp_path: Path) -> None:
    async with asking(tmp_path, [[5.0]], {"model": "shapes"}) as asked:
        asked.passage.hang_up()
        await asyncio.sleep(0.01)
        assert (asked.engine.requests, asked.client.steps, asked.relay.running) == ([], [], {})
        assert not asked.record.is_estimated, "no engine has worked on it"


async def test_the_tokens_of_an_aborted_stream_are_estimated() -> None:
    told = Told().begun(*WORDS)
    told.passage.hang_up()
    assert told.upstream.exchange.told == ["abort"]
    record = told.record
    assert (record.status, record.outcome) == (499, "hung_up")
    assert (record.tokens_in, record.tokens_out, record.is_estimated) == (None, 3, True)


async def test_tokens_that_took_the_shortcut_are_estimated_too() -> None:
    told = Told().begun()
    shortcut = told.passage.on_data(b"".join(WORDS))
    assert shortcut is not None
    shortcut.event_count = 10
    told.passage.hang_up()
    assert (told.record.tokens_out, told.record.is_estimated) == (13, True)


async def test_no_tokens_are_estimated_for_a_stream_without_an_event() -> None:
    told = Told().begun()
    told.passage.hang_up()
    assert (told.record.tokens_out, told.record.is_estimated) == (0, True)


async def test_usage_seen_before_a_hang_up_is_exact() -> None:
    told = Told().begun(*WORDS, USAGE)
    told.passage.hang_up()
    assert (told.record.tokens_in, told.record.tokens_out, told.record.is_estimated) == (3, 1, False)


@pytest.mark.parametrize(
    ("last", "outcome"), [([DONE], "done"), ([b'data: {"error": {"message": "no"}}\n\n', DONE], "broken")]
)
async def test_who_closes_on_the_last_event_has_the_whole_answer(last: list[bytes], outcome: str) -> None:
    told = Told().begun(*WORDS, USAGE, *last)
    told.passage.hang_up()
    assert (told.record.status != 499, told.record.outcome, told.record.tokens_out) == (True, outcome, 1)
    assert told.upstream.exchange.told == ["abort"]
    assert told.relay.running == {}


async def test_the_tokens_of_an_aborted_answer_that_is_no_stream_are_left_to_be_judged() -> None:
    told = Told({"model": "shapes"})
    told.passage.hang_up()
    assert (told.record.tokens_out, told.record.is_estimated) == (None, True)
    assert told.record.body_bytes == len(b'{"model": "shapes"}')


async def test_a_stream_that_had_not_begun_had_no_tokens() -> None:
    told = Told({"model": "shapes", "stream": True})
    told.passage.hang_up()
    assert (told.record.tokens_in, told.record.tokens_out, told.record.is_estimated) == (None, 0, True)


async def test_an_error_that_is_cut_costs_nothing() -> None:
    told = Told({"model": "shapes"})
    told.passage.on_head(AnswerHead(400, b"", is_stream=False))
    told.passage.hang_up()
    assert not told.record.is_estimated


async def test_what_generates_nothing_has_no_tokens_out() -> None:
    told = Told({"model": "shapes", "input": "a"}, path="/v1/embeddings")
    told.passage.hang_up()
    assert (told.record.tokens_out, told.record.is_estimated) == (0, True)


async def test_the_prompt_that_a_stream_told_at_its_beginning_is_kept() -> None:
    start = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":77,"output_tokens":0}}}\n\n'
    told = Told(path="/v1/messages").begun(start, *WORDS)
    told.passage.hang_up()
    assert (told.record.tokens_in, told.record.is_estimated) == (77, True)


@pytest.mark.parametrize(
    ("error", "is_estimated"),
    [(UpstreamFailed("lost"), True), (UpstreamTimeout("slow"), True), (NoReplica("gone", retry_after_s=1), False)],
)
async def test_what_an_engine_may_have_worked_on_is_judged(error: GatewayError, is_estimated: bool) -> None:
    told = Told({"model": "shapes"})
    told.passage.on_failure(error)
    assert told.record.is_estimated == is_estimated


@pytest.mark.parametrize("ending", ["end", "failure", "hang_up"])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_passage_ends_once(ending: str, is_stream: bool) -> None:
    told = Told()
    if is_stream:
        told.begun(WORDS[0], DONE)
    else:
        told.passage.on_head(PLAIN_HEAD)
        told.passage.on_data(ANSWER)
    endings: dict[str, Callable[[], None]] = {
        "end": told.passage.on_end,
        "failure": lambda: told.passage.on_failure(UpstreamFailed("x")),
        "hang_up": told.passage.hang_up,
    }
    endings[ending]()
    assert told.relay.running == {}
    steps, outcome = list(told.client.steps), told.record.outcome
    told.passage.on_failure(UpstreamFailed("later"))
    told.passage.hang_up()
    assert (told.client.steps, told.record.outcome, told.relay.running) == (steps, outcome, {})


async def test_a_defect_while_an_answer_is_read_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(document: bytes) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("gateway.proxy.forward.read_usage", fail)
    told = Told({"model": "shapes"})
    told.passage.on_head(PLAIN_HEAD)
    told.passage.on_data(ANSWER)
    with pytest.raises(RuntimeError):
        told.passage.on_end()
    told.passage.on_failure(UpstreamFailed("as the upstream does then"))
    assert told.client.steps == ["refuse"]
    assert told.relay.running == {}


async def test_pause_and_resume_reach_the_engine() -> None:
    told = Told().begun(WORDS[0])
    told.passage.pause()
    told.passage.resume()
    assert told.upstream.exchange.told == ["pause", "resume"]


async def test_a_client_that_holds_its_answer_up_is_noted() -> None:
    told = Told().begun(WORDS[0])
    assert not told.record.is_held_up
    told.passage.pause()
    told.passage.resume()
    assert told.record.is_held_up
    over = Told({"model": "shapes"})
    over.passage.on_head(PLAIN_HEAD)
    over.passage.on_data(ANSWER)
    over.passage.on_end()
    over.passage.pause()
    assert not over.record.is_held_up, "the engine was not kept waiting"


async def test_requests_at_the_same_time_are_counted_one_by_one() -> None:
    upstream = FakeUpstream()
    relay = Forwarder(RouteBoard(routes("unix:///e")), upstream, nobody_waits())  # type: ignore[arg-type]
    passages = [relay.forward(call({"model": "shapes"}), RecordingClient()) for _ in range(3)]
    for left, passage in zip((3, 2, 1), passages, strict=True):
        assert relay.running == {"unix:///e": left}
        assert relay.running_count == left
        passage.on_failure(UpstreamFailed("x"))
    assert relay.running == {}


async def test_a_request_that_cannot_be_sent_takes_no_slot() -> None:
    upstream = FakeUpstream()
    upstream.failure = RuntimeError("boom")
    relay = Forwarder(RouteBoard(routes("unix:///e")), upstream, nobody_waits())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        relay.forward(call({"model": "shapes"}), RecordingClient())
    assert relay.running == {}


# Placement.


def test_a_version_without_a_replica_says_why() -> None:
    asked = call({"model": "shapes:v2"})
    error = refusal("unix:///e", asked=asked)
    assert isinstance(error, NoReplica)
    assert "warming" in error.message
    assert error.retry_after_s is not None
    assert placement_lines(asked.record) == (
        b"x-request-id: id1\r\nx-gateway-model: shapes\r\nx-gateway-version: v2\r\n"
    )


def test_the_version_header_pins() -> None:
    error = refusal("unix:///e", asked=call({"model": "shapes"}, (b"x-gateway-version", b"v2")))
    assert "shapes:v2" in error.message


def test_draining_takes_nothing_new() -> None:
    relay = Forwarder(RouteBoard(routes("unix:///e")), FakeUpstream(), nobody_waits())  # type: ignore[arg-type]
    relay.is_draining = True
    with pytest.raises(Draining):
        relay.forward(call(b"not even json"), RecordingClient())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"model": "shapes", "user": 7}, "user"),
        ({"model": 7}, "model"),
        ({"model": "other"}, "does not exist"),
        ({"model": "shapes", "do_sample": 1}, "do_sample"),
        (b"{", "not valid JSON"),
    ],
)
def test_a_request_that_cannot_be_placed_is_refused_with_nothing_sent(body: Any, sentence: str) -> None:
    error = refusal("unix:///e", asked=call(body))
    assert isinstance(error, BadRequest)
    assert sentence in error.message


@pytest.mark.parametrize(
    ("sticky_by", "same"),
    [("user", call({"user": "anna"})), ("header:x-session-id", call({}, (b"x-session-id", b"1")))],
)
def test_a_sticky_client_keeps_its_replica(sticky_by: str, same: Call) -> None:
    board = RouteBoard(routes("unix:///a", "unix:///b", sticky_by=(sticky_by,), routing="session_affinity"))
    upstream = FakeUpstream()
    relay = Forwarder(board, upstream, nobody_waits())  # type: ignore[arg-type]
    for _ in range(8):
        again = Call(same.head, same.body, "1.1.1.1", RequestRecord("any", "/", 0.0))
        relay.forward(again, RecordingClient()).hang_up()
    assert len({address for address, _ in upstream.asked}) == 1


def test_new_routes_are_followed_by_the_very_next_request() -> None:
    board = RouteBoard(routes("unix:///a"))
    upstream = FakeUpstream()
    relay = Forwarder(board, upstream, nobody_waits())  # type: ignore[arg-type]
    session = (b"x-session-id", b"1")
    for address in ("unix:///a", "unix:///a", "unix:///b", "unix:///a"):
        if upstream.asked and upstream.asked[-1][0] != address:
            board.publish(routes(address))
        relay.forward(call({"model": "shapes"}, session), RecordingClient())
        assert upstream.asked[-1][0] == address


@pytest.mark.parametrize("routing", ["least_loaded", "round_robin"])
def test_two_replicas_share_the_work(routing: str) -> None:
    upstream = FakeUpstream()
    relay = Forwarder(RouteBoard(routes("unix:///a", "unix:///b", routing=routing)), upstream, nobody_waits())  # type: ignore[arg-type]
    for _ in range(10):
        relay.forward(call({"model": "shapes"}), RecordingClient())
    assert relay.running == {"unix:///a": 5, "unix:///b": 5}


def test_the_same_beginning_goes_to_the_same_replica() -> None:
    upstream = FakeUpstream()
    board = RouteBoard(routes("unix:///a", "unix:///b", routing="prefix_affinity"))
    relay = Forwarder(board, upstream, nobody_waits())  # type: ignore[arg-type]
    turns = [{"role": "user", "content": "What is this?"}]
    for _ in range(6):
        relay.forward(call({"messages": turns}), RecordingClient()).hang_up()
        turns += [{"role": "assistant", "content": "A circle."}, {"role": "user", "content": "Sure?"}]
    assert len({address for address, _ in upstream.asked}) == 1


@pytest.mark.parametrize(
    ("body", "step"), [({"model": "shapes"}, "answer"), ({"model": "shapes", "stream": True}, "end")]
)
async def test_a_defect_while_an_answer_is_ended_ends_the_connection(body: Any, step: str) -> None:
    def fail(taken: str) -> None:
        if taken == step:
            raise RuntimeError("a defect")

    told = Told(body, fail)
    if step == "end":
        told.begun(*EVENTS)
    else:
        told.passage.on_head(PLAIN_HEAD)
        told.passage.on_data(ANSWER)
    with pytest.raises(RuntimeError):
        told.passage.on_end()
    told.passage.on_failure(OperatorFault("The gateway failed on this answer."))
    assert told.client.steps[-2:] == [step, "abandon"]
    assert told.relay.running == {}


async def test_a_stream_that_says_it_failed_is_broken_and_passes_as_it_is() -> None:
    told = Told().begun(WORDS[0])
    failure = b'data: {"error": {"message": "no"}}\n\n'
    told.passage.on_data(failure)
    told.passage.on_data(DONE)
    told.passage.on_end()
    assert told.client.body == WORDS[0] + failure + DONE
    assert (told.record.outcome, told.relay.running) == ("broken", {})


async def test_a_client_that_takes_nothing_is_no_failure_of_the_engine() -> None:
    told = Told().begun(WORDS[0])
    told.passage.on_failure(ClientStalled("The client took nothing for 120 s."))
    assert told.record.outcome == "hung_up"
    told = Told()
    told.passage.on_failure(ClientStalled("The client took nothing for 120 s."))
    assert (told.client.status, told.record.is_estimated) == (408, True)
