"""Which headers cross the gateway, and the ones it adds. Everything not listed stays where it is."""

import os
import re
import time
from collections.abc import Iterator

from gateway.errors import Headers

_TO_ENGINE = frozenset(
    {
        b"accept",
        b"baggage",
        b"anthropic-version",
        b"anthropic-beta",
        b"x-data-parallel-rank",
    }
)
# Framing and connection belong to each hop; server and date are written by our own server.
_NOT_TO_CLIENT = frozenset(
    {
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding",
        b"upgrade", b"server", b"date", b"x-request-id", b"set-cookie",
    }
)  # fmt: skip
TRACE_HEADERS = (b"traceparent", b"tracestate")
"""They cross too, but differ with each request of a client that traces."""
_RANDOM_BYTES = 10
_BLOCK_BYTES = 256 * _RANDOM_BYTES
_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def request_id(offered: bytes | None) -> str:
    """The client's own request id if it is sane, else a new one."""
    if offered is not None and _SANE_ID.fullmatch(offered):
        return offered.decode()
    return next(_ids)


def _make_ids() -> Iterator[str]:
    """Ids that nobody can guess: the system is asked for many at once, since each time costs more than an id.

    They begin with the milliseconds since the epoch when it was asked, 12 digits, so that an index of requests that
    came together has them in a few places: with wholly random ones nearly each is a page to read and write.
    """
    while True:
        block, start_ms = os.urandom(_BLOCK_BYTES).hex(), f"{time.time_ns() // 1_000_000:012x}"
        for start in range(0, len(block), 2 * _RANDOM_BYTES):
            yield start_ms + block[start : start + 2 * _RANDOM_BYTES]


_ids = _make_ids()


def lines_for_engine(client: Headers) -> bytes:
    """The lines of a client's headers that the engine gets, and the content type."""
    return write_lines([header for header in client if header[0] in _TO_ENGINE]) + b"content-type: application/json\r\n"


def trace_lines(client: Headers) -> bytes:
    """The lines of a client's headers that place the request in a trace; the engine gets them."""
    return write_lines([header for header in client if header[0] in TRACE_HEADERS])


def lines_for_client(engine: Headers) -> bytes:
    """The lines of an engine's headers that the client gets; the length is ours to say, the body may have changed."""
    return write_lines([header for header in engine if header[0] not in _NOT_TO_CLIENT])


def write_lines(headers: Headers) -> bytes:
    """Headers as lines on the wire, each with its line end."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
