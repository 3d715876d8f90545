import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.errors import Draining, NoReplica, UpstreamFailed, UpstreamTimeout
from gateway.proxy import exchange as exchange_module
from gateway.proxy import upstream as module
from gateway.proxy.pieces import Piece
from gateway.proxy.upstream import Upstream, write_head
from tests.support.exchanges import OK, STREAM, Played, ask, client, engine_and_client, hung_up, over, read, step, until
from tests.support.recorders import RecordingReader
from tests.support.scripted_engine import Script, answer, chunked


@pytest.fixture(autouse=True)
def _times_for_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_S", 0.01)
    monkeypatch.setattr(exchange_module, "_STALE_WITHIN_S", 60.0)


def let_time_pass(upstream: Upstream) -> None:
    """From now on everything has lasted too long; the next sweep sees it."""
    upstream.now_s = lambda: upstream._loop.time() + 1000


# Over a real socket.


async def test_a_request_is_written_and_its_answer_read(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        reader = await read(upstream, address, b'{"q"', memoryview(b": 1}"))
        assert reader.steps == ["head", "data", "end"]
        assert (reader.status, reader.data) == (200, b'{"a": 1}')
        assert reader.headers[b"content-type"] == b"application/json"
        assert engine.requests == [
            b'POST /v1/x HTTP/1.1\r\nhost: engine\r\ncontent-length: 8\r\nx-request-id: id1\r\nx-a: 1\r\n\r\n{"q": 1}'
        ]


async def test_nothing_is_told_before_request_returns(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (_, upstream, address):
        await read(upstream, address)
        upstream.close()
        for place in (address, f"unix://{tmp_path}/nobody.sock"):
            reader = RecordingReader()
            ask(upstream, place, reader)
            assert reader.steps == []
            await over(reader)


async def test_connections_are_kept_after_clean_answers(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        for _ in range(3):
            assert (await read(upstream, address)).data == b'{"a": 1}'
        assert (engine.connections, len(engine.requests)) == (1, 3)


async def test_requests_at_the_same_time_have_connections_of_their_own(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[0.01, OK]]) as (engine, upstream, address):
        readers = [RecordingReader() for _ in range(3)]
        for reader in readers:
            ask(upstream, address, reader)
        for reader in readers:
            await over(reader)
        assert [reader.data for reader in readers] == [b'{"a": 1}'] * 3
        assert engine.connections == 3


async def test_a_connection_idle_for_long_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        await read(upstream, address)
        monkeypatch.setattr(module, "_MAX_IDLE_S", 0.0)
        await read(upstream, address)
        assert engine.connections == 2


async def test_no_more_connections_are_kept_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_IDLE_CONNECTIONS", 1)
    async with engine_and_client(tmp_path, [[0.01, OK]]) as (_, upstream, address):
        readers = [RecordingReader() for _ in range(3)]
        for reader in readers:
            ask(upstream, address, reader)
        for reader in readers:
            await over(reader)
        assert len([one for one in upstream._open if one.is_open]) == 1


async def test_an_abort_while_the_connection_opens_sends_nothing(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        reader = RecordingReader()
        ask(upstream, address, reader).abort()
        await until(lambda: engine.connections)
        await asyncio.sleep(0.01)
        assert (engine.requests, reader.steps) == ([], [])
        assert not [one for one in upstream._open if one.is_open]


async def test_a_kept_connection_that_the_engine_closed_is_replaced_once(tmp_path: Path) -> None:
    # The second request meets a connection that closes without an answer.
    async with engine_and_client(tmp_path, [[OK], [None], [OK]]) as (engine, upstream, address):
        await read(upstream, address)
        assert (await read(upstream, address)).steps == ["head", "data", "end"]
        assert engine.connections == 2


async def test_a_request_that_is_lost_twice_is_a_failure(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK], [None], [None], [OK]]) as (engine, upstream, address):
        await read(upstream, address)
        reader = await read(upstream, address)
        assert reader.steps == ["failure"]
        assert len(engine.requests) == 3


async def test_after_the_first_byte_nothing_is_sent_again(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK], [b"HTTP/1.1 2", None], [OK]]) as (engine, upstream, address):
        await read(upstream, address)
        reader = await read(upstream, address)
        assert isinstance(reader.failures[0], UpstreamFailed)
        assert len(engine.requests) == 2


async def test_an_interim_answer_is_a_first_byte_too(tmp_path: Path) -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    async with engine_and_client(tmp_path, [[OK], [interim, 0.005, None], [OK]]) as (engine, upstream, address):
        await read(upstream, address)
        assert (await read(upstream, address)).steps == ["failure"]
        assert len(engine.requests) == 2


async def test_a_request_lost_at_work_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_STALE_WITHIN_S", 0.005)
    async with engine_and_client(tmp_path, [[OK], [0.02, None], [OK]]) as (engine, upstream, address):
        await read(upstream, address)
        assert (await read(upstream, address)).steps == ["failure"]
        assert len(engine.requests) == 2


async def test_a_new_connection_that_closes_without_an_answer_is_a_failure(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[None]]) as (engine, upstream, address):
        reader = await read(upstream, address)
        assert "closed the connection" in reader.failures[0].message
        assert len(engine.requests) == 1


async def test_an_engine_that_never_begins_times_out(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[5.0]]) as (engine, upstream, address):
        reader = RecordingReader()
        ask(upstream, address, reader)
        await until(lambda: engine.requests)
        let_time_pass(upstream)
        await over(reader)
        assert isinstance(reader.failures[0], UpstreamTimeout)
        assert "begin its answer within 5 s" in reader.failures[0].message
        await hung_up(engine)


async def test_a_silent_answer_times_out(tmp_path: Path) -> None:
    script: Script = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx", 5.0]
    async with engine_and_client(tmp_path, [script]) as (engine, upstream, address):
        reader = RecordingReader()
        ask(upstream, address, reader)
        await step(reader, "data")
        upstream._sweep()  # the silence begins when the clock next looks
        let_time_pass(upstream)
        await over(reader)
        assert reader.data == b"x"
        assert isinstance(reader.failures[0], UpstreamTimeout)
        assert "go on with its answer within 5 s" in reader.failures[0].message
        await hung_up(engine)


async def test_a_reader_that_fails_does_not_stop_the_clock_for_others(tmp_path: Path) -> None:
    def fail(step: str) -> None:
        raise RuntimeError("boom")

    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    async with engine_and_client(tmp_path, [[5.0]]) as (engine, upstream, address):
        reader = RecordingReader()
        for one in (RecordingReader(fail), reader, RecordingReader(fail)):
            ask(upstream, address, one)
        await until(lambda: len(engine.requests) == 3)
        let_time_pass(upstream)
        await until(lambda: len(failures) == 2)
        await over(reader)


async def test_nobody_listening_is_no_capacity(tmp_path: Path) -> None:
    upstream = client()
    for address in (f"unix://{tmp_path}/nobody.sock", "http://127.0.0.1:1", "unix://" + "/x" * 200):
        reader = await read(upstream, address)
        assert isinstance(reader.failures[0], NoReplica)
        assert reader.failures[0].retry_after_s == 1
    upstream.close()


async def test_closing_cuts_answers_off_and_opens_no_more(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[*chunked([b"x"])[:2], 5.0]]) as (_, upstream, address):
        reader = RecordingReader()
        ask(upstream, address, reader)
        await step(reader, "data")
        upstream.close()
        await over(reader)
        assert isinstance(reader.failures[0], UpstreamFailed)
        assert isinstance((await read(upstream, address)).failures[0], Draining)


async def test_closing_while_a_connection_opens_refuses_its_request(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        reader = RecordingReader()
        ask(upstream, address, reader)
        await asyncio.sleep(0)  # the connection is being opened
        upstream.close()
        await over(reader)
        assert isinstance(reader.failures[0], Draining)
        await asyncio.sleep(0.01)
        assert engine.requests == []


async def test_tcp_works_too() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = client()
    port = server.sockets[0].getsockname()[1]
    assert (await read(upstream, f"http://127.0.0.1:{port}")).data == b'{"a": 1}'
    upstream.close()
    server.close()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("gap", [[], [0.01]])
async def test_bytes_behind_an_answer_never_reach_the_next_request(tmp_path: Path, gap: Script) -> None:
    foreign = answer(b"somebody else's", status="403 Forbidden")
    first: Script = [OK, *gap, foreign, 5.0] if gap else [OK + foreign, 5.0]
    async with engine_and_client(tmp_path, [first, [OK]]) as (engine, upstream, address):
        for _ in range(2):
            reader = await read(upstream, address)
            assert (reader.status, reader.data, reader.steps[-1]) == (200, b'{"a": 1}', "end")
            await hung_up(engine)
        assert engine.connections == 2


# Over a connection played by the test.


class Clock:
    """A clock that stands still; the upstream's own sweep is called by hand."""

    def __init__(self, played: Played) -> None:
        self._upstream = played.upstream
        self._now_s = played.exchange.started_s
        self._upstream.now_s = lambda: self._now_s

    def pass_by(self, seconds: float) -> None:
        self._now_s += seconds
        self._upstream._sweep()


async def test_the_silence_is_counted_from_the_look_that_follows_the_last_byte() -> None:
    played = Played(upstream=client(first_byte_timeout_s=100, idle_timeout_s=10))
    clock = Clock(played)
    clock.pass_by(99)  # no byte yet: the other limit counts
    for piece in (STREAM[:-30], STREAM[-30:-20], STREAM[-20:-10]):
        played.told(piece)
        clock.pass_by(9)
    clock.pass_by(9)
    assert not played.exchange.is_over
    clock.pass_by(2)
    assert isinstance(played.reader.failures[0], UpstreamTimeout)


async def test_an_interim_answer_does_not_count_as_a_beginning() -> None:
    played = Played(upstream=client(first_byte_timeout_s=10, idle_timeout_s=100))
    clock = Clock(played)
    played.told(b"HTTP/1.1 100 Continue\r\n\r\n")
    clock.pass_by(9)
    assert not played.exchange.is_over
    clock.pass_by(2)
    assert "begin its answer" in played.reader.failures[0].message


async def test_a_pause_is_not_the_engines_silence() -> None:
    played = Played(upstream=client(first_byte_timeout_s=100, idle_timeout_s=10))
    clock = Clock(played)
    played.told(STREAM[:-30])
    clock.pass_by(9)
    played.exchange.pause()
    clock.pass_by(9)
    played.exchange.resume()
    clock.pass_by(9)
    assert not played.exchange.is_over
    clock.pass_by(2)
    assert "go on with its answer" in played.reader.failures[0].message


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    played = Played(upstream=client(first_byte_timeout_s=100, idle_timeout_s=10))
    clock = Clock(played)
    played.told(STREAM[:-30])
    played.exchange.pause()
    clock.pass_by(9)
    assert not played.exchange.is_over
    clock.pass_by(2)
    assert "took nothing for 10 s" in played.reader.failures[0].message
    assert played.transport.is_aborted


# The head.


@pytest.mark.parametrize("body", [[b""], [b"ab", memoryview(b"c")], [b"x" * 100_000, memoryview(b"y")]])
def test_the_head_tells_the_length_of_all_pieces(body: Sequence[Piece]) -> None:
    head = write_head("unix:///e", "/v1/x", b"a: 1\r\nb: 2\r\n", "id1", sum(map(len, body)))
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert head.endswith(b"\r\na: 1\r\nb: 2\r\n\r\n")
    assert b"content-length: %d\r\n" % len(b"".join(body)) in head
