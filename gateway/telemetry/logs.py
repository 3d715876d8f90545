"""Logging: the form of lines, and where they go. Never header values, prompts or keys."""

import contextlib
import logging
import queue
import sys
import threading
import time
from typing import TextIO

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
    """Lines to a stream, written by a thread: a stream that nobody reads holds nothing up, it loses lines."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record) + "\n")
        except queue.Full:
            return
        except Exception:  # noqa: BLE001 - a line that cannot be formatted; logging's own way to say so
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, a second at most. At the end of the program logging calls it."""
        end_s = time.monotonic() + _FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < end_s:
            time.sleep(0.001)

    def _write_on(self) -> None:
        while True:
            line = self._lines.get()
            with contextlib.suppress(OSError, ValueError):  # closed at the other end, or at ours
                self._stream.write(line)
                self._stream.flush()
            self._lines.task_done()


def configure_logs(level: str = "INFO") -> None:
    """Send all log lines to stderr."""
    handler = BackgroundHandler(sys.stderr)
    handler.setFormatter(LineFormatter(has_colour=sys.stderr.isatty()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("httpx", "asyncio", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
