import logging
import os

import pytest

from gateway.telemetry.logs import BackgroundHandler, LineFormatter, configure_logs


def record(level: int = logging.INFO, name: str = "gateway.control.control") -> logging.LogRecord:
    return logging.LogRecord(name, level, "f", 1, "hello %s", ("you",), None)


def test_a_line_tells_level_room_and_text() -> None:
    assert LineFormatter(has_colour=False).format(record()).endswith("INFO    control   hello you")


def test_a_line_of_a_library_tells_its_name() -> None:
    assert LineFormatter(has_colour=False).format(record(name="asyncio")).endswith("INFO    asyncio   hello you")


def test_only_a_terminal_gets_colour() -> None:
    assert "\x1b[" in LineFormatter(has_colour=True).format(record(logging.ERROR))
    assert "\x1b[" not in LineFormatter(has_colour=False).format(record(logging.ERROR))


def test_lines_go_to_stderr_and_libraries_speak_up_from_warning_on(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logs("INFO")
        logging.getLogger("gateway.proxy.forward").info("ours")
        logging.getLogger("httpx").info("theirs, of every request")
        logging.getLogger("httpx").warning("theirs, a warning")
        root.handlers[0].flush()
        configure_logs("WARNING")
        logging.getLogger("gateway.proxy.forward").info("not wanted now")
    finally:
        for handler in root.handlers:
            handler.flush()
        root.handlers[:], root.level = before[0], before[1]
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(maxsplit=3)[2:] for line in err.splitlines()] == [
        ["proxy", "ours"],
        ["httpx", "theirs, a warning"],
    ]


def test_a_stderr_that_nobody_reads_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.logs._FLUSH_S", 0.01)
    reading, writing = os.pipe()
    monkeypatch.setattr("gateway.telemetry.logs.sys.stderr", Stderr(writing))
    handler = BackgroundHandler()
    for _ in range(20_000):  # far more than a pipe and the queue take
        handler.emit(record())
    handler.flush()
    os.close(reading)  # ends the writer's wait
    monkeypatch.setattr("gateway.telemetry.logs._FLUSH_S", 10.0)
    handler.flush()
    os.close(writing)


def test_lines_to_a_closed_stderr_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("gateway.telemetry.logs.sys.stderr", Stderr(writing))
    handler = BackgroundHandler()
    os.close(reading)
    handler.emit(record())
    handler.flush()
    os.close(writing)


class Stderr:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd
