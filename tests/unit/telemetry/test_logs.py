import logging

import pytest

from gateway.telemetry.logs import LineFormatter, RequestRecord, configure_logs


def record(level: int = logging.INFO, name: str = "gateway.control.control") -> logging.LogRecord:
    return logging.LogRecord(name, level, "f", 1, "hello %s", ("you",), None)


def test_a_line_tells_level_room_and_text() -> None:
    assert LineFormatter(has_colour=False).format(record()).endswith("INFO    control   hello you")


def test_only_a_terminal_gets_colour() -> None:
    assert "\x1b[" in LineFormatter(has_colour=True).format(record(logging.ERROR))
    assert "\x1b[" not in LineFormatter(has_colour=False).format(record(logging.ERROR))


def test_one_line_per_request_with_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    done = RequestRecord("id1", "/v1/x", 10.0, "shapes", "v1", "v1-0", 200, "done", 0.0105, 7, 3)
    with caplog.at_level(logging.INFO):
        done.write(10.25)
    assert caplog.messages == [
        "id1 /v1/x model=shapes version=v1 replica=v1-0 status=200 outcome=done first_byte_ms=10.5 total_ms=250.0 in=7 out=3"
    ]


def test_what_is_not_known_is_a_dash(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        RequestRecord("id1", "/v1/x", 0.0).write(0.0)
    assert "first_byte_ms=- total_ms=0.0 in=- out=-" in caplog.messages[0]


def test_request_lines_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logs("INFO", has_request_lines=False)
        root.addHandler(caplog.handler)
        RequestRecord("id1", "/v1/x", 0.0).write(0.0)
        assert caplog.messages == []
        configure_logs("INFO")
        root.addHandler(caplog.handler)
        RequestRecord("id1", "/v1/x", 0.0).write(0.0)
        assert len(caplog.messages) == 1
    finally:
        root.handlers[:], root.level = before[0], before[1]
