"""The two ends of a relayed answer, written down: who reads it from an engine, and the client who gets it."""

import asyncio
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.proxy.exchange import AnswerHead
from gateway.proxy.shortcut import Shortcut


class RecordingReader:
    """Reads an answer. `steps` names what it was told, in order; `on_step` is called after each.

    Plain chunks may go the way of `shortcut`, where there is one.
    """

    def __init__(self, on_step: Callable[[str], None] = lambda step: None) -> None:
        self.steps: list[str] = []
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.data = b""
        self.failures: list[GatewayError] = []
        self.over = asyncio.Event()
        self.shortcut: Shortcut | None = None
        self._on_step = on_step

    def on_head(self, head: AnswerHead) -> None:
        self.status, self.headers = head.status, read_lines(head.client_lines)
        self._tell("head")

    def on_data(self, data: bytes) -> Shortcut | None:
        self.data += data
        if self.steps[-1] == "data":
            self.steps.pop()
        self._tell("data")
        return self.shortcut

    def on_end(self) -> None:
        self.over.set()
        self._tell("end")

    def on_failure(self, error: GatewayError) -> None:
        self.failures.append(error)
        self.over.set()
        self._tell("failure")

    def _tell(self, step: str) -> None:
        self.steps.append(step)
        self._on_step(step)


class RecordingClient:
    """Gets the answer of one call. `steps` names what it was told, in order."""

    def __init__(self, on_step: Callable[[str], None] = lambda step: None, *, takes_chunks: bool = True) -> None:
        self._takes_chunks = takes_chunks
        self.steps: list[str] = []
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.error: GatewayError | None = None
        self.over = asyncio.Event()
        self._on_step = on_step

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        self.status, self.headers, self.body = status, read_lines(lines), body
        self._tell("answer", is_last=True)

    def refuse(self, error: GatewayError) -> None:
        self.status, self.error = error.status, error
        self._tell("refuse", is_last=True)

    def abandon(self) -> None:
        self.steps.append("abandon")
        self.over.set()

    def begin(self, status: int, lines: bytes) -> Callable[[bytes], None] | None:
        self.status, self.headers = status, read_lines(lines)
        self._tell("begin")
        return self._take_chunk if self._takes_chunks else None

    def _take_chunk(self, chunk: bytes) -> None:
        self.write(chunk.split(b"\r\n", 1)[1][:-2])

    def write(self, data: bytes) -> None:
        assert data, "an empty chunk would end the stream"
        self.body += data
        self._tell("write")

    def end(self, data: bytes) -> None:
        self.body += data
        self._tell("end", is_last=True)

    def _tell(self, step: str, *, is_last: bool = False) -> None:
        assert not self.over.is_set(), "told something after the end"
        self.steps.append(step)
        if is_last:
            self.over.set()
        self._on_step(step)


def read_lines(lines: bytes) -> dict[bytes, bytes]:
    """Header lines as they go over the wire, by name."""
    assert not lines or lines.endswith(b"\r\n")
    return dict(line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1])  # type: ignore[misc]
