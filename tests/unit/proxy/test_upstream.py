import asyncio
from pathlib import Path

import pytest

from gateway.errors import Draining, NoReplica, UpstreamFailed, UpstreamTimeout
from gateway.proxy.upstream import Exchange, Upstream
from tests.support.scripted_engine import Script, answer, chunked, scripted_engine

OK = answer(b'{"a": 1}')


def client(first_byte_timeout_s: float = 5.0, idle_timeout_s: float = 5.0) -> Upstream:
    return Upstream(first_byte_timeout_s=first_byte_timeout_s, idle_timeout_s=idle_timeout_s)


async def ask(upstream: Upstream, address: str, body: bytes = b"{}") -> Exchange:
    return await upstream.request(address, "/v1/x", [(b"x-a", b"1")], body)


async def read_all(exchange: Exchange) -> bytes:
    pieces = []
    while (piece := await exchange.read()) is not None:
        pieces.append(piece)
    exchange.finish()
    return b"".join(pieces)


async def test_a_request_is_written_and_its_answer_read(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[OK]]) as (engine, address):
        upstream = client()
        exchange = await ask(upstream, address, b'{"q": 1}')
        assert exchange.status == 200
        assert (b"content-type", b"application/json") in exchange.headers
        assert await read_all(exchange) == b'{"a": 1}'
        assert engine.requests == [
            b'POST /v1/x HTTP/1.1\r\nhost: engine\r\ncontent-length: 8\r\nx-a: 1\r\n\r\n{"q": 1}'
        ]
        upstream.close()


async def test_connections_are_kept_after_clean_answers(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[OK]]) as (engine, address):
        upstream = client()
        for _ in range(3):
            await read_all(await ask(upstream, address))
        assert (engine.connections, len(engine.requests)) == (1, 3)
        upstream.close()


async def test_an_unfinished_answer_closes_its_connection(tmp_path: Path) -> None:
    script: Script = [*chunked([b"data: 1\n\n"])[:2], 5.0]
    async with scripted_engine(tmp_path, [script]) as (engine, address):
        exchange = await ask(client(), address)
        assert await exchange.read() == b"data: 1\n\n"
        exchange.finish()
        async with asyncio.timeout(2):
            await engine.hung_up.wait()


async def test_a_kept_connection_that_the_engine_closed_is_replaced(tmp_path: Path) -> None:
    # The second request meets a connection that closes without an answer.
    async with scripted_engine(tmp_path, [[OK], [None], [OK]]) as (engine, address):
        upstream = client()
        await read_all(await ask(upstream, address))
        assert await read_all(await ask(upstream, address)) == b'{"a": 1}'
        assert engine.connections == 2
        upstream.close()


async def test_a_new_connection_that_closes_without_an_answer_is_a_failure(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[None]]) as (engine, address):
        with pytest.raises(UpstreamFailed, match="closed the connection"):
            await ask(client(), address)
        assert len(engine.requests) == 1


@pytest.mark.parametrize("cut_at", range(1, len(OK) + 1, 7))
async def test_an_answer_may_come_in_any_pieces(tmp_path: Path, cut_at: int) -> None:
    async with scripted_engine(tmp_path, [[OK[:cut_at], 0.001, OK[cut_at:]]]) as (_, address):
        upstream = client()
        assert await read_all(await ask(upstream, address)) == b'{"a": 1}'
        upstream.close()


async def test_an_interim_answer_is_passed_over(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[b"HTTP/1.1 100 Continue\r\n\r\n", OK]]) as (_, address):
        upstream = client()
        assert await read_all(await ask(upstream, address)) == b'{"a": 1}'
        upstream.close()


async def test_without_a_length_the_close_is_the_end(tmp_path: Path) -> None:
    script: Script = [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"all of it", None]
    async with scripted_engine(tmp_path, [script]) as (_, address):
        assert await read_all(await ask(client(), address)) == b"all of it"


async def test_a_cut_body_is_a_failure_after_what_had_come(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [chunked([b"data: 1\n\n"], has_end=False)]) as (_, address):
        exchange = await ask(client(), address)
        assert await exchange.read() == b"data: 1\n\n"
        with pytest.raises(UpstreamFailed, match="before its answer had ended"):
            await exchange.read()
        exchange.finish()


async def test_an_engine_that_never_begins_times_out(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[5.0]]) as (engine, address):
        with pytest.raises(UpstreamTimeout, match=r"begin its answer within 0\.05 s"):
            await ask(client(first_byte_timeout_s=0.05), address)
        async with asyncio.timeout(2):
            await engine.hung_up.wait()


async def test_a_silent_answer_times_out(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[*chunked([b"x"])[:2], 5.0]]) as (_, address):
        exchange = await ask(client(idle_timeout_s=0.05), address)
        assert await exchange.read() == b"x"
        with pytest.raises(UpstreamTimeout, match="go on with its answer"):
            await exchange.read()
        exchange.finish()


async def test_nobody_listening_is_no_capacity(tmp_path: Path) -> None:
    with pytest.raises(NoReplica) as caught:
        await ask(client(), f"unix://{tmp_path}/nobody.sock")
    assert caught.value.retry_after_s == 1


@pytest.mark.parametrize("noise", [b"SSH-2.0-x\r\n", b"\x00\xff\x00", b"HTTP/1.1 abc\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_failure(tmp_path: Path, noise: bytes) -> None:
    async with scripted_engine(tmp_path, [[noise, 1.0]]) as (_, address):
        with pytest.raises(UpstreamFailed, match="not HTTP"):
            await ask(client(), address)


async def test_endless_headers_are_refused(tmp_path: Path) -> None:
    flood = b"HTTP/1.1 200 OK\r\n" + b"x-flood: " + b"a" * 70_000
    async with scripted_engine(tmp_path, [[flood, 1.0]]) as (_, address):
        with pytest.raises(UpstreamFailed, match="64 KiB"):
            await ask(client(), address)


async def test_a_slow_reader_holds_the_engine_back(tmp_path: Path) -> None:
    total = 20_000_000
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n".encode()
    async with scripted_engine(tmp_path, [[head, b"x" * total]]) as (_, address):
        upstream = client()
        exchange = await ask(upstream, address)
        for _ in range(50):
            await asyncio.sleep(0)
        assert exchange.buffered_bytes < 1_000_000
        assert len(await read_all(exchange)) == total
        upstream.close()


async def test_a_large_body_is_sent_whole(tmp_path: Path) -> None:
    body = b"y" * 5_000_000
    async with scripted_engine(tmp_path, [[OK]]) as (engine, address):
        upstream = client()
        assert await read_all(await ask(upstream, address, body)) == b'{"a": 1}'
        assert engine.requests[0].endswith(body)
        upstream.close()


async def test_closing_cuts_answers_off_and_opens_no_more(tmp_path: Path) -> None:
    async with scripted_engine(tmp_path, [[*chunked([b"x"])[:2], 5.0]]) as (_, address):
        upstream = client()
        exchange = await ask(upstream, address)
        assert await exchange.read() == b"x"
        upstream.close()
        with pytest.raises(UpstreamFailed):
            await exchange.read()
        exchange.finish()
        with pytest.raises(Draining):
            await ask(upstream, address)


async def test_tcp_works_too() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = client()
    port = server.sockets[0].getsockname()[1]
    assert await read_all(await ask(upstream, f"http://127.0.0.1:{port}", b"")) == b'{"a": 1}'
    upstream.close()
    server.close()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("gap", [[], [0.01]])
async def test_bytes_behind_an_answer_never_reach_the_next_request(tmp_path: Path, gap: Script) -> None:
    foreign = answer(b"somebody else's")
    first: Script = [OK, *gap, foreign, 5.0] if gap else [OK + foreign, 5.0]
    async with scripted_engine(tmp_path, [first, [OK]]) as (engine, address):
        upstream = client()
        assert await read_all(await ask(upstream, address)) == b'{"a": 1}'
        async with asyncio.timeout(2):
            await engine.hung_up.wait()
        assert await read_all(await ask(upstream, address)) == b'{"a": 1}'
        assert engine.connections == 2
        upstream.close()
