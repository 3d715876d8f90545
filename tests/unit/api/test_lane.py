import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.api import lane as module
from gateway.api.auth import KeyRing
from gateway.api.lane import Lane, LaneProtocol
from gateway.api.openai import build_public_app
from gateway.errors import NoReplica
from gateway.proxy.call import Call, Client
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.routes import Caller, RouteBoard
from tests.support.fake_transport import FakeTransport

LIMIT = 1000
KEY = {"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683": Caller("team-a")}  # of "key"


async def keep_nothing(request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
    return {}


class FakePassage:
    """Remembers what the lane tells it."""

    def __init__(self, call: Call, client: Client) -> None:
        self.call, self.client = call, client
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def hang_up(self) -> None:
        self.told.append("hang_up")
        self.call.record.status, self.call.record.outcome = 499, "hung_up"


class FakeForwarder:
    """Takes calls; the test answers them through their passages."""

    def __init__(self) -> None:
        self.passages: list[FakePassage] = []
        self.bodies: list[bytes] = []
        self.failure: Exception | None = None
        self.is_draining = False

    def forward(self, call: Call, client: Client) -> FakePassage:
        if self.failure is not None:
            raise self.failure
        self.passages.append(FakePassage(call, client))
        self.bodies.append(call.body)
        return self.passages[-1]


class FakeLedger:
    """Keeps the accounts that were settled."""

    def __init__(self) -> None:
        self.settled: list[RequestRecord] = []

    def settle(self, record: RequestRecord) -> None:
        assert not any(record is other for other in self.settled), "settled twice"
        self.settled.append(record)


Answer = tuple[int, dict[str, str], bytes]


class Answers:
    """Reads what went out to a client: `whole` answers; `is_open` while one is not at its end."""

    def __init__(self, data: bytes) -> None:
        self.whole: list[Answer] = []
        self.is_open = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.feed(data)

    def feed(self, data: bytes) -> None:
        if data:
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.is_open = True
        self.headers: dict[str, str] = {}
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self.headers, "a header twice"
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_open = False
        self.whole.append((self._parser.get_status_code(), self.headers, self.body))


@pytest.fixture(params=["new heads", "known heads"], autouse=True)
def _heads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "knows_heads", request.param == "known heads")


@functools.cache
def config_of(keys: KeyRing | None) -> uvicorn.Config:
    """A server with the real app behind the lane, built once."""
    app = build_public_app(RouteBoard(), keep_nothing, keys)
    return uvicorn.Config(app, loop="none", ws="none", lifespan="off", log_config=None, access_log=False)


class Connection:
    """One client connection without a socket. Where it `knows_heads`, each of its requests has come once before."""

    knows_heads = False

    def __init__(self, *, keys: KeyRing | None = None) -> None:
        self._keys = keys
        self.forwarder, self.ledger, self.state = FakeForwarder(), FakeLedger(), ServerState()
        self.lane = self._new_lane(self.forwarder, self.ledger)
        self.protocol = self._new_protocol(self.lane)
        self.transport = FakeTransport(self.protocol)

    def _new_lane(self, forwarder: FakeForwarder, ledger: FakeLedger) -> Lane:
        return Lane(forwarder, ledger, self._keys, max_body_bytes=LIMIT)  # type: ignore[arg-type]

    def _new_protocol(self, lane: Lane) -> LaneProtocol:
        state = self.state if lane is self.lane else ServerState()
        return LaneProtocol(lane, config=config_of(self._keys), server_state=state, app_state={})

    def feed(self, *pieces: bytes) -> None:
        data = b"".join(pieces)
        if self.knows_heads and data.startswith(b"POST"):
            other = self._new_lane(FakeForwarder(), FakeLedger())
            other.heads = self.lane.heads
            FakeTransport(self._new_protocol(other)).feed(data)
        self.transport.feed(*pieces)

    @property
    def sent(self) -> list[Answer]:
        answers = Answers(self.transport.sent)
        # A parser overlooks what stands behind an answer that announced the close.
        assert self.transport.sent.count(b"HTTP/1.1 ") == len(answers.whole) + answers.is_open
        return answers.whole

    @property
    def passage(self) -> FakePassage:
        return self.forwarder.passages[-1]

    @property
    def settled(self) -> list[tuple[int, str]]:
        return [(record.status, record.outcome) for record in self.ledger.settled]

    def answer(self, body: bytes = b"ok") -> None:
        self.passage.call.record.outcome = "done"
        self.passage.client.answer(200, b"content-type: application/json\r\n", body)

    def stream(self, *pieces: bytes, ending: bytes = b"") -> None:
        self.passage.client.begin(200, b"content-type: text/event-stream\r\n")
        for piece in pieces:
            self.passage.client.write(piece)
        self.passage.call.record.outcome = "done"
        self.passage.client.end(ending)

    def error(self) -> dict[str, Any]:
        """The one answer there is, which must be an error of ours in the one shape."""
        ((status, headers, body),) = self.sent
        assert headers["content-type"] == "application/json"
        assert headers["x-gateway-error-origin"] == "gateway"
        found: dict[str, Any] = json.loads(body)["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return {"status": status, **found}

    async def rest(self) -> None:
        """Let the app behind the lane answer."""
        async with asyncio.timeout(5):
            while self.state.tasks:
                await asyncio.sleep(0)


def post(
    body: bytes = b"{}",
    *headers: str,
    path: str = "/v1/chat/completions",
    version: str = "1.1",
    length: int | None = None,
) -> bytes:
    lines = [
        f"POST {path} HTTP/{version}",
        "host: x",
        f"content-length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, trailers: bytes = b"", headers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + headers + b"\r\n"
    return head + chunks + b"0\r\n" + trailers + b"\r\n"


def cuts(data: bytes) -> list[tuple[bytes, ...]]:
    halves = [(data[:place], data[place:]) for place in range(len(data))]
    return [*halves, tuple(bytes([one]) for one in data)]


H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


# Whole requests.


@pytest.mark.parametrize(
    "data",
    [
        post(b'{"a": 1}', "X-Request-Id: mine"),
        chunked(b'{"a"', b": 1", b"}", headers=b"x-request-id: mine\r\n"),
        chunked(b'{"a": 1}', headers=b"x-request-id: mine\r\n", trailers=b"accept: trailer\r\n"),
        post(b'{"a": 1}', "x-request-id: mine", *H2C),
        post(b'{"a": 1}', "x-request-id: mine", path="http://host/v1/chat/completions?x=1"),
        b"\r\n" + post(b'{"a": 1}', "x-request-id: mine", path="/v1/chat/completions?x=1"),
    ],
)
async def test_a_request_is_taken_whole_however_it_is_cut(data: bytes) -> None:
    for pieces in cuts(data):
        client = Connection()
        client.feed(*pieces)
        assert client.forwarder.bodies == [b'{"a": 1}']
        call = client.passage.call
        assert (call.record.request_id, call.client_ip, call.head.endpoint.path) == (
            "mine",
            "1.2.3.4",
            "/v1/chat/completions",
        )
        assert b"accept" not in call.head.by_name
        assert b"accept" not in call.head.engine_lines
        client.answer()
        ((status, headers, body),) = client.sent
        assert (status, headers, body) == (200, {"content-type": "application/json", "content-length": "2"}, b"ok")
        assert client.settled == [(200, "done")]
        assert not client.transport.is_closing()


async def test_one_connection_serves_requests_of_all_kinds_in_turn() -> None:
    client = Connection()
    for _ in range(2):
        client.feed(post())
        client.answer(b"one")
        client.feed(*cuts(MODELS)[20])
        await client.rest()
        client.feed(post(b"{}", *H2C))
        client.stream(b"a", b"b", ending=b"c")
        client.feed(chunked(b"{}"))
        client.answer(b"x" * 100_000)
        client.feed(post(path="/v1/none"))
        await client.rest()
    statuses = [(status, len(body)) for status, _, body in client.sent]
    assert [status for status, _ in statuses] == [200, 200, 200, 200, 404] * 2
    assert [size for _, size in statuses[:4:2]] == [3, 3]
    assert client.sent[1][2] == b'{"object":"list","data":[]}'
    assert client.settled == [(200, "done")] * 6  # the app's answers are not relayed ones
    assert not client.transport.is_closing()
    assert client.state.total_requests == 10


async def test_the_record_tells_what_was_asked() -> None:
    client = Connection()
    client.feed(post(path="/v1/embeddings"))
    record = client.passage.call.record
    assert (record.path, len(record.request_id), record.started_s > 0) == ("/v1/embeddings", 32, True)
    assert client.passage.call.body == b"{}"


async def test_a_stream_goes_out_in_chunks_and_its_end_is_marked() -> None:
    client = Connection()
    client.feed(post())
    client.passage.client.begin(200, b"content-type: text/event-stream\r\n")
    client.passage.client.write(b"data: 1\n\n")
    assert client.transport.sent.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n")
    client.passage.client.end(b"")
    assert client.transport.sent.endswith(b"\r\n0\r\n\r\n")
    assert client.sent[0][1]["transfer-encoding"] == "chunked"
    assert client.settled == [(200, "error")]


async def test_default_headers_of_the_server_are_sent() -> None:
    client = Connection()
    client.state.default_headers = [(b"date", b"today")]
    client.feed(post())
    client.answer()
    assert client.sent[0][1]["date"] == "today"


async def test_framed_chunks_go_to_those_who_take_chunks() -> None:
    client = Connection()
    client.feed(post())
    write_chunk = client.passage.client.begin(200, b"")
    assert write_chunk is not None
    write_chunk(b"5\r\nwhole\r\n")
    client.passage.client.end(b"!")
    assert client.sent[0][2] == b"whole!"
    old = Connection()
    old.feed(post(version="1.0"))
    assert old.passage.client.begin(200, b"") is None


@pytest.mark.parametrize("header", ["connection: keep-alive", "x: y"])
async def test_http_1_0_gets_no_chunks_and_the_close(header: str) -> None:
    client = Connection()
    client.feed(post(b"{}", header, "expect: 100-continue", version="1.0"))
    client.stream(b"data: 1\n\n", ending=b"data: 2\n\n")
    head, _, body = client.transport.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert body == b"data: 1\n\ndata: 2\n\n"
    assert client.transport.is_closing()


@pytest.mark.parametrize(
    "data",
    [
        post(b"{}", "connection: close"),
        post(
            b"{}", "connection: keep-alive", version="1.0"
        ),  # it would wait for a promise that HTTP/1.1 makes silently
        post(b"{}", version="1.0"),
    ],
)
async def test_a_client_that_asks_for_the_close_or_knows_nothing_else_gets_it(data: bytes) -> None:
    client = Connection()
    client.feed(data)
    client.answer()
    assert client.sent[0][1]["connection"] == "close"
    assert client.transport.is_closing()


async def test_a_client_that_waits_for_it_is_told_to_send_its_body() -> None:
    client = Connection()
    head, body = post(b"{}", "Expect: 100-continue")[:-2], b"{}"
    client.feed(head)
    assert client.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.feed(body)
    client.answer()
    assert [status for status, _, _ in client.sent] == [100, 200]


async def test_a_request_refused_by_its_head_is_not_told_to_send_its_body() -> None:
    client = Connection()
    client.feed(post(b"", "Expect: 100-continue", "content-type: text/plain", length=10))
    assert client.error()["status"] == 415


async def test_an_upgrade_without_a_body_goes_to_the_app() -> None:
    for data in (MODELS[:-2] + "\r\n".join(H2C).encode() + b"\r\n\r\n",
                 MODELS[:-2] + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"):  # fmt: skip
        for pieces in cuts(data)[::10]:
            client = Connection()
            client.feed(*pieces)
            await client.rest()
            assert [status for status, _, _ in client.sent] == [200]
            assert not client.transport.is_closing()


# Refusals.


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"GET /v1/chat/completions HTTP/1.1\r\n\r\n", 405, "takes POST, not GET"),
        (post(b"{}", "content-type: text/plain"), 415, "application/json"),
        (post(b"x" * 1001), 413, "max_body_bytes"),
        (post(b"", length=10**15), 413, "max_body_bytes"),
        (chunked(b"x" * 600, b"x" * 600), 413, "max_body_bytes"),
        (post(b"{}", *(f"x-{n}: 1" for n in range(200))), 431, "200 headers"),
    ],
)
async def test_a_bad_head_or_size_is_refused_before_anything_is_forwarded(
    data: bytes, status: int, sentence: str
) -> None:
    for pieces in cuts(data)[:: max(1, len(data) // 40)]:
        client = Connection()
        client.feed(*pieces)
        error = client.error()
        assert error["status"] == status
        assert sentence in error["message"]
        ((_, headers, _),) = client.sent
        assert headers["x-request-id"] == client.ledger.settled[0].request_id
        assert headers["connection"] == "close"
        assert client.settled == [(status, error["code"])]
        assert client.forwarder.passages == []


async def test_what_is_left_of_a_refused_body_is_read_before_the_close() -> None:
    client = Connection()
    data = post(b"x" * 2000)
    client.feed(data[:-1500])
    assert client.error()["status"] == 413
    client.feed(data[-1500:-1])
    assert not client.transport.is_closing()
    client.feed(data[-1:])
    assert client.transport.is_closing()
    assert len(client.sent) == 1


async def test_the_rest_of_a_refused_body_may_be_garbage_and_gets_no_second_answer() -> None:
    client = Connection()
    client.feed(chunked(b"x" * 2000)[:-10], b"no chunk at all\r\n")
    assert client.error()["status"] == 413
    assert client.transport.is_closing()


async def test_behind_a_refused_request_nothing_is_served() -> None:
    for pieces in (
        (post(b"{}", "content-type: text/plain") + post(),),
        (post(b"{}", "content-type: text/plain"), post()),
    ):
        client = Connection()
        client.feed(*pieces)
        assert client.forwarder.passages == []
        assert client.error()["status"] == 415
        assert client.transport.is_closing()


async def test_a_body_of_just_the_limit_is_taken() -> None:
    for data in (post(b"x" * LIMIT), chunked(b"x" * LIMIT)):
        client = Connection()
        client.feed(data)
        assert client.forwarder.bodies == [b"x" * LIMIT]


async def test_what_the_forwarder_refuses_keeps_the_connection() -> None:
    client = Connection()
    client.forwarder.failure = NoReplica("Not yet.", retry_after_s=5)
    client.feed(post(b"{}", "x-request-id: mine"))
    assert client.error()["status"] == 503
    assert client.sent[0][1]["retry-after"] == "5"
    assert "connection" not in client.sent[0][1]
    assert client.settled == [(503, "no_replica")]
    client.forwarder.failure = None
    client.feed(post())
    client.answer()
    assert [status for status, _, _ in client.sent] == [503, 200]


async def test_a_failure_that_comes_later_is_rendered_with_the_placement() -> None:
    client = Connection()
    client.feed(post())
    record = client.passage.call.record
    record.model, record.version, record.replica = "shapes", "v1", "v1-0"
    client.passage.client.refuse(NoReplica("Gone."))
    assert client.error()["code"] == "no_replica"
    headers = client.sent[0][1]
    assert (headers["x-gateway-model"], headers["x-gateway-version"], headers["x-gateway-replica"]) == (
        "shapes",
        "v1",
        "v1-0",
    )
    assert not client.transport.is_closing()


async def test_a_defect_of_ours_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    client = Connection()
    client.forwarder.failure = KeyError("secret")
    client.feed(post())
    error = client.error()
    assert error["status"] == 500
    assert "secret" not in error["message"]
    assert "secret" in caplog.text
    assert client.settled == [(500, "internal_error")]


@pytest.mark.parametrize(
    "data",
    [
        b"hello there\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: two\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: \r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\nhost: host\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://host HTTP/1.1\r\n\r\n",
        b"GET http://[::1/v1/models HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_not_http_gets_a_400_in_the_one_shape(data: bytes) -> None:
    for pieces in cuts(data):
        client = Connection()
        client.feed(*pieces)
        await client.rest()
        error = client.error()
        assert (error["status"], error["type"]) == (400, "invalid_request_error")
        assert client.sent[0][1]["connection"] == "close"
        assert client.transport.is_closing()
        assert client.forwarder.passages == []
        assert len(client.settled) <= 1


@pytest.mark.parametrize(
    "start", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\nx: "]
)
async def test_an_endless_head_is_refused(start: bytes) -> None:
    client = Connection()
    client.feed(start, *([b"a" * 1000] * 80))
    assert client.error()["status"] == 431
    assert client.transport.is_closing()
    assert len(client.transport.sent) < 1000


async def test_a_client_that_takes_no_answer_is_read_no_further() -> None:
    client = Connection()
    client.feed(post())
    client.protocol.pause_writing()
    assert client.transport.is_reading_now  # a hang-up must still be noticed
    client.answer()
    assert not client.transport.is_reading_now
    client.protocol.resume_writing()
    assert client.transport.is_reading_now
    client.feed(post())
    client.answer()
    client.protocol.pause_writing()
    assert not client.transport.is_reading_now


async def test_a_huge_head_is_refused_even_if_it_comes_in_one_read() -> None:
    client = Connection()
    client.feed(post(b"{}", "x-long: " + "a" * 70_000))
    assert client.error()["status"] == 431
    assert client.forwarder.passages == []


async def test_a_body_longer_than_its_length_is_not_read_as_a_request() -> None:
    for pieces in (
        (post(b'{"a": 1}', length=2),),
        (post(b"", length=2), b'{"a": 1}'),
        (post(b'{"', length=2), b'a": 1}'),
    ):
        client = Connection()
        client.feed(*pieces)
        assert client.forwarder.bodies == [b'{"']
        client.answer()
        assert len(client.sent) == 1
        assert client.transport.is_closing()


# Keys.


async def test_without_a_known_key_nothing_is_served() -> None:
    for header in ("x: y", "authorization: Bearer no", "x-api-key: no"):
        client = Connection(keys=KeyRing(KEY))
        client.feed(post(b"{}", header))
        error = client.error()
        assert (error["status"], error["code"]) == (401, "invalid_api_key")
        assert client.settled == [(401, "invalid_api_key")]
        assert client.forwarder.passages == []
    client = Connection(keys=KeyRing(KEY))
    client.feed(MODELS)
    await client.rest()
    assert client.error()["status"] == 401


async def test_a_known_key_is_served_and_named() -> None:
    client = Connection(keys=KeyRing(KEY))
    client.feed(post(b"{}", "authorization: Bearer key"))
    assert client.passage.call.head.caller == "team-a"
    client.answer()
    client.feed(MODELS.replace(b"host: x", b"x-api-key: key"))
    await client.rest()
    assert [status for status, _, _ in client.sent] == [200, 200]


async def test_a_head_that_was_refused_is_refused_again() -> None:
    for other in ("authorization: Bearer kez", "authorization: Bearer", "x-a: 1"):
        client = Connection(keys=KeyRing(KEY))
        client.feed(post(b"{}", "authorization: Bearer key"))
        client.answer()
        client.feed(post(b"{}", other))
        assert [status for status, _, _ in client.sent] == [200, 401]


async def test_a_body_over_the_limit_is_refused_behind_a_known_head_too() -> None:
    client = Connection()
    client.feed(post(b"{}"))
    client.answer()
    client.feed(post(b"x" * LIMIT))
    client.answer()
    client.feed(post(b"x" * (LIMIT + 1)))
    assert [status for status, _, _ in client.sent] == [200, 200, 413]


async def test_requests_with_a_known_head_have_their_own_body_and_id() -> None:
    client = Connection()
    for body, name in ((b"{}", "one"), (b'{"a": 1}', "two"), (b"", "three")):
        client.feed(post(body, f"x-request-id: {name}"))
        assert client.forwarder.bodies[-1] == body
        assert client.passage.call.record.request_id == name
        client.answer()
    client.feed(post())
    assert len(client.passage.call.record.request_id) == 32
    assert len(client.lane.heads._known._recent) == 1


async def test_a_known_request_within_another_ones_head_is_none() -> None:
    client = Connection()
    client.feed(post())
    client.answer()
    client.feed(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\nx: ")
    client.feed(post())
    assert client.forwarder.bodies == [b"{}"]
    assert [status for status, _, _ in client.sent] == [200, 400]  # one head with two lengths


async def test_blank_lines_between_requests_do_not_add_up() -> None:
    client = Connection()
    for _ in range(3):
        client.feed(b"\r\n")
        client.feed(post())
        client.answer()
        assert client.protocol._head_bytes == 0


async def test_an_answer_of_the_app_s_sets_no_clock_for_the_known_request_behind_it() -> None:
    client = Connection()
    client.feed(post())
    client.answer()
    client.feed(MODELS)
    await client.rest()
    assert client.protocol.timeout_keep_alive_task is not None
    client.feed(post())
    assert client.protocol.timeout_keep_alive_task is None
    client.answer()
    assert len(client.sent) == 3


async def test_a_head_is_known_whatever_trace_the_request_is_of() -> None:
    client = Connection()
    client.feed(post(b"{}"))
    client.answer()
    client.protocol.parser = None
    for lines in (("traceparent: 00-1",), ("traceparent: 00-2", "Tracestate: a=1"), ()):
        client.feed(post(b"{}", *lines))
        assert client.passage.call.trace_lines == "".join(f"{line.lower()}\r\n" for line in lines).encode()
        client.answer()
    assert len(client.lane.heads._known._recent) == 1


async def test_a_known_head_needs_no_parser() -> None:
    client = Connection()
    client.feed(post(b"{}"))
    client.answer()
    client.protocol.parser = None
    client.feed(post(b"[]"))
    assert client.forwarder.bodies == [b"{}", b"[]"]


@pytest.mark.parametrize("last", ["connection: close", "x: y"])
async def test_what_a_head_says_of_the_connection_holds_for_each_request(last: str) -> None:
    client = Connection()
    client.feed(post(), post(b"{}", version="1.0"))
    assert len(client.forwarder.bodies) == 1
    client = Connection()
    client.feed(post())
    client.answer()
    client.feed(post(b"{}", last))
    client.answer()
    assert client.transport.is_closing() == (last == "connection: close")


async def test_a_trailer_is_no_key() -> None:
    client = Connection(keys=KeyRing(KEY))
    client.feed(chunked(b"{}", trailers=b"authorization: Bearer key\r\n"))
    assert client.error()["status"] == 401


# Pipelining.


async def test_a_pipelining_client_gets_its_first_answer_and_the_close() -> None:
    first, second = post(b'{"n": 1}'), post(b'{"n": 2}')
    for pieces in cuts(first + second)[1::7]:
        client = Connection()
        client.feed(*pieces)
        assert client.forwarder.bodies == [b'{"n": 1}']
        client.answer()
        assert [body for _, _, body in client.sent] == [b"ok"]
        assert client.sent[0][1]["connection"] == "close"
        assert client.transport.is_closing()
        assert len(client.settled) == 1


@pytest.mark.parametrize("behind", [post(), MODELS, b"garbage\r\n\r\n", post(b"{}", *H2C)])
async def test_what_comes_behind_a_request_under_way_is_not_answered(behind: bytes) -> None:
    for first in ((post(), behind), (post() + behind,), (post() + behind[:5], behind[5:])):
        client = Connection()
        client.feed(*first)
        client.stream(b"data: 1\n\n")
        client.feed(behind)
        await client.rest()
        assert [(status, body) for status, _, body in client.sent] == [(200, b"data: 1\n\n")]
        assert client.transport.is_closing()
        assert len(client.forwarder.passages) == 1


@pytest.mark.parametrize("behind", [post(), MODELS, b"garbage\r\n\r\n"])
async def test_behind_a_request_to_the_app_nothing_is_answered_either(behind: bytes) -> None:
    client = Connection()
    client.feed(MODELS + behind)
    await client.rest()
    assert [status for status, _, _ in client.sent][:1] == [200]
    assert len(client.sent) == 1
    assert client.forwarder.passages == []


async def test_blank_lines_while_an_answer_is_under_way_harm_nothing() -> None:
    client = Connection()
    client.feed(post())
    client.feed(*([b"\r\n" * 1000] * 50))
    client.answer()
    client.feed(post())
    client.answer()
    assert [status for status, _, _ in client.sent] == [200, 200]
    assert client.settled == [(200, "done")] * 2


# Endings.


async def test_a_hang_up_before_the_answer_tells_the_passage() -> None:
    client = Connection()
    client.feed(post())
    client.transport.lose()
    assert client.passage.told == ["hang_up"]
    assert client.settled == [(499, "hung_up")]
    assert client.transport.sent == b""


async def test_a_hang_up_in_a_stream_tells_the_passage() -> None:
    client = Connection()
    client.feed(post())
    client.passage.client.begin(200, b"")
    client.passage.client.write(b"x")
    client.transport.lose(ConnectionResetError())
    assert client.passage.told == ["hang_up"]
    assert client.settled == [(499, "hung_up")]
    assert client.state.connections == set()


async def test_a_client_that_ends_its_half_has_hung_up() -> None:
    client = Connection()
    client.feed(post())
    client.transport.feed_end()
    assert client.passage.told == ["hang_up"]


async def test_a_hang_up_while_the_body_comes_forwards_nothing() -> None:
    client = Connection()
    client.feed(post(b"{", length=2))
    client.transport.lose()
    assert client.forwarder.passages == []
    assert client.settled == [(499, "hung_up")]


@pytest.mark.parametrize("data", [b"", b"POST /v1/ch", post(b"{}", "content-type: text/plain"), MODELS])
async def test_a_hang_up_without_a_relayed_request_settles_nothing_more(data: bytes) -> None:
    client = Connection()
    client.feed(data)
    before = len(client.settled)
    client.transport.lose()
    await client.rest()
    assert len(client.settled) == before


async def test_a_hang_up_after_the_answer_settles_nothing_more() -> None:
    client = Connection()
    client.feed(post())
    client.answer()
    client.transport.lose()
    assert client.passage.told == []
    assert client.settled == [(200, "done")]


async def test_a_client_that_does_not_keep_up_pauses_the_passage() -> None:
    client = Connection()
    client.feed(post())
    client.protocol.pause_writing()
    client.protocol.resume_writing()
    assert client.passage.told == ["pause", "resume"]
    client.answer()
    client.protocol.pause_writing()  # nobody is there to be told
    client.feed(post())
    assert client.passage.told == ["pause"]  # the last answer has not gone out yet
    client.protocol.resume_writing()
    assert client.passage.told == ["pause", "resume"]


async def test_a_client_that_does_not_keep_up_holds_the_app_back() -> None:
    client = Connection()
    client.protocol.pause_writing()
    client.feed(MODELS)
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.sent == []
    client.protocol.resume_writing()
    await client.rest()
    assert len(client.sent) == 1


async def test_a_slow_body_is_refused_and_its_connection_ends() -> None:
    client = Connection()
    client.feed(post(b"{", length=2))
    client.protocol.give_up()
    error = client.error()
    assert (error["status"], error["code"]) == (408, "request_timeout")
    assert client.settled == [(408, "request_timeout")]
    client.protocol.give_up()
    assert client.transport.is_aborted
    client.transport.lose()
    assert len(client.settled) == 1


@pytest.mark.parametrize("data", [b"", b"POST /v1/ch", post(b"{}", "content-type: text/plain")[:-1]])
async def test_a_connection_that_leads_to_nothing_is_given_up(data: bytes) -> None:
    client = Connection()
    client.feed(data)
    client.protocol.give_up()
    assert client.transport.is_aborted


async def test_an_answer_under_way_is_not_given_up() -> None:
    for data in (post(), MODELS):
        client = Connection()
        client.feed(data)
        client.protocol.give_up()
        assert not client.transport.is_closing()
        await client.rest()


async def test_a_slow_client_may_take_its_answer_as_long_as_it_takes_some() -> None:
    client = Connection()
    client.feed(post(b"{}", "connection: close"))
    client.answer(b"x" * 1000)
    for unsent_bytes in (900, 500, 100):
        client.transport.unsent_bytes = unsent_bytes
        client.protocol.give_up()
        assert not client.transport.is_aborted
    client.protocol.give_up()
    assert client.transport.is_aborted


def due_in(client: Connection) -> float:
    return client.protocol.due_s - client.protocol.loop.time()


async def test_each_part_of_a_clients_work_has_its_time() -> None:
    client = Connection()
    data = post(b"{}")
    assert module._HEAD_TIMEOUT_S < due_in(client) <= module._IDLE_TIMEOUT_S
    client.feed(data[:5])
    first_s = client.protocol.due_s
    assert module._LEFTOVER_TIMEOUT_S < due_in(client) <= module._HEAD_TIMEOUT_S
    client.feed(data[5:10])
    assert client.protocol.due_s == first_s  # a drop now and then buys no time
    client.feed(data[10:-1])
    assert module._IDLE_TIMEOUT_S < due_in(client) <= module._BODY_TIMEOUT_S
    client.feed(data[-1:])
    assert due_in(client) == module._NEVER_S
    client.answer()
    assert module._HEAD_TIMEOUT_S < due_in(client) <= module._IDLE_TIMEOUT_S
    client.feed(post(b"{}", "content-type: text/plain")[:-1])
    assert 0 < due_in(client) <= module._LEFTOVER_TIMEOUT_S


async def test_a_shutdown_lets_the_answer_under_way_finish() -> None:
    client = Connection()
    client.feed(post())
    client.protocol.shutdown()
    assert not client.transport.is_closing()
    client.answer()
    assert client.sent[0][1]["connection"] == "close"
    assert client.transport.is_closing()


async def test_a_shutdown_lets_a_stream_that_has_begun_finish() -> None:
    client = Connection()
    client.feed(post())
    client.passage.client.begin(200, b"")
    client.protocol.shutdown()
    client.passage.client.end(b"data: 1\n\n")
    assert client.sent[0][2] == b"data: 1\n\n"
    assert client.transport.is_closing()


@pytest.mark.parametrize("data", [b"", b"POST /v1", post(b"{}", "content-type: text/plain")])
async def test_a_shutdown_closes_what_has_no_answer_under_way(data: bytes) -> None:
    client = Connection()
    client.feed(data)
    client.protocol.shutdown()
    assert client.transport.is_closing()


async def test_a_shutdown_lets_the_app_answer() -> None:
    client = Connection()
    client.feed(MODELS)
    client.protocol.shutdown()
    await client.rest()
    assert client.sent[0][1]["connection"] == "close"
    assert client.transport.is_closing()


# Over a real socket.


@asynccontextmanager
async def server(forwarder: FakeForwarder, ledger: FakeLedger) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    lane = Lane(forwarder, ledger, None, max_body_bytes=50_000_000)  # type: ignore[arg-type]
    config = uvicorn.Config(
        build_public_app(RouteBoard(), keep_nothing), port=0, loop="none", http=functools.partial(LaneProtocol, lane),  # type: ignore[arg-type]
        ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    running = uvicorn.Server(config)
    running.capture_signals = _no_signals  # type: ignore[method-assign, assignment]
    serving = asyncio.get_running_loop().create_task(running.serve())
    await until(lambda: running.started)
    try:
        yield running, running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        await serving


class _no_signals:  # noqa: N801 - stands for a function
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    answers = Answers(b"")
    async with asyncio.timeout(5):
        while not answers.whole:
            data = await reader.read(1 << 20)
            assert data, "closed before the answer was whole"
            answers.feed(data)
    assert not answers.is_open
    (answer,) = answers.whole
    return answer


async def test_a_conversation_over_a_real_connection() -> None:
    forwarder, ledger = FakeForwarder(), FakeLedger()
    async with server(forwarder, ledger) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        large = b"x" * 3_000_000
        writer.write(post(large))
        await until(lambda: forwarder.passages)
        assert forwarder.bodies == [large]
        forwarder.passages[0].client.answer(200, b"", large)
        assert (await read_answer(reader))[2] == large
        writer.write(MODELS)
        assert (await read_answer(reader))[0] == 200
        writer.write(post(b"{}", *H2C))
        await until(lambda: len(forwarder.passages) == 2)
        stream = forwarder.passages[1].client
        stream.begin(200, b"")
        stream.write(b"a" * 10)
        stream.end(b"b" * 10)
        assert (await read_answer(reader))[2] == b"a" * 10 + b"b" * 10
        writer.write(post())
        await until(lambda: len(forwarder.passages) == 3)
        writer.close()
        await until(lambda: forwarder.passages[2].told)
        assert forwarder.passages[2].told == ["hang_up"]
        assert [record.status for record in ledger.settled] == [200, 200, 499]


async def test_a_real_client_that_does_not_read_pauses_its_passage() -> None:
    forwarder = FakeForwarder()
    async with server(forwarder, FakeLedger()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(post())
        await until(lambda: forwarder.passages)
        passage, total = forwarder.passages[0], 0
        passage.client.begin(200, b"")
        while not passage.told:
            passage.client.write(b"x" * 100_000)
            total += 100_000
            assert total < 100_000_000
        passage.client.end(b"")
        assert len((await read_answer(reader))[2]) == total
        writer.close()
    assert passage.told[0] == "pause"


async def test_the_server_stops_after_the_answer_under_way() -> None:
    forwarder, ledger = FakeForwarder(), FakeLedger()
    async with server(forwarder, ledger) as (running, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post())
        await until(lambda: forwarder.passages)
        running.should_exit = True
        await until(lambda: not forwarder.passages[0].client._is_lasting)  # type: ignore[attr-defined]
        forwarder.passages[0].client.answer(200, b"", b"last")
        answer = await read_answer(reader)
        assert (answer[1]["connection"], answer[2]) == ("close", b"last")
        assert await reader.read() == b""
        writer.close()
    assert len(ledger.settled) == 1


async def test_while_draining_every_answer_ends_its_connection() -> None:
    client, streaming = Connection(), Connection()
    client.feed(post(b"{}"))
    streaming.feed(post(b"{}"))
    client.forwarder.is_draining = streaming.forwarder.is_draining = True
    client.answer()
    streaming.passage.client.begin(200, b"content-type: text/event-stream\r\n")
    streaming.passage.client.end(b"data: [DONE]\n\n")
    for ended in (client, streaming):
        ((_, headers, _),) = ended.sent
        assert headers["connection"] == "close"
        assert ended.transport.is_closing()


async def test_an_answer_that_cannot_be_ended_ends_the_connection() -> None:
    client = Connection()
    client.feed(post(b"{}"))
    client.passage.client.abandon()
    assert client.transport.is_closing()
    assert client.sent == []


async def test_headers_of_a_pipelined_request_do_not_get_into_the_one_before_it() -> None:
    client = Connection()
    client.feed(post(b"{}", "traceparent: first") + post(b"{}", "traceparent: second", "x-data-parallel-rank: 7"))
    call = client.passage.call
    assert call.trace_lines == b"traceparent: first\r\n"
    assert call.head.engine_lines == b"content-type: application/json\r\n"


async def test_a_pipelined_requests_key_opens_nothing_for_the_one_before_it() -> None:
    client = Connection(keys=KeyRing({hashlib.sha256(b"good").hexdigest(): Caller("team")}))
    first, second = (b"GET /v1/models HTTP/1.1\r\nhost: h\r\n%b\r\n" % key for key in (b"", b"x-api-key: good\r\n"))
    client.feed(first + second)
    await until(lambda: bool(client.sent))
    assert client.sent[0][0] == 401
