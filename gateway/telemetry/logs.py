"""Logging: the form of lines, and where they go. Never header values, prompts or keys."""

import logging
import sys

from gateway.telemetry.writing import BackgroundWriter

_MOST_LINES = 10_000
_FLUSH_S = 1.0
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


class BackgroundHandler(logging.Handler):
    """Lines to stderr, which nobody has to read."""

    def __init__(self) -> None:
        super().__init__()
        self._writer = BackgroundWriter(sys.stderr.fileno(), most_waiting=_MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self.format(record).encode(errors="backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 - a line that cannot be formatted; logging's own way to say so
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, a second at most. At the end of the program logging calls it."""
        self._writer.drain(_FLUSH_S)


def configure_logs(level: str = "INFO") -> None:
    """Send all log lines to stderr."""
    handler = BackgroundHandler()
    handler.setFormatter(LineFormatter(has_colour=sys.stderr.isatty()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("httpx", "asyncio", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
