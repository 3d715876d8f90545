import os
import time
from collections.abc import Iterator

import pytest

from gateway.telemetry.writing import BackgroundWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


def test_all_is_written_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = BackgroundWriter(writing, most_waiting=100)
    for number in range(100):
        assert writer.put(b"%d\n" % number)
    writer.drain(10)
    assert os.read(reading, 10_000) == b"".join(b"%d\n" % number for number in range(100))
    os.close(reading)


@pytest.mark.parametrize("most_bytes", [1, 5, 8, 20, 1000])
def test_no_more_goes_out_at_once_than_allowed_and_whole_lines(
    most_bytes: int, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr("gateway.telemetry.writing.os.write", write)
    writer = BackgroundWriter(pipe[1], most_waiting=1, most_bytes=most_bytes)
    writer.put(b"one\ntwo\nthree\n")
    writer.drain(10)
    assert b"".join(written) == b"one\ntwo\nthree\n"
    if most_bytes >= len(b"three\n"):  # a longer line leaves in one piece all the same
        assert all(len(data) <= most_bytes and data.endswith(b"\n") for data in written)
    os.close(pipe[0])


def test_what_there_is_no_room_for_is_refused_at_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = BackgroundWriter(writing, most_waiting=2)
    writer.put(b"x" * 1_000_000)  # more than a pipe takes
    while writer._waiting.qsize():
        time.sleep(0.001)
    started_s = time.monotonic()
    assert [writer.put(b"y") for _ in range(4)] == [True, True, False, False]
    writer.drain(0.01)
    assert time.monotonic() - started_s < 1
    os.close(reading)
    writer.drain(10)


def test_failures_in_a_row_are_told_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    told: list[OSError] = []
    writer = BackgroundWriter(writing, most_waiting=10, on_failure=told.append)
    for _ in range(5):
        writer.put(b"lost\n")
    writer.drain(10)
    assert [type(error) for error in told] == [BrokenPipeError]
