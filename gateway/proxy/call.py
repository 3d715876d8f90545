"""One client request as it reaches the proxy, and the client's side of its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError, Headers
from gateway.proxy.endpoints import Endpoint
from gateway.telemetry.requests import RequestRecord


@dataclass(slots=True)
class Call:
    """One client request, body read, nothing of it checked yet. Header names are in lower case.

    `by_name` has the first of each header. `caller` names the key that the client showed, where keys are asked for.
    """

    endpoint: Endpoint
    headers: Headers
    body: bytes
    client_ip: str
    record: RequestRecord
    by_name: Mapping[bytes, bytes]
    caller: str | None = None

    def header(self, name: bytes) -> str | None:
        """The first value of a header."""
        value = self.by_name.get(name)
        return None if value is None else value.decode("latin-1")


class Client(Protocol):
    """The client's side of one call. It is told `answer` or `refuse`, or else `begin`, `write` over and over, `end`.

    `lines` are header lines as they go over the wire, each with its line end.
    """

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer."""

    def refuse(self, error: GatewayError) -> None:
        """Send an error of the gateway's own."""

    def abandon(self) -> None:
        """A defect of ours struck while the answer was being ended: nothing sound can be sent any more."""

    def begin(self, status: int, lines: bytes) -> Callable[[bytes], None] | None:
        """Send the head of a stream. Returns what takes pieces that are framed as chunks already, if this one can."""

    def write(self, data: bytes) -> None:
        """Send a piece of the stream; a client that does not keep up calls the passage's `pause`."""

    def end(self, data: bytes) -> None:
        """Send the last piece, which may be empty."""
