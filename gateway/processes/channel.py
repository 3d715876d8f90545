"""A channel between two of our processes: messages over a socket pair, each behind its length in four bytes."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

import msgspec

from gateway.processes.messages import AnyMessage

logger = logging.getLogger(__name__)

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


class Channel(asyncio.Protocol):
    """One end. `on_message` gets each message in order, `on_end` is called once when the other end is gone."""

    def __init__(self, on_message: Callable[[AnyMessage], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls, end: socket.socket, on_message: Callable[[AnyMessage], None], on_end: Callable[[], None]
    ) -> "Channel":
        """Take over one end of a connected stream socket."""
        channel = cls(on_message, on_end)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=end)
        return channel

    def send(self, message: AnyMessage) -> None:
        """Send a message; to an end that is gone it is lost, as a moment later it would be anyway."""
        if self._transport is not None:
            data = _encoder.encode(message)
            self._transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def close(self) -> None:
        """Hang up, after what is still to be sent."""
        if self._transport is not None:
            self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports have another base

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._received[:_LENGTH_BYTES], "big")
            if len(self._received) < end:
                return
            frame = bytes(self._received[_LENGTH_BYTES:end])
            del self._received[:end]
            self._hand_on(frame)

    def _hand_on(self, frame: bytes) -> None:
        try:
            self._on_message(_decoder.decode(frame))
        except Exception:
            # One message that is not understood must not silence the ones behind it.
            logger.exception("a message between the gateway's processes was not understood")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_end()
