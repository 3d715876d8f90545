"""Turns an engine's output bytes into readable lines and keeps the last of them in bounded memory."""

import re
from collections import deque
from collections.abc import Callable

OnLine = Callable[[str], None]

_TAIL_LINES = 400
_LINE_CHARS = 1000
_PARTIAL_BYTES = 16 * 1024

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class OutputTail:
    """The last lines of an output stream: no colour codes, long lines cut, of a progress bar its latest state.

    `on_line` gets every line, and a progress bar each time it is redrawn.
    """

    def __init__(self, on_line: OnLine | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._partial = b""
        self._on_line = on_line

    def feed(self, data: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        *complete, partial = (self._partial + data).split(b"\n")
        for line in complete:
            self._append(line)
        # Of a bar still being redrawn the latest state is worth keeping, of a line without end its head.
        start = _start_of_last_state(partial)
        self._partial = partial[max(start - 1, 0) :][:_PARTIAL_BYTES]
        if start and self._on_line is not None and (state := _clean(self._partial)):
            self._on_line(state)

    def end(self) -> None:
        """The stream has ended: an unfinished line counts as one."""
        self._append(self._partial)
        self._partial = b""

    def lines(self, count: int) -> list[str]:
        """The last `count` lines, oldest first."""
        return list(self._lines)[-count:] if count > 0 else []

    def _append(self, raw: bytes) -> None:
        line = _clean(raw)
        if not line:
            return
        self._lines.append(line)
        if self._on_line is not None:
            self._on_line(line)


def _start_of_last_state(line: bytes) -> int:
    return line.rstrip(b"\r").rfind(b"\r") + 1


def _clean(raw: bytes) -> str:
    text = raw[_start_of_last_state(raw) :].decode("utf-8", "replace")
    text = _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text)).rstrip()
    return text if len(text) <= _LINE_CHARS else text[: _LINE_CHARS - 1] + "…"
