import pytest

from gateway.proxy.shortcut import CHUNK_STARTS, LONGEST_CHUNK_BYTES, Shortcut
from tests.support.exchanges import Played

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[]}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Short:
    """An answer whose first chunk went the long way and opened the short one."""

    def __init__(self, first: bytes = chunk(EVENT)) -> None:
        self.written: list[bytes] = []
        self.played = Played()
        self.reader = self.played.reader
        self.reader.shortcut = Shortcut(self.written.append, (b'"usage":', b"[DONE]"))
        self.played.told(HEAD, first)
        self.long_bytes = len(self.reader.data)

    def feed(self, *reads: bytes) -> bytes:
        """What of `reads` the reader was told."""
        self.played.told(*reads)
        told = self.reader.data[self.long_bytes :]
        self.long_bytes = len(self.reader.data)
        return told


def test_every_length_has_the_one_start_that_fits_it() -> None:
    for size in range(2, LONGEST_CHUNK_BYTES):
        whole = chunk(b"x" * size)
        if len(whole) < LONGEST_CHUNK_BYTES:
            assert CHUNK_STARTS[len(whole)] == b"%x\r\n" % size
    lengths = {len(chunk(b"x" * size)) for size in range(2, LONGEST_CHUNK_BYTES)}
    for length in set(range(LONGEST_CHUNK_BYTES)) - lengths:
        assert len(CHUNK_STARTS[length]) > length, "no chunk is so long: nothing may begin so"


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 14, 250, 251, 252, 253, 4000, 4080])
async def test_a_plain_chunk_goes_on_as_it_came(size: int) -> None:
    short = Short()
    event = b"x" * size + b"\n\n"
    assert short.feed(chunk(event)) == b""
    assert short.written == [chunk(event)]


async def test_events_are_counted_on_the_way() -> None:
    short = Short()
    short.feed(chunk(EVENT), chunk(EVENT * 3))
    assert short.reader.shortcut is not None
    assert short.reader.shortcut.event_count == 4


@pytest.mark.parametrize(
    "read",
    [
        chunk(b'data: {"usage":null}\n\n'),
        chunk(b"data: [DONE]\n\n"),
        chunk(b"data: no blank line\n"),
        chunk(b"data: 1\r\n\r\n"),
        chunk(b"\n"),
        chunk(b"x" * 5000 + b"\n\n"),
        chunk(EVENT) + chunk(EVENT),
        chunk(EVENT).replace(b"16\r", b"016\r"),
        chunk(EVENT).replace(b"16\r", b"16;a=b\r"),
        chunk(b"x" * 24 + b"\n\n").replace(b"1a\r", b"1A\r"),
    ],
)
async def test_any_other_chunk_goes_the_long_way(read: bytes) -> None:
    short = Short()
    assert short.feed(read)
    assert short.written == []


async def test_behind_any_other_chunk_the_way_is_short_again() -> None:
    short = Short()
    assert short.feed(chunk(b'data: {"usage":1}\n\n'), chunk(EVENT)) == b'data: {"usage":1}\n\n'
    assert short.written == [chunk(EVENT)]


async def test_a_chunk_that_has_begun_is_not_taken_for_whole() -> None:
    short = Short(chunk(EVENT) + b"1")
    assert short.feed(chunk(b"{}\n\n")) == b"{}\n\n\r\n"  # of a chunk of 0x14 bytes: the "1" belongs to its size
    assert short.written == []


async def test_bytes_within_a_chunk_are_no_chunk() -> None:
    inner = chunk(b"{}\n\n")
    short = Short(chunk(EVENT) + b"%x\r\n" % (len(inner) + 4))
    assert short.feed(inner) == inner
    assert short.feed(b"{}\n\n\r\n") == b"{}\n\n"
    assert short.written == []


async def test_a_chunk_that_is_cut_closes_the_short_way_until_it_is_whole() -> None:
    inner = chunk(b"{}\n\n")
    short = Short()
    assert short.feed(chunk(EVENT), b"%x\r\n{" % (len(inner) + 4)) == b"{"
    assert short.feed(inner) == inner
    assert short.feed(b"}\n\n\r\n") == b"}\n\n"
    assert short.feed(chunk(EVENT)) == b""
    assert short.written == [chunk(EVENT)] * 2


async def test_a_stream_of_plain_chunks_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Short()
    clock = [short.played.upstream.now_s()]
    monkeypatch.setattr(short.played.upstream, "now_s", lambda: clock[0])
    for _ in range(10):
        clock[0] += 4  # the fixture's engine may be silent for 5 s
        short.feed(chunk(EVENT))
        short.played.upstream._sweep()
    assert short.reader.steps == ["head", "data"]
    clock[0] += 11
    short.played.upstream._sweep()
    assert short.reader.steps[-1] == "failure"


async def test_without_a_shortcut_all_is_told() -> None:
    played = Played()
    assert played.told(HEAD, chunk(EVENT), chunk(EVENT)).data == EVENT * 2


async def test_the_end_is_told() -> None:
    short = Short()
    short.feed(chunk(EVENT), b"0\r\n\r\n")
    assert short.reader.steps == ["head", "data", "end"]
    assert short.played.is_kept


async def test_the_next_answer_of_the_connection_begins_the_long_way() -> None:
    for last in ([chunk(EVENT), b"0\r\n\r\n"], [chunk(EVENT) + b"0\r\n\r\n"]):
        short = Short()
        short.feed(*last)
        short.written.clear()
        next_reader = type(short.reader)()
        short.played.exchange = short.played.begin(next_reader, is_kept=True)
        short.played.transport.feed(chunk(EVENT))
        assert next_reader.steps == ["failure"]
        assert short.written == []
