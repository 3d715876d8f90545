"""Which headers cross the gateway, and the ones it adds. Everything not listed stays where it is."""

import random
import re

from gateway.errors import Headers

_TO_ENGINE = frozenset(
    {
        b"accept",
        b"traceparent",
        b"tracestate",
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
_ids = random.Random()  # noqa: S311 - to tell requests apart, no secret; seeded by the system
_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def request_id(offered: bytes | None) -> str:
    """The client's own request id if it is sane, else a new one."""
    if offered is not None and _SANE_ID.fullmatch(offered):
        return offered.decode()
    return f"{_ids.getrandbits(128):032x}"


def for_engine(client: Headers, request_id: str) -> Headers:
    """Request headers the engine gets."""
    kept = [(name, value) for name, value in client if name in _TO_ENGINE]
    return [*kept, (b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]


def for_client(engine: Headers) -> Headers:
    """Response headers of the engine that the client gets; the length is ours to say, the body may have changed."""
    return [(name, value) for name, value in engine if name not in _NOT_TO_CLIENT]
