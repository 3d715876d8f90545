"""A transport without a socket: keeps what is written to it, and what is asked of it."""

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """`sent` is what went out, `unsent_bytes` what the test says is still in the buffer. `lose` ends the connection."""

    def __init__(self, protocol: asyncio.Protocol, *, client: tuple[str, int] = ("1.2.3.4", 5)) -> None:
        super().__init__({"peername": client, "sockname": ("127.0.0.1", 80)})
        self.sent = b""
        self.unsent_bytes = 0
        self.is_closed = self.is_aborted = self.is_lost = False
        self.is_reading_now = True
        self._fake_protocol = protocol
        protocol.connection_made(self)

    def feed(self, *pieces: bytes) -> None:
        """Bytes come in, as separate reads; a closing transport reads no more."""
        for piece in pieces:
            if piece and not self.is_closing():
                self._fake_protocol.data_received(piece)

    def feed_end(self) -> None:
        """The other side ends its half of the connection."""
        if not self._fake_protocol.eof_received():
            self.close()
            self.lose()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        if not self.is_lost:
            self.is_closed = self.is_lost = True
            self._fake_protocol.connection_lost(error)

    def write(self, data: Any) -> None:
        assert not self.is_lost, "written to a connection that is gone"
        self.sent += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes
