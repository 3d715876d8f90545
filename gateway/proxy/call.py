"""One client request as it reaches the proxy, and the client's side of its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError
from gateway.proxy.endpoints import Endpoint
from gateway.telemetry.requests import RequestRecord


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the head of a client's request says. Requests that differ in length, id and trace only share one.

    `by_name` has the first value of each other header, by its name in lower case. `engine_lines` are the header lines
    that the engine gets. The client takes chunks if it `is_chunked` (HTTP/1.1), and wants to keep its
    connection if it `is_lasting`. `caller` names the key that it showed, where keys are asked for; one that `may_pin`
    may choose the version that answers.
    """

    endpoint: Endpoint
    by_name: Mapping[bytes, bytes]
    engine_lines: bytes
    is_chunked: bool = True
    is_lasting: bool = True
    caller: str | None = None
    may_pin: bool = True


@dataclass(slots=True)
class Call:
    """One client request, its head checked, its body read and not looked at yet.

    `trace_lines` are the header lines that place it in a trace, which the engine gets too.
    """

    head: RequestHead
    body: bytes | bytearray
    client_ip: str
    record: RequestRecord
    trace_lines: bytes = b""


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
