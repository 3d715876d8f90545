import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.simulator.http import Connection, Exchange, Request


class FakeTransport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True


def connect(handler: Callable[[Request, Exchange], Any]) -> tuple[Connection, FakeTransport]:
    connection, transport = Connection(handler, set()), FakeTransport()
    connection.connection_made(transport)
    return connection, transport


async def echo(request: Request, exchange: Exchange) -> None:
    await exchange.send(200, request.body or request.path.encode())


async def settle(connection: Connection) -> None:
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=5)  # type: ignore[arg-type]
    assert connection.is_idle


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_requests_cut_anywhere_are_answered_in_turn(size: int) -> None:
    raw = b"POST /a?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n"
    connection, transport = connect(echo)
    for at in range(0, len(raw), size):
        connection.data_received(raw[at : at + size])
    await settle(connection)
    assert transport.sent.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert transport.sent.index(b"\r\n\r\nabc") < transport.sent.index(b"\r\n\r\n/b")
    assert not transport.is_closed


async def test_a_connection_closes_when_the_client_wants_it() -> None:
    connection, transport = connect(echo)
    connection.data_received(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    await settle(connection)
    assert transport.is_closed


async def test_a_stream_is_chunked() -> None:
    async def stream(_: Request, exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.write(b"data: x\n\n")
        await exchange.end_stream()

    connection, transport = connect(stream)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    await settle(connection)
    assert transport.sent.endswith(b"\r\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\n")


async def test_a_hang_up_cancels_the_request() -> None:
    cancelled = asyncio.Event()

    async def wait(_request: Request, _exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    connection, _ = connect(wait)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0)
    connection.connection_lost(None)
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    connection, transport = connect(echo)
    connection.pause_writing()
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connection.is_idle
    connection.resume_writing()
    await settle(connection)
    assert transport.sent.endswith(b"/")


async def test_a_large_body_may_wait_for_leave() -> None:
    connection, transport = connect(echo)
    connection.data_received(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(b"hi")
    await settle(connection)
    assert transport.sent.endswith(b"hi")


async def test_what_is_no_http_gets_a_400() -> None:
    connection, transport = connect(echo)
    connection.data_received(b"\x16\x03\x01 hello\r\n\r\n")
    assert transport.sent.startswith(b"HTTP/1.1 400")
    assert transport.is_closed
