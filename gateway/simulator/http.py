"""HTTP/1.1 for the simulator, on purpose not the gateway's own code: a bug that both shared would stay hidden."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import httptools


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. Header names are in lower case; the last of a name wins."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Exchange:
    """The answer to one request. Waits where the client reads slowly."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.extra_headers: dict[str, str] = {}
        self.has_begun = False

    async def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a whole answer."""
        self._begin(status, {"content-length": str(len(body)), "content-type": content_type})
        await self._connection.write(body)

    async def begin_stream(self) -> None:
        """Begin an event stream."""
        self._begin(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})

    async def write(self, data: bytes) -> None:
        """Send a piece of the stream."""
        await self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        """End the stream in good order."""
        await self._connection.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection after what was written, without an end of the answer."""
        self._connection.close()

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.has_begun = True
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "server: uvicorn"]
        lines += [f"{name}: {value}" for name, value in (headers | self.extra_headers).items()]
        self._connection.put("\r\n".join([*lines, "", ""]).encode())


Handler = Callable[[Request, Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection: requests are answered in turn, and a hang-up cancels the one being answered."""

    def __init__(self, handler: Handler, connections: "set[Connection]") -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._can_write = asyncio.Event()
        self._url, self._headers, self._body = b"", {}, bytearray()  # type: tuple[bytes, dict[str, str], bytearray]

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._task is None

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._transport.close()

    def put(self, data: bytes) -> None:
        """Send without waiting."""
        self._transport.write(data)

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client reads slowly."""
        self._transport.write(data)
        if not self._can_write.is_set():
            await self._can_write.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101, narrows the type
        self._transport = transport
        self._connections.add(self)
        self._can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._task:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            body = b"Invalid HTTP request received."
            self.put(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            self.close()

    def on_message_begin(self) -> None:
        """Called by the parser, as are all `on_` methods."""
        self._url, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = self._url.decode("latin-1").partition("?")[0]
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, path, self._headers, bytes(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                request, keeps_open = self._waiting.popleft()
                await self._handler(request, Exchange(self))
                if not keeps_open:
                    self.close()
                    break
        except BaseException:
            self.close()
            raise
        finally:
            self._task = None
