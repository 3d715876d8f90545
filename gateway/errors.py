"""The tree of failures a client can see, and the one function that renders them.

    GatewayError
    ├── BadRequest            the client's mistake: 4xx, never worth a retry as it is
    │   ├── UnsupportedMedia  415
    │   ├── BodyTooLarge      413
    │   ├── NotFound          404  (UnknownModel, UnknownRoute)
    │   ├── MethodNotAllowed  405
    │   ├── Conflict          409
    │   ├── HeadersTooLarge   431
    │   ├── BodyTooSlow       408  (ClientStalled, by an answer)
    │   ├── Unauthorized      401
    │   └── Forbidden         403
    ├── NoCapacity            503  (NoReplica, Draining, StateUnavailable): retry later
    ├── UpstreamFailed        502  (UpstreamTimeout 504): the engine did not answer as it should
    └── OperatorFault         500: our own defect

Each class fixes status, OpenAI type, code and whether a retry is safe. Never imports a room.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec

Headers = list[tuple[bytes, bytes]]
"""Header names in lower case and values, as ASGI and the wire take them."""


class GatewayError(Exception):
    """A failure with a sentence for the client. `param` names the request field at fault, where there is one."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str | None] = "internal_error"
    is_retry_safe: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        # It may repeat half a character of a client's, which JSON can say and UTF-8 cannot.
        self.message = message.encode(errors="backslashreplace").decode()
        super().__init__(self.message)
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The OpenAI error object, as JSON."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": fields})


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class UnsupportedMedia(BadRequest):
    status = 415
    code = "unsupported_content_type"


class BodyTooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class HeadersTooLarge(BadRequest):
    status = 431
    code = "headers_too_large"


class BodyTooSlow(BadRequest):
    status = 408
    code = "request_timeout"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"


class UnknownRoute(NotFound):
    code = "route_not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class Conflict(BadRequest):
    status = 409
    code = "conflict"


class ClientStalled(BadRequest):
    status = 408
    code = "client_stalled"


class Unauthorized(BadRequest):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(BadRequest):
    status = 403
    type = "permission_error"
    code = "not_allowed"


class NoCapacity(GatewayError):
    status = 503
    type = "service_unavailable"
    code = "no_capacity"
    is_retry_safe = True


class NoReplica(NoCapacity):
    code = "no_replica"


class Draining(NoCapacity):
    code = "draining"


class StateUnavailable(NoCapacity):
    code = "state_unavailable"


class UpstreamFailed(GatewayError):
    status = 502
    type = "upstream_error"
    code = "engine_failed"


class UpstreamTimeout(UpstreamFailed):
    status = 504
    code = "engine_timeout"


class OperatorFault(GatewayError):
    pass


class Fault(msgspec.Struct, frozen=True):
    """A failure on its way from one process to another."""

    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    @classmethod
    def of(cls, error: GatewayError) -> "Fault":
        """What can be told of a failure."""
        return cls(error.code or "", error.message, error.param, error.retry_after_s)

    def revive(self) -> GatewayError:
        """The failure again; one of a kind that is not known here is a defect of ours."""
        kind = next((one for one in _list_kinds(GatewayError) if one.code == self.code), OperatorFault)
        return kind(self.message, param=self.param, retry_after_s=self.retry_after_s)


def _list_kinds(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _list_kinds(one)


def render(error: GatewayError, extra: Sequence[tuple[bytes, bytes]] = ()) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error answer that the gateway itself gives; `extra` headers come last."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-gateway-error-origin", b"gateway"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    return error.status, [*headers, *extra], body
