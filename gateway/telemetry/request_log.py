"""The request log: one line per request, written in batches. Never header values, prompts or keys."""

import asyncio
import logging
import os
import select
import sys
import time
from pathlib import Path

from gateway.telemetry.requests import RequestRecord

logger = logging.getLogger(__name__)

_FLUSH_AFTER_S = 0.2
_FLUSH_AT_LINES = 500


class RequestLog:
    """Lines to a file, or to stderr without a path. They are written a fifth of a second later at most.

    Raises OSError for a file that cannot be opened. A disk that fails or fills up later loses lines, never requests;
    a stderr that nobody reads holds everything up, so where that can be, give a path.
    """

    def __init__(self, path: Path | None) -> None:
        # A logging library formats, locks and writes each line by itself: a tenth of a request's whole cost.
        self._fd = sys.stderr.fileno() if path is None else _open(path)
        # Other relays may write to the same stderr: a pipe keeps only what is this short in one piece.
        self._most_bytes = select.PIPE_BUF if path is None else sys.maxsize
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._clock = ""
        self._is_failing = False

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
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data = "".join(self._lines).encode()
        self._lines.clear()
        while data:
            end = len(data) if len(data) <= self._most_bytes else data.rfind(b"\n", 0, self._most_bytes) + 1
            try:
                data = data[os.write(self._fd, data[: end or len(data)]) :]
                self._is_failing = False
            except OSError as error:
                if not self._is_failing:
                    logger.error("the request log cannot be written, lines are lost: %s", error)  # noqa: TRY400
                self._is_failing = True
                return


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
