"""Where a request goes: the model it asks for, the key it is known by, and so the version. Sends nothing."""

from functools import cache
from typing import NamedTuple

from gateway.errors import BadRequest, Forbidden
from gateway.proxy.beginning import read_beginning
from gateway.proxy.body import Fields, read_text
from gateway.proxy.call import RequestHead
from gateway.traffic.routes import How, ModelRoute, Routes, Target

CONVERSATION = "conversation"


class Placing(NamedTuple):
    """The target of a request, and the sticky key with the name of its source: of `sticky_by`, or the last resort."""

    target: Target
    sticky_key: bytes
    source: str


def place(head: RequestHead, fields: Fields, routes: Routes, client_ip: str, request_id: str) -> Placing:
    """Find where a request goes. Raises UnknownModel, Forbidden, and BadRequest for what contradicts itself."""
    name = read_text(fields, "model")
    if not name:
        if len(routes.models) != 1:
            message = f"The field 'model' is missing: name one of {', '.join(routes.models) or '(none)'}."
            raise BadRequest(message, param="model")
        name = next(iter(routes.models))
    source, sticky_key = _find_sticky_key(head, fields, routes.models.get(name), client_ip, request_id)
    pinned = head.by_name.get(b"x-gateway-version")
    target = routes.resolve(name, pinned.decode("latin-1") if pinned is not None else None, sticky_key)
    if not head.may_pin and target.how in (How.PIN, How.NAME):
        raise Forbidden(f"The API key {head.caller} may not choose a version: ask for {target.model.name} alone.")
    return Placing(target, sticky_key, source)


def _find_sticky_key(
    head: RequestHead, fields: Fields, model: ModelRoute | None, client_ip: str, request_id: str
) -> tuple[str, bytes]:
    """The first of the model's sources that the request has; else what its conversation begins with."""
    for source in model.sticky_by if model is not None else ():
        label, header = _read_source(source)
        if header is not None:
            shown = head.by_name.get(header)
        elif source == CONVERSATION:
            shown = read_beginning(fields)
        else:
            value = client_ip
            if source != "client_ip":
                value = (read_text(fields, "user") if source == "user" else head.caller) or ""
            shown = value.encode()
        if shown:
            return source, label + shown
    if model is not None and (beginning := read_beginning(fields)):
        return CONVERSATION, b"conversation=" + beginning
    return "x-request-id", request_id.encode()


@cache
def _read_source(source: str) -> tuple[bytes, bytes | None]:
    """How a sticky key of this source begins, and the header that it is taken from, if it is one."""
    kind, _, name = source.partition(":")
    return source.encode() + b"=", name.encode() if kind == "header" else None
