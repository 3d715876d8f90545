import logging

import pytest

from gateway.telemetry.logs import LineFormatter, configure_logs


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
        configure_logs("WARNING")
        logging.getLogger("gateway.proxy.forward").info("not wanted now")
    finally:
        root.handlers[:], root.level = before[0], before[1]
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(maxsplit=3)[2:] for line in err.splitlines()] == [
        ["proxy", "ours"],
        ["httpx", "theirs, a warning"],
    ]
