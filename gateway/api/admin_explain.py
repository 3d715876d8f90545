"""Of the admin port: which version and replica a request would get, and why; as relays find it, and nothing is sent."""

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.control.control import Control
from gateway.errors import BadRequest
from gateway.proxy.body import parse_fields
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.placing import Placing, place
from gateway.traffic.routes import Caller, How, ModelRoute, Routes

_POLICIES = {
    "least_loaded": "the less busy of two drawn by lot",
    "round_robin": "one after the other",
    "session_affinity": "its own by its sticky key, unless that one is much busier than the rest",
    "prefix_affinity": "its own by how its conversation begins, unless that one is much busier than the rest",
}


class ExplainRequest(BaseModel):
    """A request as a client would send it: `body` the JSON, `headers` by name. `caller` is the name of a key."""

    model_config = ConfigDict(extra="forbid")

    body: dict[str, Any]
    headers: dict[str, str] = {}
    client_ip: str = "127.0.0.1"
    caller: str | None = None


def build_router(control: Control) -> APIRouter:
    """The route `/explain`."""
    router = APIRouter()

    @router.post("/explain")
    async def explain(asked: ExplainRequest) -> dict[str, Any]:
        """Which version and replica would this request get, and why?"""
        try:
            return tell(_place(asked, control.routes))
        except UnicodeEncodeError as error:
            raise BadRequest("The request has half a surrogate pair in it, which is no character.") from error

    return router


def _place(asked: ExplainRequest, routes: Routes) -> Placing:
    known = next((one for one in routes.callers.values() if one.name == asked.caller), Caller(asked.caller or ""))
    by_name = {name.lower().encode(): value.encode() for name, value in asked.headers.items()}
    head = RequestHead(ENDPOINTS["/v1/chat/completions"], by_name, b"", caller=asked.caller, may_pin=known.may_pin)
    fields = parse_fields(msgspec.json.encode(asked.body))
    return place(head, fields, routes, asked.client_ip, by_name.get(b"x-request-id", b"").decode())


def tell(placing: Placing) -> dict[str, Any]:
    """A placing in words for people."""
    model, version, _, adapter, how, unit = placing.target
    shares = {name: size / 2**32 for name, size in model.split.allocation.measure().items()}
    replicas = [replica.name for replica in version.replicas]
    found: dict[str, Any] = {
        "model": model.name,
        "version": version.name,
        "adapter": adapter,
        "how": how,
        "why": _say_why(placing, model, how, shares),
        "replicas": replicas,
        "replica": replicas[0] if len(replicas) == 1 else None,
        "replica_why": _say_replica(version.routing, replicas, version.state),
    }
    if how in (How.SPLIT, How.STAND_IN):
        found |= {"sticky_by": placing.source, "point": unit / 2**64, "unit": f"{unit:016x}", "split": shares}
        found["own_version"] = model.split.find_own(placing.sticky_key)
    return found


def _say_why(placing: Placing, model: ModelRoute, how: How, shares: dict[str, float]) -> str:
    version = placing.target.version.name
    if how is How.PIN:
        return f"the header x-gateway-version asks for {version}"
    if how is How.NAME:
        return f"the name of the model asks for {version}"
    own = model.split.find_own(placing.sticky_key)
    user = f"its user, known by {placing.source}, is one of the {shares[own]:.4%} of {own}"
    if how is How.STAND_IN:
        return f"{user}, which has no ready engine: {version} stands in for it"
    return user


def _say_replica(routing: str, replicas: list[str], state: str) -> str:
    if not replicas:
        return f"no engine is ready ({state})"
    return "it is the only one" if len(replicas) == 1 else _POLICIES[routing]
