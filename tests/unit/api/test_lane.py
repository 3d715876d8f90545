import asyncio
import json
from typing import Any

import pytest

from gateway.api.lane import RelayLane
from gateway.errors import NoReplica, UpstreamFailed
from gateway.proxy.forward import Call, Send

LIMIT = 1000
Messages = list[dict[str, Any]]


class FakeForwarder:
    """Records calls and answers as the test says."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failure: BaseException | None = None
        self.begins_first = False
        self.waits = False
        self.was_cancelled = False

    async def forward(self, call: Call, send: Send) -> None:
        self.calls.append(call)
        if self.begins_first:
            call.has_begun = True
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        if self.failure is not None:
            raise self.failure
        call.record.status = 200
        await send({"type": "http.response.body", "body": b"ok"})


async def request(
    forwarder: FakeForwarder, *, method: str = "POST", path: str = "/v1/chat/completions",
    headers: list[tuple[bytes, bytes]] | None = None, body: list[bytes] | None = None, hangs_up: bool = False,
) -> Messages:  # fmt: skip
    async def rest(scope: Any, receive: Any, send: Send) -> None:
        await send({"type": "rest"})

    lane = RelayLane(forwarder, rest, max_body_bytes=LIMIT)  # type: ignore[arg-type]
    pieces = body if body is not None else [b"{}"]
    incoming: Messages = [
        {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
        for index, piece in enumerate(pieces)
    ]
    sent: Messages = []
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        if not hangs_up:
            await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers or [], "client": ("1.2.3.4", 5)}
    await lane(scope, receive, send)
    return sent


def error(sent: Messages) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sent[1]["body"])["error"]
    return found


async def test_relayed_routes_reach_the_forwarder_whole() -> None:
    forwarder = FakeForwarder()
    await request(forwarder, headers=[(b"x-request-id", b"mine")], body=[b'{"a"', b": 1}"])
    call = forwarder.calls[0]
    assert (call.body, call.request_id, call.client_ip) == (b'{"a": 1}', "mine", "1.2.3.4")


async def test_other_routes_go_to_the_rest() -> None:
    assert await request(FakeForwarder(), path="/v1/models", method="GET") == [{"type": "rest"}]


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"method": "GET"}, 405, "takes POST"),
        ({"headers": [(b"content-type", b"text/plain")]}, 415, "application/json"),
        ({"headers": [(b"content-type", b"application/x-www-form-urlencoded")]}, 415, "application/json"),
        ({"headers": [(b"content-encoding", b"gzip")]}, 415, "Compressed"),
        ({"headers": [(b"content-length", b"1001")]}, 413, "max_body_bytes"),
        ({"body": [b"x" * 600, b"x" * 600]}, 413, "max_body_bytes"),
    ],
)
async def test_a_bad_head_or_size_is_refused_before_anything_is_forwarded(
    change: dict[str, Any], status: int, sentence: str
) -> None:
    forwarder = FakeForwarder()
    sent = await request(forwarder, **change)
    assert sent[0]["status"] == status
    assert sentence in error(sent)["message"]
    assert dict(sent[0]["headers"])[b"x-gateway-error-origin"] == b"gateway"
    assert b"x-request-id" in dict(sent[0]["headers"])
    assert forwarder.calls == []


@pytest.mark.parametrize("value", [b"application/json", b"application/json; charset=utf-8", b"Application/JSON"])
async def test_json_content_types_are_taken(value: bytes) -> None:
    forwarder = FakeForwarder()
    await request(forwarder, headers=[(b"content-type", value)])
    assert len(forwarder.calls) == 1


async def test_a_failure_before_the_answer_is_rendered() -> None:
    forwarder = FakeForwarder()
    forwarder.failure = NoReplica("Not yet.", retry_after_s=5)
    sent = await request(forwarder)
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"5"


async def test_a_defect_of_ours_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    forwarder = FakeForwarder()
    forwarder.failure = KeyError("secret")
    sent = await request(forwarder)
    assert sent[0]["status"] == 500
    assert "secret" not in error(sent)["message"]
    assert "secret" in caplog.text


async def test_after_the_answer_has_begun_nothing_is_answered_twice() -> None:
    forwarder = FakeForwarder()
    forwarder.begins_first = True
    forwarder.failure = UpstreamFailed("late")
    with pytest.raises(UpstreamFailed):
        await request(forwarder)


async def test_a_hang_up_cancels_the_forwarding_and_nothing_else() -> None:
    forwarder = FakeForwarder()
    forwarder.waits = True
    sent = await asyncio.wait_for(request(forwarder, hangs_up=True), 2)
    assert forwarder.was_cancelled
    assert sent == []
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_hang_up_while_the_body_comes_forwards_nothing() -> None:
    forwarder = FakeForwarder()
    sent = await request(forwarder, body=[], hangs_up=True)
    assert (sent, forwarder.calls) == ([], [])


async def test_the_servers_own_cancel_passes_through() -> None:
    forwarder = FakeForwarder()
    forwarder.waits = True
    work = asyncio.get_running_loop().create_task(request(forwarder))
    while not forwarder.calls:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_each_request_leaves_its_line(caplog: pytest.LogCaptureFixture) -> None:
    forwarder = FakeForwarder()
    forwarder.failure = NoReplica("Not yet.")
    with caplog.at_level("INFO"):
        await request(forwarder, headers=[(b"x-request-id", b"mine")])
    assert "mine /v1/chat/completions" in caplog.text
    assert "status=503 outcome=no_replica" in caplog.text
