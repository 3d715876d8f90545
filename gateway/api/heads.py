"""What a request's head alone shows: the relayed route it is for, and what is wrong with it. Never reads a body."""

import httptools

from gateway.api.auth import KeyRing
from gateway.errors import BodyTooLarge, HeadersTooLarge, MethodNotAllowed, UnsupportedMedia
from gateway.proxy.call import Call
from gateway.proxy.endpoints import ENDPOINTS, Endpoint

_ENDPOINTS = {path.encode(): endpoint for path, endpoint in ENDPOINTS.items()}
MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 200


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


def check_head(call: Call, method: bytes, keys: KeyRing | None, max_body_bytes: int, received_bytes: int) -> None:
    """Refuse what the head already shows to be wrong, and note who calls. Raises BadRequest, of the kind that fits.

    `received_bytes` came with the head, perhaps with some of the body: only when they are many the head is measured.
    """
    if received_bytes > MAX_HEAD_BYTES and sum(len(name) + len(value) for name, value in call.headers) > MAX_HEAD_BYTES:
        raise head_too_large()
    if len(call.headers) > _MAX_HEADERS:
        raise HeadersTooLarge(f"The request has more than {_MAX_HEADERS} headers.")
    if method != b"POST":
        raise MethodNotAllowed(f"{call.endpoint.path} takes POST, not {method.decode()}.")
    if keys is not None:
        call.caller = keys.check(call.by_name)
    kind = call.by_name.get(b"content-type", b"application/json")
    if kind != b"application/json" and kind.split(b";")[0].strip().lower() != b"application/json":
        shown = kind[:100].decode("latin-1")
        raise UnsupportedMedia(f"The content type {shown!r} is not supported: send content-type: application/json.")
    encoding = call.by_name.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise UnsupportedMedia("Compressed request bodies are not supported: send the JSON as it is.")
    if int(call.by_name.get(b"content-length", b"0")) > max_body_bytes:
        raise too_large(max_body_bytes)


def head_too_large() -> HeadersTooLarge:
    """The refusal of a head over the limit."""
    return HeadersTooLarge(f"The request's headers are longer than {MAX_HEAD_BYTES // 1024} KiB.")


def too_large(max_body_bytes: int) -> BodyTooLarge:
    """The refusal of a body over the limit."""
    limit = f"{max_body_bytes / 2**20:g} MiB"
    return BodyTooLarge(
        f"The request body is larger than {limit}: send smaller pictures, or raise server.max_body_bytes."
    )
