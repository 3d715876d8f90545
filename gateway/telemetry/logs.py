"""Logging: the form of lines, and the one line per request. Never header values, prompts or keys."""

import logging
import sys
from dataclasses import dataclass

_requests = logging.getLogger("gateway.requests")
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class LineFormatter(logging.Formatter):
    """`12:00:01 INFO control  text`; with colour only where a person looks at it."""

    def __init__(self, *, has_colour: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._has_colour = has_colour

    def format(self, record: logging.LogRecord) -> str:
        room = record.name.split(".")[1] if record.name.startswith("gateway.") else record.name
        text = f"{self.formatTime(record, self.datefmt)} {record.levelname:<7} {room:<9} {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        colour = _COLOURS.get(record.levelname) if self._has_colour else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def configure_logs(level: str = "INFO", *, has_request_lines: bool = True) -> None:
    """Send all log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(has_colour=sys.stderr.isatty()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("httpx", "asyncio", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    _requests.disabled = not has_request_lines


@dataclass(slots=True)
class RequestRecord:
    """What one request came to; filled while it runs, written once at its end. Durations in seconds."""

    request_id: str
    path: str
    started_s: float
    model: str = "-"
    version: str = "-"
    replica: str = "-"
    status: int = 0
    outcome: str = "error"
    first_byte_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None

    def write(self, now_s: float) -> None:
        """Log the line; `now_s` and `started_s` are of the same clock."""
        if not _requests.isEnabledFor(logging.INFO):
            return
        first = "-" if self.first_byte_s is None else f"{self.first_byte_s * 1000:.1f}"
        _requests.info(
            "%s %s model=%s version=%s replica=%s status=%d outcome=%s first_byte_ms=%s total_ms=%.1f in=%s out=%s",
            self.request_id, self.path, self.model, self.version, self.replica, self.status, self.outcome, first,
            (now_s - self.started_s) * 1000,
            "-" if self.tokens_in is None else self.tokens_in, "-" if self.tokens_out is None else self.tokens_out,
        )  # fmt: skip
