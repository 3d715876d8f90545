"""Exchanges under test: over a real socket with a scripted engine, or over a transport that the test plays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.proxy.exchange import Exchange
from gateway.proxy.pieces import Piece
from gateway.proxy.upstream import Upstream, write_head
from tests.support.fake_transport import FakeTransport
from tests.support.recorders import RecordingReader
from tests.support.scripted_engine import Script, ScriptedEngine, answer, chunked, scripted_engine

OK = answer(b'{"a": 1}')
STREAM = b"".join(step for step in chunked([b"data: 1\n\n", b"data: 2\n\n"]) if isinstance(step, bytes))


def client(first_byte_timeout_s: float = 5.0, idle_timeout_s: float = 5.0) -> Upstream:
    return Upstream(first_byte_timeout_s=first_byte_timeout_s, idle_timeout_s=idle_timeout_s)


@asynccontextmanager
async def engine_and_client(folder: Path, scripts: list[Script]) -> AsyncIterator[tuple[ScriptedEngine, Upstream, str]]:
    upstream = client()
    async with scripted_engine(folder, scripts) as (engine, address):
        try:
            yield engine, upstream, address
        finally:
            upstream.close()


def ask(upstream: Upstream, address: str, reader: RecordingReader, *body: Piece) -> Exchange:
    head = write_head("unix:///e", "/v1/x", b"x-a: 1\r\n", "id1", sum(map(len, body)))
    return upstream.request(address, head, body, reader)


async def read(upstream: Upstream, address: str, *body: Piece) -> RecordingReader:
    reader = RecordingReader()
    ask(upstream, address, reader, *body)
    await over(reader)
    return reader


async def over(reader: RecordingReader) -> None:
    async with asyncio.timeout(20):
        await reader.over.wait()


async def step(reader: RecordingReader, name: str) -> None:
    await until(lambda: name in reader.steps)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def hung_up(engine: ScriptedEngine) -> None:
    async with asyncio.timeout(2):
        await engine.hung_up.wait()


class Played:
    """An exchange over a connection that the test plays the engine of.

    Where it `knows_heads`, all that it is told has come once before over another connection.
    """

    knows_heads = False

    def __init__(self, reader: RecordingReader | None = None, upstream: Upstream | None = None) -> None:
        self.reader = reader or RecordingReader()
        self.upstream = upstream or client()
        self.connection = self.upstream._new_connection()
        self.transport = FakeTransport(self.connection)
        self.exchange = self.begin(self.reader, is_kept=False)

    def begin(self, reader: RecordingReader, *, is_kept: bool) -> Exchange:
        exchange = Exchange(self.upstream, "unix:///e", b"POST", (b"{}",), reader)
        self.upstream._running.add(exchange)
        exchange.start(self.connection, is_kept=is_kept)
        return exchange

    @property
    def is_kept(self) -> bool:
        return self.upstream._take("unix:///e") is not None

    def told(self, *pieces: bytes) -> RecordingReader:
        if self.knows_heads:
            upstream = client()
            upstream._known_heads = self.upstream._known_heads
            Played(upstream=upstream).transport.feed(b"".join(pieces))
        self.transport.feed(*pieces)
        assert self.exchange.is_over == (self.reader.steps[-1:] in (["end"], ["failure"]))
        return self.reader
