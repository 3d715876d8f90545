import contextlib
import errno
import logging
import os
import re
import time
from pathlib import Path

import pytest

from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.requests import RequestRecord

DONE = RequestRecord("id1", "/v1/x", 10.0, "shapes", "v1", "v1-0", 200, "done", 0.0105, 7, 3)
CLOCK = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folders" / "requests.log"


def write(log: RequestLog, *records: RequestRecord, total_s: float = 0.0) -> None:
    log.write([(record, record.started_s + total_s) for record in records])
    log._writer.drain(10)


def test_a_line_has_every_field_in_a_fixed_order(path: Path) -> None:
    log = RequestLog(path)
    write(log, DONE, total_s=0.25)
    assert re.fullmatch(
        CLOCK + r" id1 /v1/x model=shapes version=v1 replica=v1-0 status=200 outcome=done "
        r"first_byte_ms=10\.5 total_ms=250\.0 in=7 out=3\n",
        path.read_text(),
    )


def test_what_is_not_known_is_a_dash(path: Path) -> None:
    write(RequestLog(path), RequestRecord("id1", "/v1/x", 0.0, status=404, outcome="x"))
    assert path.read_text().endswith(
        " id1 /v1/x model=- version=- replica=- status=404 outcome=x first_byte_ms=- total_ms=0.0 in=- out=-\n"
    )


def test_estimated_tokens_are_marked(path: Path) -> None:
    cut = RequestRecord(
        "id1", "/v1/x", 0.0, status=499, outcome="hung_up", tokens_in=7, tokens_out=5, is_estimated=True
    )
    write(RequestLog(path), cut)
    assert path.read_text().endswith(" in=~7 out=~5\n")


def test_the_time_is_that_of_each_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.request_log.time.time", lambda: 121.0)
    monkeypatch.setattr("gateway.telemetry.request_log.time.monotonic", lambda: 1000.0)
    monkeypatch.setattr("gateway.telemetry.request_log.time.localtime", time.gmtime)
    log = RequestLog(path)
    log.write([(DONE, 939.2), (DONE, 939.9), (DONE, 1000.0)])
    log._writer._waiting.join()  # the clock stands still: `close` would wait for ever
    found = [line.split("T")[1].split(" ")[0][:8] for line in path.read_text().splitlines()]
    assert found == ["00:01:00", "00:01:00", "00:02:01"]


def test_lines_are_added_to_what_the_file_has(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("before\n")
    write(RequestLog(path), DONE)
    write(RequestLog(path), DONE)
    assert [line[:6] == "before" for line in path.read_text().splitlines()] == [True, False, False]


def test_the_file_is_not_for_everybody_to_read(path: Path) -> None:
    RequestLog(path)
    assert path.stat().st_mode & 0o007 == 0


def test_without_a_path_lines_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    write(RequestLog(None), DONE, total_s=0.25)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert " id1 /v1/x model=shapes " in err


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        RequestLog(tmp_path)


def test_a_write_that_takes_only_a_part_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr("gateway.telemetry.writing.os.write", lambda fd, data: whole(fd, data[:7]))
    log = RequestLog(path)
    write(log, DONE, DONE)
    assert re.fullmatch(rf"({CLOCK} id1 .* out=3\n){{2}}", path.read_text())


def test_a_full_disk_loses_lines_never_requests_and_is_told_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(path)

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("gateway.telemetry.writing.os.write", refuse)
        write(log, DONE)
        write(log, DONE)
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]
    write(log, DONE)
    assert path.read_text().count("\n") == 1
    monkeypatch.setattr("gateway.telemetry.writing.os.write", refuse)
    write(log, DONE)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_lines_for_stderr_leave_in_whole_lines_that_a_pipe_keeps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write_whole(fd: int, data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr("gateway.telemetry.request_log.sys.stderr", FakeStderr())
    monkeypatch.setattr("gateway.telemetry.writing.os.write", write_whole)
    log = RequestLog(None)
    write(log, *[DONE] * 100, total_s=0.25)
    assert len(written) > 1
    assert all(len(data) <= 4096 and data.endswith(b"\n") for data in written)
    assert b"".join(written).count(b"\n") == 100


class FakeStderr:
    def fileno(self) -> int:
        return 2


def test_a_log_that_nobody_reads_holds_nothing_up_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    monkeypatch.setattr("gateway.telemetry.request_log._MOST_BATCHES", 3)
    monkeypatch.setattr("gateway.telemetry.request_log._open", lambda path: writing)
    monkeypatch.setattr("gateway.telemetry.request_log._CLOSE_TIMEOUT_S", 0.05)
    log = RequestLog(Path("full"))
    log.write([(DONE, 10.0)])
    while not log._writer._waiting.empty():  # the writer has it, and waits for the pipe from now on
        time.sleep(0.001)
    started_s = time.monotonic()
    for _ in range(20):
        log.write([(DONE, 10.0)] * 100)
    log.close()
    assert time.monotonic() - started_s < 5
    assert caplog.messages == ["the request log takes nothing any more, lines are lost"]
    os.close(reading)  # ends the writer's wait


def test_closing_writes_what_is_left(path: Path) -> None:
    log = RequestLog(path)
    log.write([(DONE, 10.0)])
    log.close()
    assert path.read_text().count("\n") == 1
