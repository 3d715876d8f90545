import asyncio
import gc
from pathlib import Path

import pytest

from gateway.errors import OperatorFault, UpstreamFailed
from gateway.proxy import exchange as module
from tests.support.exchanges import OK, STREAM, Played, ask, engine_and_client, hung_up, over, read, step
from tests.support.fake_transport import FakeTransport
from tests.support.recorders import RecordingReader
from tests.support.scripted_engine import Script, answer, chunked


@pytest.fixture(autouse=True)
def _times_for_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STALE_WITHIN_S", 60.0)


@pytest.fixture(params=["new heads", "known heads"], autouse=True)
def _heads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Played, "knows_heads", request.param == "known heads")


def cuts(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(data[:place], data[place:]) for place in range(1, len(data))]


# Over a connection played by the test.


@pytest.mark.parametrize(
    ("whole", "data"),
    [
        (OK, b'{"a": 1}'),
        (STREAM, b"data: 1\n\ndata: 2\n\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nx: 1\r\n\r\n" + OK, b'{"a": 1}'),
        (STREAM[:-2] + b"trailer: x\r\n\r\n", b"data: 1\n\ndata: 2\n\n"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_an_answer_may_come_in_any_pieces(whole: bytes, data: bytes) -> None:
    uncut = Played().told(whole)
    for pieces in [*cuts(whole), tuple(bytes([one]) for one in whole)]:
        played = Played()
        reader = played.told(*pieces)
        assert (reader.status, reader.headers, reader.data) == (uncut.status, uncut.headers, data)
        assert reader.steps == uncut.steps
        assert reader.steps[-1] == "end"
        assert played.is_kept


async def test_what_one_read_brings_is_told_at_once() -> None:
    seen: list[int] = []
    reader = RecordingReader(lambda step: seen.append(len(reader.data)) if step == "data" else None)
    Played(reader).told(STREAM)
    assert seen == [18]


async def test_without_a_length_the_close_is_the_end() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    for pieces in cuts(head + b"all of it"):
        played = Played()
        played.told(*pieces)
        played.transport.feed_end()
        assert (played.reader.data, played.reader.steps[-1]) == (b"all of it", "end")
        assert not played.is_kept


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_connection_torn_down_is_no_end_of_a_body(error: Exception | None) -> None:
    played = Played()
    played.told(b"HTTP/1.1 200 OK\r\n\r\n", b"some of it")
    played.transport.lose(error)
    assert played.reader.steps == ["head", "data", "failure"]


@pytest.mark.parametrize("whole", [OK, STREAM])
async def test_a_cut_body_is_a_failure_after_what_had_come(whole: bytes) -> None:
    for first, _ in cuts(whole):
        played = Played()
        played.told(first)
        played.transport.feed_end()
        assert isinstance(played.reader.failures[0], UpstreamFailed)
        assert "before its answer had ended" in played.reader.failures[0].message
        assert played.reader.steps.count("failure") == 1
        assert "end" not in played.reader.steps


@pytest.mark.parametrize(
    "noise", [b"SSH-2.0-x\r\n", b"\x00\xff\x00", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
              b"HTTP/1.1 99 Odd\r\n\r\n", b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"],
)  # fmt: skip
async def test_an_answer_that_is_not_http_is_a_failure(noise: bytes) -> None:
    for pieces in [(noise,), *cuts(noise)]:
        played = Played()
        reader = played.told(*pieces)
        assert reader.steps == ["failure"]
        assert "not HTTP" in reader.failures[0].message
        assert played.transport.is_aborted


async def test_a_broken_chunk_is_a_failure() -> None:
    reader = Played().told(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", b"zz\r\n")
    assert reader.steps == ["head", "data", "failure"]


@pytest.mark.parametrize("piece_bytes", [1000, 100_000])
@pytest.mark.parametrize("flood", [b"x-flood: " + b"a" * 70_000, b"x: 1\r\n" * 201 + b"\r\n"])
async def test_endless_headers_are_refused(flood: bytes, piece_bytes: int) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + flood
    reader = Played().told(*(data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)))
    assert reader.steps == ["failure"]
    assert "64 KiB or 200 lines" in reader.failures[0].message


@pytest.mark.parametrize(
    "junk", [answer(b"x", status="500 No"), b"\r\njunk", b"junk", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_a_whole_answer_passes_whatever_stands_behind_it(junk: bytes) -> None:
    for whole in (OK, answer(b'{"a": 1}', extra="connection: close\r\n")):
        for end in range(len(whole), len(whole + junk)):
            played = Played()
            reader = played.told((whole + junk)[: end + 1], (whole + junk)[end + 1 :])
            assert (reader.status, reader.data, reader.steps) == (200, b'{"a": 1}', ["head", "data", "end"])


async def test_bytes_on_a_kept_connection_close_it() -> None:
    played = Played()
    played.told(OK)
    played.transport.feed(b"HTTP")
    assert played.transport.is_aborted
    assert not played.is_kept


async def test_an_answer_that_announces_the_close_is_not_kept() -> None:
    played = Played()
    assert played.told(answer(b"x", extra="connection: close\r\n")).steps[-1] == "end"
    assert not played.is_kept
    assert played.transport.is_aborted


async def test_an_engine_that_answers_early_gets_nothing_behind_the_rest_of_the_request() -> None:
    played = Played()
    played.transport.unsent_bytes = 10
    assert played.told(answer(b"no", status="413 Too Large")).steps[-1] == "end"
    assert not played.is_kept
    assert played.transport.is_aborted


async def test_a_known_head_needs_no_parser() -> None:
    played = Played()
    played.told(answer(b"x", extra="date: one\r\nx-a: 1\r\n"))
    second = RecordingReader()
    played.begin(second, is_kept=True)
    played.connection._parser = None
    played.transport.feed(answer(b"longer", extra="date: two\r\nx-a: 1\r\n"))
    assert (second.data, second.steps) == (b"longer", ["head", "data", "end"])
    assert second.headers == played.reader.headers
    assert second.headers[b"x-a"] == b"1"
    assert played.is_kept


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 103 Early Hints\r\ncontent-length: 0\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n" + OK,
        b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        answer(b"x", status="404 Not Found"),
    ],
)
async def test_only_a_plain_answer_s_head_is_remembered(first: bytes) -> None:
    played = Played()
    assert played.told(first).steps[-1] == "end"
    assert not played.upstream._known_heads._recent


async def test_a_read_that_begins_within_an_answer_teaches_nothing() -> None:
    played = Played()
    played.told(b"HTTP/1.1 200 OK\r\nx-a: ", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert played.reader.steps[-1] == "end"
    assert not Played(upstream=played.upstream).upstream._known_heads.recall(
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    )


@pytest.mark.parametrize("extra", ["connection: close\r\n", "transfer-encoding: chunked\r\n"])
async def test_heads_of_answers_that_say_more_than_a_length_are_parsed(extra: str) -> None:
    for _ in range(2):
        played = Played()
        played.told(answer(b"x", extra=extra))
        assert not played.upstream._known_heads._recent
        assert not played.is_kept


async def test_a_lost_connection_leaves_no_circle_behind() -> None:
    def count() -> int:
        return sum(type(one) is module.Connection for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = count()
        played = Played()
        played.transport.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
        assert count() == before + 1
        played.exchange.abort()
        played.transport.lose()
        del played
        assert count() == before
    finally:
        gc.enable()


async def test_one_answers_head_is_not_the_next_ones() -> None:
    played = Played()
    played.told(answer(b"x", extra="x-first: 1\r\n"))
    second = RecordingReader()
    played.begin(second, is_kept=True)
    played.transport.feed(b"HTTP/1.1 201 Created\r\nx-second: 1\r\ncontent-length: 1\r\n\r\ny")
    assert (second.status, second.headers, second.data) == (201, {b"x-second": b"1"}, b"y")


@pytest.mark.parametrize("when", ["head", "data"])
async def test_a_reader_may_abort_at_any_step(when: str) -> None:
    def abort(step: str) -> None:
        if step == when:
            played.exchange.abort()

    reader = RecordingReader(abort)
    played = Played(reader)
    played.transport.feed(STREAM)
    assert reader.steps[-1] == when
    assert played.transport.is_aborted
    played.transport.lose()
    assert reader.steps[-1] == when


@pytest.mark.parametrize("when", ["head", "data", "end"])
async def test_a_reader_that_fails_is_told_so(when: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(step: str) -> None:
        if step == when:
            raise KeyError("secret")

    reader = RecordingReader(fail)
    played = Played(reader)
    played.transport.feed(STREAM)
    assert reader.steps[-1] == "failure"
    assert isinstance(reader.failures[0], OperatorFault)
    assert "secret" in caplog.text
    assert "secret" not in reader.failures[0].message
    assert played.exchange.is_over


async def test_a_pause_reaches_the_connection_and_its_end_closes_it() -> None:
    played = Played()
    played.exchange.pause()
    played.exchange.pause()
    assert not played.transport.is_reading_now
    played.exchange.resume()
    assert played.transport.is_reading_now
    played.exchange.pause()
    assert played.told(OK).steps[-1] == "end"  # what was read before the pause took effect
    assert not played.is_kept


async def test_a_pause_passes_to_the_connection_that_replaces_a_stale_one(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    played.told(OK)
    reader = RecordingReader()
    exchange = played.begin(reader, is_kept=True)
    exchange.pause()
    opened: list[str] = []
    monkeypatch.setattr(played.upstream, "connect", lambda address, _: opened.append(address))
    played.transport.lose()
    assert (opened, reader.steps) == (["unix:///e"], [])
    connection = played.upstream._new_connection()
    transport = FakeTransport(connection)
    exchange.start(connection, is_kept=False)
    assert transport.sent == b"POST{}"
    assert not transport.is_reading_now


async def test_pause_and_resume_after_the_end_do_nothing() -> None:
    played = Played()
    played.told(OK)
    played.exchange.pause()
    played.exchange.resume()
    assert played.transport.is_reading_now
    played.exchange.abort()
    assert not played.transport.is_aborted


# Over a real socket.


async def test_an_abort_closes_the_connection_and_tells_nothing(tmp_path: Path) -> None:
    script: Script = [*chunked([b"data: 1\n\n"])[:2], 5.0]
    async with engine_and_client(tmp_path, [script]) as (engine, upstream, address):
        reader = RecordingReader()
        exchange = ask(upstream, address, reader)
        await step(reader, "data")
        exchange.abort()
        await hung_up(engine)
        assert reader.steps == ["head", "data"]
        assert exchange.is_over


async def test_a_slow_reader_holds_the_engine_back(tmp_path: Path) -> None:
    total = 4_000_000
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n".encode()
    async with engine_and_client(tmp_path, [[head, b"x" * total]]) as (_, upstream, address):
        reader = RecordingReader()
        exchange = ask(upstream, address, reader)
        exchange.pause()  # already while the connection opens
        await asyncio.sleep(0.02)
        assert reader.steps == []
        exchange.resume()
        await step(reader, "data")
        exchange.pause()
        had = len(reader.data)
        await asyncio.sleep(0.02)
        assert len(reader.data) == had < total
        exchange.resume()
        await over(reader)
        assert len(reader.data) == total


async def test_a_large_body_is_sent_whole(tmp_path: Path) -> None:
    body = b"y" * 5_000_000
    async with engine_and_client(tmp_path, [[OK]]) as (engine, upstream, address):
        assert (await read(upstream, address, b"{", memoryview(body), b"}")).data == b'{"a": 1}'
        assert engine.requests[0].endswith(b"\r\n\r\n{" + body + b"}")
