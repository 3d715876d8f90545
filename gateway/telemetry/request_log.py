"""The request log: one line per request. Never header values, prompts or keys."""

import logging
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.telemetry.requests import RequestRecord, Settled
from gateway.telemetry.writing import BackgroundWriter

logger = logging.getLogger(__name__)

_MOST_BATCHES = 1000
_CLOSE_TIMEOUT_S = 2.0


class RequestLog:
    """Lines to a file, or to stderr without a path.

    Raises OSError for a file that cannot be opened. A disk that fails or fills up later, or a stderr that nobody reads,
    loses lines, never requests: a thread writes, and what it cannot keep up with is dropped.
    """

    def __init__(self, path: Path | None) -> None:
        # A logging library formats, locks and writes each line by itself: a tenth of a request's whole cost.
        fd = sys.stderr.fileno() if path is None else _open(path)
        # Other relays may write to the same stderr: a pipe keeps only what is this short in one piece.
        most_bytes = select.PIPE_BUF if path is None else sys.maxsize
        self._writer = BackgroundWriter(fd, most_waiting=_MOST_BATCHES, most_bytes=most_bytes, on_failure=_tell_failure)
        self._second = 0
        self._clock = ""
        self._is_losing = False

    def write(self, settled: Sequence[Settled]) -> None:
        """Write the lines of requests that have ended."""
        offset_s = time.time() - time.monotonic()
        lines = [self._line(record, ended_s - record.started_s, int(ended_s + offset_s)) for record, ended_s in settled]
        is_taken = self._writer.put("".join(lines).encode())
        if not is_taken and not self._is_losing:
            logger.error("the request log takes nothing any more, lines are lost")
        self._is_losing = not is_taken

    def _line(self, record: RequestRecord, total_s: float, second: int) -> str:
        if second != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
        first = "-" if record.first_byte_s is None else f"{record.first_byte_s * 1000:.1f}"
        mark = "~" if record.is_estimated else ""
        tokens_in = "-" if record.tokens_in is None else f"{mark}{record.tokens_in}"
        tokens_out = "-" if record.tokens_out is None else f"{mark}{record.tokens_out}"
        return (
            f"{self._clock} {record.request_id} {record.path} model={record.model or '-'} "
            f"version={record.version or '-'} replica={record.replica or '-'} status={record.status} "
            f"outcome={record.outcome} first_byte_ms={first} total_ms={total_s * 1000:.1f} "
            f"in={tokens_in} out={tokens_out}\n"
        )

    def close(self) -> None:
        """Wait until all is written, for two seconds at most."""
        self._writer.drain(_CLOSE_TIMEOUT_S)


def _tell_failure(error: OSError) -> None:
    logger.error("the request log cannot be written, lines are lost: %s", error)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
