"""An engine that plays back bytes, cut where the test wants them cut, over a real unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

Script = list[bytes | float | None]
"""What one connection sends after a request: bytes; a number waits that many seconds; None closes the connection."""


class ScriptedEngine:
    """Plays one script per request, in order; the last one repeats. `requests` are what came in, head and body."""

    def __init__(self, scripts: list[Script]) -> None:
        self._scripts = scripts
        self.requests: list[bytes] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
                for step in script:
                    if step is None:
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                        await asyncio.sleep(0)
                    else:
                        await self._wait_or_hang_up(reader, step)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)  # both ends see it

    async def _wait_or_hang_up(self, reader: asyncio.StreamReader, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                if not await reader.read(1):
                    self.hung_up.set()
                    raise ConnectionError
        except TimeoutError:
            pass


@asynccontextmanager
async def scripted_engine(folder: Path, scripts: list[Script]) -> AsyncIterator[tuple[ScriptedEngine, str]]:
    """The engine and its address."""
    engine = ScriptedEngine(scripts)
    path = folder / "engine.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(engine.serve, path)
    try:
        yield engine, f"unix://{path}"
    finally:
        server.close()
        await engine.close()


def answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    """A whole answer with a length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def chunked(pieces: list[bytes], *, kind: str = "text/event-stream; charset=utf-8", has_end: bool = True) -> Script:
    """A chunked answer, one chunk a piece; without `has_end` the connection closes where the end should be."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunks: list[bytes | float | None] = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [head, *chunks, b"0\r\n\r\n" if has_end else None]
