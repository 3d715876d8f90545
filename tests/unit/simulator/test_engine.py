import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.simulator.answers import RefusalError
from gateway.simulator.engine import Engine
from gateway.simulator.generation import make_answer
from gateway.simulator.openai import CHAT
from gateway.simulator.options import Options

INSTANT = Options(ttft_s=0, itl_s=0, tokens=4)
ENDLESS = replace(INSTANT, ttft_s=3600)


class FakeExchange:
    """Takes an answer down."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.end = ""

    async def send(self, status: int, body: bytes) -> None:
        self.frames.append(body)
        self.end = str(status)

    async def begin_stream(self) -> None:
        self.end = "open"

    async def write(self, data: bytes) -> None:
        self.frames.append(data)

    async def end_stream(self) -> None:
        self.end = "ended"

    def cut(self) -> None:
        self.end = "cut"


class DeathError(Exception):
    """Stands for the end of the process."""


def die(code: int) -> None:
    raise DeathError(code)


async def give(engine: Engine, options: Options, *, stream: bool = True) -> FakeExchange:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    exchange = FakeExchange()
    async with asyncio.timeout(5):
        await engine.give(CHAT, make_answer(options, CHAT, body, None), exchange)  # type: ignore[arg-type]
    return exchange


async def start(engine: Engine, options: Options) -> asyncio.Task[FakeExchange]:
    task = asyncio.get_running_loop().create_task(give(engine, options))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def with_fault(kind: str, number: float = 0) -> Options:
    return replace(INSTANT, faults={kind: number})


async def test_a_whole_answer_and_a_stream() -> None:
    engine = Engine(INSTANT)
    assert (await give(engine, INSTANT, stream=False)).end == "200"
    stream = await give(engine, INSTANT)
    assert (stream.end, stream.frames[-1]) == ("ended", b"data: [DONE]\n\n")
    assert engine.totals["finished"] == 2
    assert engine.totals["generation_tokens"] == 8
    assert (engine.running, engine.waiting) == (0, 0)


async def test_counts_of_running_and_waiting_and_a_hang_up_frees_the_seat() -> None:
    options = replace(ENDLESS, max_num_seqs=1)
    engine = Engine(options)
    first, second = await start(engine, options), await start(engine, options)
    assert (engine.running, engine.waiting) == (1, 1)
    first.cancel()
    await asyncio.wait([first])
    for _ in range(5):
        await asyncio.sleep(0)
    assert (engine.running, engine.waiting) == (1, 0)
    second.cancel()
    async with asyncio.timeout(5):
        await engine.wait_idle()
    assert (engine.running, engine.waiting) == (0, 0)


async def test_a_hang_up_while_waiting_is_counted_too() -> None:
    options = replace(ENDLESS, max_num_seqs=1)
    engine = Engine(options)
    first, second = await start(engine, options), await start(engine, options)
    second.cancel()
    await asyncio.wait([second])
    assert (engine.running, engine.waiting) == (1, 0)
    first.cancel()
    await asyncio.wait([first])


@pytest.mark.parametrize("kind", ["no-token", "error-500"])
async def test_generation_fails_with_500(kind: str) -> None:
    with pytest.raises(RefusalError) as caught:
        await give(Engine(with_fault(kind)), INSTANT)
    assert (caught.value.code, caught.value.kind) == (500, "InternalServerError")


async def test_error_500_after_some() -> None:
    engine = Engine(with_fault("error-500", 1))
    assert (await give(engine, INSTANT)).end == "ended"
    with pytest.raises(RefusalError):
        await give(engine, INSTANT)


async def test_hang_after_some() -> None:
    engine = Engine(with_fault("hang", 1))
    assert (await give(engine, INSTANT)).end == "ended"
    task = await start(engine, INSTANT)
    assert not task.done()
    assert engine.running == 1
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("stream", [True, False])
async def test_die_amid_an_answer_after_some(stream: bool) -> None:
    engine = Engine(with_fault("die-after", 1), die)
    assert (await give(engine, INSTANT)).end == "ended"
    with pytest.raises(DeathError, match="0"):
        await give(engine, INSTANT, stream=stream)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_a_stream_is_cut_after_so_many_frames(count: int) -> None:
    exchange = await give(Engine(with_fault("cut-stream", count)), INSTANT)
    assert (exchange.end, len(exchange.frames)) == ("cut", count)
    assert b"[DONE]" not in exchange.frames[-1]


async def test_one_broken_frame() -> None:
    exchange = await give(Engine(with_fault("bad-frame")), INSTANT)
    assert exchange.frames[2] == b'data: {"id":"broken\n\n'
    assert exchange.end == "ended"


async def test_while_draining_running_answers_finish_and_new_ones_fail() -> None:
    options = replace(INSTANT, shutdown_timeout_s=5, faults={"hang": 0})
    engine = Engine(options)
    task = await start(engine, options)
    draining = asyncio.get_running_loop().create_task(engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(RefusalError, match="after shutdown"):
        await give(engine, INSTANT)
    assert not draining.done()
    task.cancel()
    async with asyncio.timeout(4):
        await draining


async def test_without_a_timeout_nothing_is_waited_for() -> None:
    engine = Engine(ENDLESS)
    task = await start(engine, ENDLESS)
    await engine.drain()
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_told_to_hang_it_falls_silent_and_stays_until_the_client_goes() -> None:
    options = replace(INSTANT, ttft_s=0.001, faults={"hang-on-sigterm": 0})
    engine = Engine(options)
    task = await start(engine, options)
    draining = asyncio.get_running_loop().create_task(engine.drain())
    done, _ = await asyncio.wait([task, draining], timeout=0.05)
    assert not done
    task.cancel()
    async with asyncio.timeout(5):
        await draining
