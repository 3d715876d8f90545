"""Throws broken requests and broken answers at the relay's two parsers and looks for what must never happen.

`python -m loadtests.fuzz [--minutes 10] [--seed 1]` runs the real lane, forwarder and upstream client between clients
and an engine that are both out of their minds. Exits with 1 if a client gets another client's bytes, waits without end,
the gateway logs an exception, or connections, running counts or memory are left over.
"""

import argparse
import asyncio
import functools
import json
import logging
import random
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from gateway.api.lane import Lane, LaneProtocol
from gateway.fleet.replica import Replica
from gateway.proxy import forward
from gateway.proxy.forward import Forwarder
from gateway.proxy.head_memo import HeadMemo
from gateway.proxy.shortcut import Shortcut
from gateway.proxy.upstream import Upstream
from gateway.proxy.waiting import WaitingRoom
from gateway.telemetry.ledger import RequestLedger
from gateway.telemetry.metrics import RelayCounts
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, RouteBoard, Routes, VersionRoute
from gateway.traffic.split import Split

PATIENCE_S = 8.0
AT_ONCE = 100
CANARY = re.compile(rb"canary-(\d+)-([0-9a-f]{8})-")
NOISE = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b":",
    b" ",
    b"\xff",
    b"0",
    b"HTTP/1.1 ",
    b"chunked",
    b"data: ",
    b"\n\n",
    b"{",
    b'"',
)


def write_canary(number: int) -> bytes:
    """What only this client may ever see."""
    return b"canary-%d-%08x-" % (number, zlib.crc32(b"%d" % number))


def list_whole(data: bytes) -> set[int]:
    """Whose canaries are in it, those that are whole."""
    return {int(found[1]) for found in CANARY.finditer(data) if found[0] == write_canary(int(found[1]))}


class Fuzzer:
    """One run: the gateway in the middle, and what was seen."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.faults: list[str] = []
        self.seen: Counter[str] = Counter()
        self.socket = folder / "engine.sock"
        replica = Replica("v1-0", "m", "v1", f"unix://{self.socket}", "m")
        version = VersionRoute("v1", (replica,))
        model = ModelRoute(
            "m", {"v1": version}, Split.over("m", Allocation.divide({"v1": 1.0})), ("header:x-session-id",)
        )
        self.upstream = Upstream(first_byte_timeout_s=2.0, idle_timeout_s=2.0)
        self.forwarder = Forwarder(
            RouteBoard(Routes({"m": model})), self.upstream, WaitingRoom(lambda model, version: None, 5)
        )
        self.lane = Lane(self.forwarder, RequestLedger(None, RelayCounts()), None, max_body_bytes=200_000)
        self._count_short_ways()

    def _count_short_ways(self) -> None:
        """How often heads are recalled and chunks passed on unparsed: a run without them would prove little."""
        seen, recall = self.seen, HeadMemo.recall

        class Counted(Shortcut):
            def __init__(self, write: Callable[[bytes], None], stops: tuple[bytes, ...]) -> None:
                def count(chunk: bytes) -> None:
                    seen["short chunks"] += 1
                    write(chunk)

                super().__init__(count, stops)

        def recall_counted(memo: HeadMemo[Any], data: bytes) -> Any:
            known = recall(memo, data)
            seen["known heads"] += known is not None
            return known

        HeadMemo.recall = recall_counted  # type: ignore[method-assign]
        forward.Shortcut = Counted  # type: ignore[misc]

    # The engine.

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests, mostly badly, with the canary of the one who asked."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                found = CANARY.search(body)
                canary = found[0] if found else b"none"
                self.compare_trace(list_whole(head), list_whole(body))
                data = self.mangle(self.build_answer(canary), 0.5)
                # As engines do it: a write for each event, whole chunks where nothing was mangled.
                by_event = [piece + b"\n\n\r\n" for piece in data.split(b"\n\n\r\n")]
                for piece in self.cut(data) if self.rng.random() < 0.5 else [*by_event[:-1], by_event[-1][:-4]]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self.rng.choice((0, 0, 0.002)))
                if self.rng.random() < 0.3:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        except RuntimeError:  # as uvloop puts it that the connection is gone
            pass
        finally:
            writer.close()

    def compare_trace(self, head: set[int], body: set[int]) -> None:
        """The trace that reaches an engine is of the client whose body does."""
        self.seen["traces"] += bool(head)
        if head and body and head != body:
            self.faults.append(f"the trace of {head} came with the body of {body}")

    def build_answer(self, canary: bytes) -> bytes:
        """A right answer, whole or streamed, in one of the framings of HTTP/1.1."""
        usage = b'"usage":{"prompt_tokens":3,"completion_tokens":2}'
        way = self.rng.randrange(4)
        if way < 2:
            document = b'{"model":"m","text":"' + canary + b'",' + usage + b"}"
            if way == 0:
                return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(document) + document
            return b"HTTP/1.1 200 OK\r\n\r\n" + document
        blank = self.rng.choice((b"\n\n", b"\r\n\r\n"))
        events = [
            b'data: {"model":"m","choices":[{"delta":{"content":"' + canary + b'"}}]}' + blank
        ] * self.rng.randint(1, 9)
        events += [b": comment" + blank, b'data: {"choices":[],' + usage + b"}" + blank, b"data: [DONE]" + blank]
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        if way == 2:
            return head + b"\r\n" + b"".join(events)
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    # The client.

    async def ask(self, port: int, number: int) -> None:
        """One connection with one or more requests, right or wrong, and a look at all that comes back."""
        canary = write_canary(number)
        data = b"".join(self.mangle(self.build_request(canary), 0.4) for _ in range(self.rng.choice((1, 1, 1, 2, 3))))
        got = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    for piece in self.cut(data):
                        writer.write(piece)
                        await asyncio.sleep(0)
                    if self.rng.random() < 0.3 and writer.can_write_eof():
                        writer.write_eof()
                    leaves_early = self.rng.random() < 0.2
                    while piece := await asyncio.wait_for(reader.read(65536), 0.05 if leaves_early else 3.0):
                        got += piece
                finally:
                    writer.close()
            self.seen["closed"] += 1
        except TimeoutError:
            self.seen["left" if got else "silent"] += 1
        except (OSError, RuntimeError):  # uvloop says RuntimeError where a connection has just gone
            self.seen["reset"] += 1
        for status in re.findall(rb"HTTP/1\.[01] (\d{3})", got)[:1]:
            self.seen[status.decode()] += 1
        # One that the fuzzer itself has mangled does not fit its checksum.
        whole = list_whole(got)
        if foreign := whole - {number}:
            self.faults.append(f"client {number} got bytes of {sorted(foreign)[:3]}")

    def build_request(self, canary: bytes) -> bytes:
        """A right request."""
        body = json.dumps({
            "model": "m", "stream": self.rng.random() < 0.5, "messages": [{"role": "user", "content": canary.decode()}],
            "pad": "x" * self.rng.choice((0, 10, 5000, 150_000)),
        }).encode()  # fmt: skip
        path = self.rng.choice(
            (b"/v1/chat/completions",) * 5 + (b"/v1/models", b"/nothing", b"http://x/v1/completions")
        )
        head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        if self.rng.random() < 0.2:
            head += self.rng.choice(
                (b"expect: 100-continue\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n", b"connection: close\r\n")
            )
        if self.rng.random() < 0.3:
            head += b"x-request-id: %d\r\n" % self.rng.randrange(1000)
        if self.rng.random() < 0.3:
            trace = [b"traceparent: " + canary + b"\r\n", b"tracestate: a=" + canary + b"\r\n"]
            head += b"".join(self.rng.sample(trace, self.rng.randint(1, 2)))
        if self.rng.random() < 0.3:
            half = len(body) // 2
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
            return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        return head + b"content-length: %d\r\n\r\n" % len(body) + body

    # The harm.

    def mangle(self, data: bytes, share: float) -> bytes:
        """`data`, in this share of the cases with bytes changed, put in, doubled or left out."""
        if self.rng.random() > share:
            return data
        for _ in range(self.rng.randint(1, 4)):
            place = self.rng.randrange(len(data) + 1)
            if self.rng.random() < 0.7:  # heads are short, and that is where it hurts
                place = min(place, self.rng.randrange(200))
            length = self.rng.choice((0, 1, 1, 4, 50))
            put_in = self.rng.choice((b"", *NOISE, data[place : place + length] * 2, self.rng.randbytes(length)))
            data = data[:place] + put_in + data[place + length :]
        return data[: self.rng.randrange(len(data) + 1)] if self.rng.random() < 0.2 else data

    def cut(self, data: bytes) -> list[bytes]:
        """`data` in a few pieces, cut anywhere."""
        places = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.choice((0, 1, 3, 8))))
        return [data[one:other] for one, other in zip([0, *places], [*places, len(data)], strict=True) if one < other]


class _Faults(logging.Handler):
    def __init__(self, fuzzer: Fuzzer) -> None:
        super().__init__(logging.ERROR)
        self._fuzzer = fuzzer

    def emit(self, record: logging.LogRecord) -> None:
        self._fuzzer.faults.append(f"logged: {self.format(record)}")


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


async def run(minutes: float, seed: int, folder: Path) -> int:
    """Fuzz for this long; returns the exit code."""
    fuzzer = Fuzzer(folder, seed)
    logging.getLogger().addHandler(_Faults(fuzzer))
    engine = await asyncio.start_unix_server(fuzzer.answer, fuzzer.socket, limit=2**20)

    async def rest(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    protocol = functools.partial(LaneProtocol, fuzzer.lane)
    config = uvicorn.Config(
        rest, host="127.0.0.1", port=0, loop="none", http=protocol, ws="none", lifespan="off", log_config=None
    )  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    ends, number, told, at_start = time.monotonic() + minutes * 60, 0, time.monotonic(), 0.0

    async def keep_asking() -> None:
        nonlocal number
        while time.monotonic() < ends and len(fuzzer.faults) < 20:
            number += 1
            await fuzzer.ask(port, number)

    askers = [asyncio.ensure_future(keep_asking()) for _ in range(AT_ONCE)]
    while not all(asker.done() for asker in askers):
        await asyncio.sleep(0.5)
        if not at_start and number > 2000:
            at_start = _resident_mib()
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"{number} connections, {_resident_mib():.0f} MiB, {dict(fuzzer.seen)}", flush=True)
    for asker in askers:
        if (error := asker.exception()) is not None:
            fuzzer.faults.append(f"the fuzzer itself failed: {error!r}")
    await asyncio.sleep(4)
    grown = _resident_mib() - at_start if at_start else 0.0
    if fuzzer.forwarder.running_count:
        fuzzer.faults.append(f"{fuzzer.forwarder.running_count} requests are still running")
    if at_start and grown > 30:
        fuzzer.faults.append(f"memory has grown by {grown:.0f} MiB")
    for way in ("known heads", "short chunks"):
        if not fuzzer.seen[way]:
            fuzzer.faults.append(f"{way}: none came up, so that nothing is proved of them")
    server.should_exit = True
    fuzzer.upstream.close()
    engine.close()
    await serving
    print(f"{number} connections, memory {grown:+.0f} MiB, {dict(fuzzer.seen)}")
    for fault in fuzzer.faults[:10]:
        print("FAULT", fault)
    print("nothing found" if not fuzzer.faults else f"{len(fuzzer.faults)} faults")
    return 1 if fuzzer.faults else 0


def main() -> int:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(given.minutes, given.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
