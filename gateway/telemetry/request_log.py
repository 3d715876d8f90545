"""The request log: one line per request, written in batches. Never header values, prompts or keys."""

import asyncio
import logging
import os
import select
import sys
import time
from pathlib import Path

from gateway.telemetry.requests import RequestRecord
from gateway.telemetry.writing import BackgroundWriter

logger = logging.getLogger(__name__)

_FLUSH_AFTER_S = 0.2
_FLUSH_AT_LINES = 500
_MOST_BATCHES = 200
_CLOSE_TIMEOUT_S = 2.0


class RequestLog:
    """Lines to a file, or to stderr without a path. They are written a fifth of a second later at most.

    Raises OSError for a file that cannot be opened. A disk that fails or fills up later, or a stderr that nobody reads,
    loses lines, never requests: a thread writes, and what it cannot keep up with is dropped.
    """

    def __init__(self, path: Path | None) -> None:
        # A logging library formats, locks and writes each line by itself: a tenth of a request's whole cost.
        fd = sys.stderr.fileno() if path is None else _open(path)
        # Other relays may write to the same stderr: a pipe keeps only what is this short in one piece.
        most_bytes = select.PIPE_BUF if path is None else sys.maxsize
        self._writer = BackgroundWriter(fd, most_waiting=_MOST_BATCHES, most_bytes=most_bytes, on_failure=_tell_failure)
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._clock = ""
        self._is_losing = False

    def write(self, record: RequestRecord, total_s: float) -> None:
        """Add the line of a request that has ended."""
        now = int(time.time())
        if now != self._second:
            self._second, self._clock = now, time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now))
        first = "-" if record.first_byte_s is None else f"{record.first_byte_s * 1000:.1f}"
        tokens_in = "-" if record.tokens_in is None else record.tokens_in
        tokens_out = "-" if record.tokens_out is None else f"{'~' if record.is_estimated else ''}{record.tokens_out}"
        self._lines.append(
            f"{self._clock} {record.request_id} {record.path} model={record.model or '-'} "
            f"version={record.version or '-'} replica={record.replica or '-'} status={record.status} "
            f"outcome={record.outcome} first_byte_ms={first} total_ms={total_s * 1000:.1f} "
            f"in={tokens_in} out={tokens_out}\n"
        )
        if len(self._lines) >= _FLUSH_AT_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Hand what has gathered to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        is_taken = self._writer.put(data)
        if not is_taken and not self._is_losing:
            logger.error("the request log takes nothing any more, lines are lost")
        self._is_losing = not is_taken

    def close(self) -> None:
        """Write what is left, within two seconds."""
        self.flush()
        self._writer.drain(_CLOSE_TIMEOUT_S)


def _tell_failure(error: OSError) -> None:
    logger.error("the request log cannot be written, lines are lost: %s", error)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
