"""The mock engine: fixed answers and streams at a fixed pace for next to no CPU.

One process, two ports, precomputed bytes. What a request gets is said in its text (see `requests.Wish`), because every
router passes that on. It never reads a picture, and never thinks.
"""

import argparse
import asyncio
import gc
import json
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvloop

from . import answers
from .requests import SLOW_S, Wish

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WISH = re.compile(rb"\[(mock-[a-z-]+)\]")
_SLOT_S = 0.001
_LARGE_BYTES = 64 * 1024  # a larger body is a picture: it is counted, not read
_CARD = {"id": answers.MODEL, "object": "model", "created": 1767225600, "owned_by": "vllm", "root": answers.MODEL}
_PAGES = {
    b"/health": answers.write_answer("", content_type="text/plain"),
    b"/version": answers.write_answer({"version": "0.32.0"}),
    b"/v1/models": answers.write_answer({"object": "list", "data": [_CARD | {"parent": None, "max_model_len": 8192}]}),
    b"/metrics": answers.write_answer("# TYPE vllm:num_requests_running gauge\n", content_type="text/plain"),
}
_MISSING = answers.write_answer({"detail": "Not Found"}, "404 Not Found")
_NO_LENGTH = answers.write_answer({"detail": "Length Required"}, "411 Length Required")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one body asks for."""

    wish: str
    is_stream: bool
    chunk_count: int
    has_usage: bool


_PICTURE = Plan("", False, 0, False)


def read_plan(body: bytes) -> Plan:
    """Read what a small body asks for; raises ValueError for what is no JSON object."""
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise ValueError("not an object")  # noqa: TRY004, the caller answers both alike
    options = fields.get("stream_options") or {}
    count = fields.get("max_tokens") or fields.get("max_completion_tokens") or 16
    wish = _WISH.search(body)
    return Plan(
        wish[1].decode() if wish else "", bool(fields.get("stream")), int(count), bool(options.get("include_usage"))
    )


class Stream:
    """One answer under way."""

    __slots__ = ("_plan", "_sent", "connection", "is_paused")

    def __init__(self, connection: "Connection", plan: Plan) -> None:
        self.connection = connection
        self.is_paused = False
        self._plan = plan
        self._sent = 0

    def go_on(self) -> bool:
        """Write the next chunk; false when there is no more to come."""
        transport = self.connection.transport
        if transport is None:
            return False
        if self.is_paused:  # the reader is slow: its chunk is late, as an engine's would be
            return True
        if self._sent < self._plan.chunk_count:
            transport.write(answers.WORD_EVENTS[self._sent % len(answers.WORD_EVENTS)])
            self._sent += 1
            if self._plan.wish == Wish.CUT_WITHIN and self._sent == self._plan.chunk_count // 2:
                self.connection.stream = None
                transport.close()
                return False
            return True
        transport.write(answers.FINISH)
        if self._plan.has_usage:
            transport.write(answers.USAGE_EVENT)
        transport.write(answers.DONE)
        transport.write(answers.LAST_CHUNK)
        self.connection.stream = None
        return False


class Wheel:
    """Every stream's clock: one timer, a slot each millisecond, streams spread over the slots. One writer: the loop."""

    def __init__(self, chunks_per_s: int) -> None:
        self._slots: list[set[Stream]] = [set() for _ in range(max(1, round(1 / (chunks_per_s * _SLOT_S))))]
        self._next = 0
        self._turned = 0
        self._started_s = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(_SLOT_S, self._turn)

    def add(self, stream: Stream) -> None:
        """Let a stream go on at the pace of the wheel, until it ends."""
        self._slots[self._next].add(stream)
        self._next = (self._next + 1) % len(self._slots)

    def _turn(self) -> None:
        self._loop.call_later(_SLOT_S, self._turn)
        now = int((time.monotonic() - self._started_s) / _SLOT_S)
        # After a stall of more than a round nobody gets two chunks at once.
        for turn in range(max(self._turned, now - len(self._slots)), now):
            slot = self._slots[turn % len(self._slots)]
            ended = [stream for stream in slot if not stream.go_on()]
            slot.difference_update(ended)
        self._turned = now


class Connection(asyncio.Protocol):
    """One connection of a router. Requests are framed by hand: content-length only, one at a time."""

    def __init__(self, port: int, wheel: Wheel, counts: Counter[str], plans: dict[bytes, Plan]) -> None:
        self.transport: asyncio.Transport | None = None
        self.stream: Stream | None = None
        self._port = port
        self._wheel = wheel
        self._counts = counts
        self._plans = plans
        self._held = b""
        self._skip_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stream is not None:
            self._counts["cut streams"] += 1
        self.transport = self.stream = None

    def pause_writing(self) -> None:
        if self.stream is not None:
            self.stream.is_paused = True

    def resume_writing(self) -> None:
        if self.stream is not None:
            self.stream.is_paused = False

    def data_received(self, data: bytes) -> None:
        if self._skip_bytes:
            self._skip_bytes -= len(data)
            if self._skip_bytes <= 0:
                self._skip_bytes = 0
                self._answer(_PICTURE)
            return
        data = self._held + data if self._held else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._held = data
            return
        found = _LENGTH.search(data, 0, end)
        length = int(found[1]) if found else 0
        missing = end + 4 + length - len(data)
        if missing > 0 and length > _LARGE_BYTES:
            self._held, self._skip_bytes = b"", missing
        elif missing > 0:
            self._held = data
        else:
            self._held = b""
            self._read(data, end, has_length=found is not None)

    def _read(self, data: bytes, end: int, *, has_length: bool) -> None:
        if data.startswith(b"GET "):
            self._show(data[4 : data.index(b" ", 4)].partition(b"?")[0])
            return
        body = data[end + 4 :]
        plan = self._plans.get(body)
        if plan is None:
            try:
                plan = read_plan(body) if has_length else _PICTURE
            except ValueError:
                plan = Plan(Wish.FAIL, False, 0, False)
            if len(self._plans) < 4096:
                self._plans[body] = plan
        self._answer(plan) if has_length else self._write(_NO_LENGTH)

    def _show(self, path: bytes) -> None:
        if path == b"/mock/counts":
            self._write(answers.write_answer(dict(self._counts)))
        else:
            self._write(_PAGES.get(path, _MISSING))

    def _answer(self, plan: Plan) -> None:
        self._counts[f"port {self._port}"] += 1
        if plan.wish == Wish.FAIL:
            self._write(answers.FAILURE)
        elif plan.wish == Wish.CUT_BEFORE and self.transport is not None:
            self.transport.close()
        elif plan.is_stream:
            self._begin_stream(plan)
        elif plan.wish == Wish.SLOW:
            asyncio.get_running_loop().call_later(SLOW_S, self._write, answers.ANSWER)
        else:
            self._write(answers.ANSWER)

    def _begin_stream(self, plan: Plan) -> None:
        self._write(answers.STREAM_HEAD)
        self._write(answers.FIRST)
        self.stream = Stream(self, plan)
        if plan.wish != Wish.IDLE:
            self._wheel.add(self.stream)

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


async def serve(ports: list[int], chunks_per_s: int) -> None:
    """Listen on loopback until SIGTERM."""
    loop = asyncio.get_running_loop()
    wheel, counts, plans = Wheel(chunks_per_s), Counter[str](), dict[bytes, Plan]()
    for port in ports:
        await loop.create_server(partial(Connection, port, wheel, counts, plans), "127.0.0.1", port, backlog=4096)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    gc.freeze()
    gc.disable()  # connections break their own cycles; a collection would show as latency
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.overhead.mock", description=__doc__)
    parser.add_argument("--ports", type=int, nargs="+", default=[9101, 9102])
    parser.add_argument("--chunks-per-s", type=int, default=100, help="pace of each stream")
    options = parser.parse_args()
    uvloop.run(serve(options.ports, options.chunks_per_s))


if __name__ == "__main__":
    main()
