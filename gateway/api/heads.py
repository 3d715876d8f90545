"""What a request's head alone shows: the relayed route it is for, and what is wrong with it. Never reads a body."""

from collections.abc import Mapping

import httptools

from gateway.api.auth import KeyRing
from gateway.errors import BodyTooLarge, Headers, HeadersTooLarge, MethodNotAllowed, UnsupportedMedia
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS, Endpoint
from gateway.proxy.head_memo import HeadMemo
from gateway.proxy.headers import TRACE_HEADERS, lines_for_engine, write_lines
from gateway.traffic.routes import Caller

_ENDPOINTS = {path.encode(): endpoint for path, endpoint in ENDPOINTS.items()}
MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 200
_VARYING = (b"x-request-id", *TRACE_HEADERS)
_ANYBODY = Caller("")
_NO_TRACE = [None] * len(TRACE_HEADERS)


def find_endpoint(url: bytes) -> Endpoint | None:
    """The relayed route that a request target names, whatever the target's form; None for any other."""
    endpoint = _ENDPOINTS.get(url)
    if endpoint is not None:
        return endpoint
    path = url.partition(b"?")[0]
    if not path.startswith(b"/"):
        try:
            path = httptools.parse_url(path).path or b""
        except httptools.HttpParserInvalidURLError:
            return None
    return _ENDPOINTS.get(path)


def is_expecting(headers: Mapping[bytes, bytes]) -> bool:
    """True for a client that sends its body only when it is told to."""
    return headers.get(b"expect", b"").lower() == b"100-continue"


class HeadReader:
    """Reads the heads of requests, and knows again those that it has read. Without `keys` nobody needs one."""

    def __init__(self, keys: KeyRing | None, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._keys = keys
        self._known = HeadMemo[RequestHead](*_VARYING)

    def forget(self) -> None:
        """The keys have changed: what heads came to counts no more."""
        self._known = HeadMemo[RequestHead](*_VARYING)

    def recall(self, data: bytes) -> tuple[RequestHead, bytes | None, bytes, bytes] | None:
        """Head, offered id, trace lines and body if `data` is one whole request with a known head.

        None otherwise: a parser has to read it.
        """
        known = self._known.recall(data)
        if known is None or len(known[2]) > self.max_body_bytes:
            return None
        head, (offered_id, *trace), body = known
        if trace == _NO_TRACE:
            return head, offered_id, b"", body
        pairs = zip(TRACE_HEADERS, trace, strict=True)
        return head, offered_id, write_lines([(name, value) for name, value in pairs if value is not None]), body

    def read(
        self, endpoint: Endpoint, method: bytes, headers: Headers, data: bytes, *, is_chunked: bool, is_lasting: bool
    ) -> RequestHead:
        """What the head of a request for `endpoint` says, whose `headers` a parser has read.

        `data` is the read that the request began with, if the head ended in it too. Raises BadRequest, of the kind that
        fits, for what is wrong.
        """
        if len(headers) > _MAX_HEADERS:
            raise HeadersTooLarge(f"The request has more than {_MAX_HEADERS} headers.")
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
            raise head_too_large()
        if method != b"POST":
            raise MethodNotAllowed(f"{endpoint.path} takes POST, not {method.decode()}.")
        by_name = dict(reversed(headers))  # of a header sent twice the first counts
        caller = self._keys.check(by_name) if self._keys is not None else _ANYBODY
        _check_kind(by_name)
        if int(by_name.pop(b"content-length", b"0")) > self.max_body_bytes:
            raise too_large(self.max_body_bytes)
        for name in _VARYING:
            by_name.pop(name, None)
        head = RequestHead(
            endpoint, by_name, lines_for_engine(headers), is_chunked, is_lasting, caller.name or None, caller.may_pin
        )
        if data and len(headers) <= _MAX_HEADERS - len(_VARYING):  # what varies may come on top of a known head
            self._known.remember(data, headers, head)
        return head


def _check_kind(by_name: Mapping[bytes, bytes]) -> None:
    kind = by_name.get(b"content-type", b"application/json")
    if kind != b"application/json" and kind.split(b";")[0].strip().lower() != b"application/json":
        shown = kind[:100].decode("latin-1")
        raise UnsupportedMedia(f"The content type {shown!r} is not supported: send content-type: application/json.")
    encoding = by_name.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise UnsupportedMedia("Compressed request bodies are not supported: send the JSON as it is.")


def head_too_large() -> HeadersTooLarge:
    """The refusal of a head over the limit."""
    return HeadersTooLarge(f"The request's headers are longer than {MAX_HEAD_BYTES // 1024} KiB.")


def too_large(max_body_bytes: int) -> BodyTooLarge:
    """The refusal of a body over the limit."""
    limit = f"{max_body_bytes / 2**20:g} MiB"
    return BodyTooLarge(
        f"The request body is larger than {limit}: send smaller pictures, or raise server.max_body_bytes."
    )
