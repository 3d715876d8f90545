import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest, NoReplica
from gateway.fleet.replica import Replica
from gateway.proxy import copies
from gateway.proxy import shadow as module
from gateway.proxy.body import parse_fields
from gateway.proxy.call import Call, Client, RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.shadow import Shadows
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.observations import Copied, Observed
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import How, ModelRoute, RouteBoard, Routes, Target, VersionRoute
from gateway.traffic.shadow import Shadow
from gateway.traffic.split import Split
from tests.support.exchanges import engine_and_client
from tests.support.recorders import RecordingClient
from tests.support.scripted_engine import ScriptedEngine, answer, chunked

SAID = {"choices": [{"message": {"content": "a circle"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
ANSWER = answer(json.dumps(SAID).encode())
TOKENS = answer(b'{"tokens": [1, 2]}')
BODY = {"model": "m", "messages": [{"role": "user", "content": "which?"}], "temperature": 0}


class Bench:
    """A relay's shadows, and clients that have been answered."""

    def __init__(self, upstream: Any, address: str, shadow: Shadow, **version: Any) -> None:
        self.counts, self.running = RelayCounts(), dict[str, int]()
        self.told: list[Observed] = []
        self.demanded: list[tuple[str, str]] = []
        replicas = {name: Replica(f"{name}-0", "m", name, address, f"m:{name}") for name in ("v1", "v2")}
        self.replica = replicas["v2"]
        versions = {"v1": VersionRoute("v1", (replicas["v1"],))}
        versions["v2"] = VersionRoute("v2", **{"replicas": (self.replica,), "defaults": {"top_k": b"5"}} | version)
        split = Split.over("m", Allocation.divide({"v1": 1.0, "v2": 0.0}))
        self.model = ModelRoute("m", versions, split, shadow=shadow)
        self.board = RouteBoard(Routes({"m": self.model}))
        self.shadows = Shadows(
            self.board,
            upstream,
            self.running,
            self.counts,
            self.told.append,
            lambda *asked: self.demanded.append(asked),
        )

    def call(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Call:
        record = RequestRecord("id1", path, time.monotonic() - 1.0, "m", "v1", "v1-0", outcome="done")
        record.sent_s, record.first_byte_s, record.tokens_out = record.started_s + 0.1, 0.5, 2
        return Call(RequestHead(ENDPOINTS[path], {}, b"x-a: 1\r\n"), json.dumps(body).encode(), "9.9.9.9", record)

    def watch(self, call: Call, client: Client, version: str = "v1", unit: int = 7) -> Client:
        target = Target(self.model, self.model.versions[version], "m", None, How.SPLIT, unit)
        return self.shadows.watch(call, client, parse_fields(call.body), target)

    def answer(self, text: str = "a square", body: dict[str, Any] | None = None, status: int = 200) -> RecordingClient:
        client = RecordingClient()
        document = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.watch(self.call(body or BODY), client).answer(status, b"", document)
        assert client.steps == ["answer"]
        return client

    async def settle(self, copies: int = 1) -> list[Copied]:
        async with asyncio.timeout(5):
            while sum(self.counts.copies.values()) < copies or self.running:
                await asyncio.sleep(0.001)
        self.shadows._tell()
        return [copied for one in self.told for copied in one.copies]

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: count for (_, _, outcome), count in self.counts.copies.items()}


@asynccontextmanager
async def bench(
    folder: Path, scripts: list[Any], *, shadow: Shadow | None = None, **version: Any
) -> AsyncIterator[tuple[Bench, ScriptedEngine]]:
    async with engine_and_client(folder, scripts) as (engine, upstream, address):
        made = Bench(upstream, address, shadow or Shadow("v2", 100, stage=5), **version)
        yield made, engine
        await made.shadows.close()


def sent(engine: ScriptedEngine, number: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(engine.requests[number].partition(b"\r\n\r\n")[2])
    return body


async def test_a_copy_is_sent_once_the_client_has_its_answer_and_compared(tmp_path: Path) -> None:
    async with bench(tmp_path, [[ANSWER], [TOKENS], [answer(b'{"tokens": [1, 3]}')]]) as (made, engine):
        made.answer()
        assert engine.requests == []
        [copied] = await made.settle()
        assert sent(engine) == {**BODY, "model": "m:v2", "top_k": 5}, "as for any request to that version"
        assert b"x-request-id: id1-shadow\r\nx-a: 1\r\n" in engine.requests[0]
        assert [sent(engine, number)["prompt"] for number in (1, 2)] == ["a square", "a circle"]
        assert (copied.request_id, copied.primary, copied.shadow, copied.stage, copied.unit, copied.texts) == (
            "id1", "v1", "v2", 5, 7, None)  # fmt: skip
        assert copied.values["agreement"] == 2 / 8, "a s, a c"
        assert copied.values["first_difference"] == 1
        assert (copied.values["primary/tokens_out"], copied.values["shadow/tokens_out"]) == (2, 4)
        assert copied.values["primary/total_s"] == pytest.approx(0.9, abs=0.1), "from when the engine was asked"
        assert "primary/ttft_s" not in copied.values
        assert made.outcomes == {"compared": 1}


async def test_streams_are_copied_as_streams(tmp_path: Path) -> None:
    events = [b'data: {"choices":[{"delta":{"content":"a c"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
              b'data: {"choices":[],"usage":{"completion_tokens":9}}\n\n', b"data: [DONE]\n\n"]  # fmt: skip
    async with bench(tmp_path, [chunked(events)]) as (made, engine):
        client = RecordingClient()
        call = made.call(BODY | {"stream": True, "temperature": 1})
        call.record.is_stream = True
        watched = made.watch(call, client)
        assert watched.begin(200, b"") is None, "every piece is seen"
        for event in events[:2]:
            watched.write(event)
        watched.end(events[3])
        assert (client.steps, client.body) == (["begin", "write", "write", "end"], b"".join([*events[:2], events[3]]))
        [copied] = await made.settle()
        assert sent(engine)["stream_options"] == {"include_usage": True}
        assert copied.values["primary/ttft_s"] == pytest.approx(0.4)
        assert 0 < copied.values["shadow/ttft_s"] < 0.4
        assert copied.values["shadow/tokens_out"] == 9
        assert "agreement" not in copied.values, "sampled answers differ anyway"


async def test_times_of_an_answer_that_its_client_held_up_are_left_out(tmp_path: Path) -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":9}}\n\n'
    async with bench(tmp_path, [chunked([usage, b"data: [DONE]\n\n"])]) as (made, _):
        call = made.call(BODY | {"stream": True, "temperature": 1})
        call.record.is_stream = True
        watched = made.watch(call, RecordingClient())
        watched.begin(200, b"")
        call.record.is_held_up = True
        watched.end(b"data: [DONE]\n\n")
        [copied] = await made.settle()
        assert {name for name in copied.values if name.startswith("change/")} == {"change/failed", "change/tokens_out"}


async def test_texts_are_kept_only_if_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_TEXT", 6)
    async with bench(tmp_path, [[ANSWER]], shadow=Shadow("v2", 100, keep_texts=True)) as (made, _):
        made.answer(body=BODY | {"temperature": 1})
        [copied] = await made.settle()
        assert copied.texts is not None
        assert (copied.texts.question, copied.texts.primary, copied.texts.shadow) == ("which?", "a squa", "a circ")


async def test_both_versions_score_both_answers_if_that_was_asked_for(tmp_path: Path) -> None:
    scores = [
        [answer(json.dumps({"prompt_logprobs": [{"1": {"logprob": one}}, {"2": {"logprob": one}}]}).encode())]
        for one in (-0.5, -2.5, -3.0, -1.0)
    ]
    scripts = [[ANSWER], [TOKENS], [TOKENS], *scores[:2], [TOKENS], [TOKENS], *scores[2:]]
    async with bench(tmp_path, scripts, shadow=Shadow("v2", 100, cross_score=True)) as (made, engine):
        made.answer(body=BODY | {"temperature": 1})
        [copied] = await made.settle()
        assert (copied.values["gap_of_primary"], copied.values["gap_of_shadow"]) == (2.0, 2.0)
        assert [sent(engine, number)["model"] for number in range(1, 9)] == ["m:v1", "m:v2"] * 4


@pytest.mark.parametrize(
    ("shadow", "version", "unit", "path"),
    [
        (Shadow("v2", 0), "v1", 7, "/v1/chat/completions"),
        (Shadow("v2", 100), "v2", 7, "/v1/chat/completions"),
        (Shadow("v2", 100), "v1", 0, "/v1/chat/completions"),
        (Shadow("v2", 100), "v1", 7, "/v1/embeddings"),
        (Shadow("v2", 100), "v1", 7, "/tokenize"),
        (None, "v1", 7, "/v1/chat/completions"),
    ],
)
async def test_what_is_not_to_be_copied_costs_nothing(
    tmp_path: Path, shadow: Shadow | None, version: str, unit: int, path: str
) -> None:
    async with bench(tmp_path, [[ANSWER]]) as (made, _):
        made.model = ModelRoute("m", made.model.versions, made.model.split, shadow=shadow)
        client = RecordingClient()
        assert made.watch(made.call(BODY, path), client, version, unit) is client


async def test_a_clients_mistake_is_not_copied_but_a_failure_is(tmp_path: Path) -> None:
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        made.answer(status=400)
        client = RecordingClient()
        made.watch(made.call(BODY), client).refuse(BadRequest("no"))
        made.watch(made.call(BODY), RecordingClient()).abandon()
        await asyncio.sleep(0.02)
        assert (engine.requests, client.steps) == ([], ["refuse"])
        call = made.call(BODY)
        call.record.outcome = "no_replica"
        made.watch(call, RecordingClient()).refuse(NoReplica("away", retry_after_s=1))
        [copied] = await made.settle()
        assert copied.values == {"primary/failed": 1, "shadow/failed": 0, "change/failed": -1}


@pytest.mark.parametrize("script", [[answer(b"{}", status="500 Oops")], [answer(b"{}", status="400 Bad")], [None]])
async def test_a_copy_that_fails_is_told(tmp_path: Path, script: Any) -> None:
    async with bench(tmp_path, [script]) as (made, _):
        made.answer()
        [copied] = await made.settle()
        assert copied.values["shadow/failed"] == 1
        assert made.outcomes == {"failed": 1}


async def test_a_copy_that_the_version_would_refuse_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise BadRequest("too many pixels")

    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        monkeypatch.setattr("gateway.proxy.shadow.request_body.rewrite", refuse)
        made.answer()
        assert await made.settle() == []
        assert (made.outcomes, engine.requests) == ({"dropped": 1}, [])


async def test_copies_wait_while_the_engine_has_enough_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.005)
    async with bench(tmp_path, [[ANSWER]], shadow=Shadow("v2", 100, concurrency=2)) as (made, engine):
        made.running[made.replica.address] = 2
        made.answer(body=BODY | {"temperature": 1})
        await asyncio.sleep(0.03)
        assert engine.requests == []
        del made.running[made.replica.address]
        await made.settle()
        assert len(engine.requests) == 1


async def test_not_more_are_under_way_than_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path, [[0.02, ANSWER]], shadow=Shadow("v2", 100, concurrency=2)) as (made, _):
        for _ in range(6):
            made.answer(body=BODY | {"temperature": 1})
        most = 0
        while sum(made.counts.copies.values()) < 6:
            most = max(most, made.running.get(made.replica.address, 0))
            await asyncio.sleep(0.001)
        assert most == 2


async def test_copies_are_dropped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    monkeypatch.setattr(module, "_LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.005)
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        made.running[made.replica.address] = 99
        for _ in range(5):
            made.answer()
        assert made.outcomes == {"dropped": 2}, "too many wait"
        async with asyncio.timeout(5):
            while made.outcomes["dropped"] < 5:
                await asyncio.sleep(0.001)
        assert engine.requests == [], "they have waited for too long"
        del made.running[made.replica.address]


async def test_copies_take_so_much_memory_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_BYTES", 1000)
    async with bench(tmp_path, [[ANSWER]]) as (made, _):
        large = BODY | {"extra": "x" * 600}
        one, two = RecordingClient(), RecordingClient()
        watched = made.watch(made.call(large), one)
        assert watched is not one
        assert made.watch(made.call(large), two) is two
        del watched  # its client has hung up
        assert made.watch(made.call(large), two) is not two


async def test_an_answer_that_is_too_long_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_ANSWER_BYTES", 50)
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        made.answer("x" * 100)
        await asyncio.sleep(0.02)
        assert (engine.requests, made.outcomes) == ([], {"dropped": 1})


async def test_answers_that_grow_take_no_more_memory_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_MOST_BYTES", 1000)
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        call = made.call(BODY | {"stream": True})
        client = RecordingClient()
        watched = made.watch(call, client)
        watched.begin(200, b"")
        for _ in range(5):
            watched.write(b"x" * 400)
        assert (made.outcomes, made.shadows._room.taken_bytes) == ({"dropped": 1}, 0)
        watched.end(b"y")
        assert client.body == b"x" * 2000 + b"y"
        await asyncio.sleep(0.02)
        assert (engine.requests, made.outcomes) == ([], {"dropped": 1})


async def test_one_that_was_switched_off_gets_nothing_more(tmp_path: Path) -> None:
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        made.answer()
        ended = ModelRoute("m", made.model.versions, made.model.split, shadow=None)
        made.board.publish(Routes({"m": ended}))
        assert (await made.settle(), made.outcomes, engine.requests) == ([], {"dropped": 1}, [])


async def test_texts_are_not_kept_once_that_was_switched_off(tmp_path: Path) -> None:
    async with bench(tmp_path, [[0.05, ANSWER]], shadow=Shadow("v2", 100, keep_texts=True)) as (made, engine):
        made.answer(body=BODY | {"temperature": 1})
        async with asyncio.timeout(5):
            while not engine.requests:
                await asyncio.sleep(0.001)
        changed = ModelRoute("m", made.model.versions, made.model.split, shadow=Shadow("v2", 100))
        made.board.publish(Routes({"m": changed}))
        [copied] = await made.settle()
        assert copied.texts is None


async def test_a_score_counts_as_a_request_of_the_engine_that_gives_it(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    here.mkdir()
    there.mkdir()
    slow = [[0.02, TOKENS]] * 9
    async with engine_and_client(there, slow) as (_, _, other):  # noqa: SIM117 - the second needs no more indent
        async with bench(here, [[ANSWER], *slow], shadow=Shadow("v2", 100, concurrency=1, cross_score=True)) as (
            made, _):  # fmt: skip
            replica = Replica("v1-0", "m", "v1", other, "m:v1")
            versions = {**made.model.versions, "v1": VersionRoute("v1", (replica,))}
            made.model = ModelRoute("m", versions, made.model.split, shadow=made.model.shadow)
            made.board.publish(Routes({"m": made.model}))
            made.answer(body=BODY | {"temperature": 1})
            seen = set()
            async with asyncio.timeout(5):
                while not made.counts.copies:
                    seen.add(made.running.get(other, 0))
                    await asyncio.sleep(0.001)
            assert (seen, made.running) == ({0, 1}, {})


async def test_a_stream_without_its_end_has_failed(tmp_path: Path) -> None:
    for events in ([b"data: {}\n\n"], [b'data: {"error": {}}\n\n', b"data: [DONE]\n\n"]):
        async with bench(tmp_path, [chunked(events)]) as (made, _):
            made.answer()
            [copied] = await made.settle()
            assert (copied.values["shadow/failed"], made.outcomes) == (1, {"failed": 1})


async def test_what_was_compared_is_told_in_one_go(tmp_path: Path) -> None:
    async with bench(tmp_path, [[ANSWER]]) as (made, _):
        for _ in range(5):
            made.answer(body=BODY | {"temperature": 1})
        assert len(await made.settle(5)) == 5
        assert len(made.told) == 1


async def test_a_defect_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "compare", fail)
    async with bench(tmp_path, [[ANSWER]]) as (made, _):
        made.answer()
        await made.settle()
        assert made.outcomes == {"dropped": 1}


@pytest.mark.parametrize(("can_wake", "demanded"), [(True, [("m", "v2")]), (False, [])])
async def test_a_version_that_sleeps_is_woken_for_the_next_copies(
    tmp_path: Path, can_wake: bool, demanded: list[tuple[str, str]]
) -> None:
    async with bench(tmp_path, [[ANSWER]], replicas=(), can_wake=can_wake) as (made, _):
        made.answer()
        await made.settle()
        assert (made.outcomes, made.demanded) == ({"dropped": 1}, demanded)


async def test_a_version_that_is_gone_gets_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, [[ANSWER]]) as (made, engine):
        made.board.publish(Routes())
        made.answer()
        await made.settle()
        assert (made.outcomes, engine.requests) == ({"dropped": 1}, [])


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with bench(tmp_path, [[5.0]]) as (made, engine):
        made.answer()
        async with asyncio.timeout(5):
            while not engine.requests:
                await asyncio.sleep(0.001)
        made.answer()
        await made.shadows.close()
        await asyncio.sleep(0)
        assert made.running == {}
        made.answer()
        assert len(engine.requests) == 1
