"""The admin port: what is served and in which state."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict

from gateway.api.failures import add_error_answers
from gateway.control.control import Control
from gateway.control.mirror import StateMirror
from gateway.control.runner import Runner
from gateway.errors import BadRequest, Unauthorized
from gateway.settings import SourceAddress, is_address, parse_address
from gateway.state import Store
from gateway.telemetry.metrics import CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Desk:
    """Who answers for what: `control` for what is served, the `store` for what was."""

    control: Control
    mirror: StateMirror
    runner: Runner
    store: Store


class LoadRequest(BaseModel):
    """A version to be loaded, as it stands in the file. It may take the place of the one that it `replaces`."""

    model_config = ConfigDict(extra="allow")
    replaces: str | None = None


class MountRequest(BaseModel):
    """An adapter to be mounted: a name of letters, digits, `.`, `_`, `-`, and a folder on the gateway's machine.

    Or the address of one elsewhere, `hf://ORG/NAME`.
    """

    name: str
    path: str


def build_admin_app(desk: Desk, read_metrics: Callable[[], Awaitable[bytes]], key: str | None) -> FastAPI:
    """The admin app; with a `key`, every call needs it as a bearer token. `read_metrics` gives Prometheus' text."""
    control = desk.control

    async def check_key(request: Request) -> None:
        if key is None:
            return
        offered = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(offered.encode(), key.encode()):
            raise Unauthorized("The admin port needs its key: send authorization: Bearer <key>.")

    app = FastAPI(
        title="gateway admin", dependencies=[Depends(check_key)], docs_url=None, redoc_url=None, openapi_url=None
    )
    add_error_answers(app)

    @app.get("/admin/v1/models")
    async def list_models() -> dict[str, Any]:
        """Models, versions, split, and the state of every engine."""
        return {"models": control.describe()}

    @app.get("/admin/v1/models/{model:path}/split")
    async def show_split(model: str) -> dict[str, Any]:
        """The shares of a model's versions."""
        return {"split": control.read_split(model)}

    @app.put("/admin/v1/models/{model:path}/split")
    async def set_split(model: str, weights: dict[str, float]) -> dict[str, Any]:
        """Other shares, in every relay at once. Versions that are not named get none."""
        return {"split": await control.set_split(model, weights)}

    @app.post("/admin/v1/models/{model:path}/versions", status_code=202)
    async def load_version(model: str, asked: LoadRequest) -> dict[str, Any]:
        """Load one more version; returns at once. It gets traffic by name only, or all of the one that it replaces."""
        data = asked.model_extra or {}
        return {"id": await control.add_version(model, data, asked.replaces)}

    @app.delete("/admin/v1/models/{model:path}/versions/{version}", status_code=202)
    async def unload_version(model: str, version: str) -> dict[str, Any]:
        """Serve a version no longer; its engines end with their last answer."""
        return {"id": await control.remove_version(model, version)}

    @app.post("/admin/v1/models/{model:path}/versions/{version}/adapters")
    async def mount_adapter(model: str, version: str, asked: MountRequest) -> dict[str, Any]:
        """Mount an adapter, in the place of one of its name; no engine is started anew and no request notices."""
        return {"id": await control.set_adapter(model, version, asked.name, _read_place(asked.path))}

    @app.delete("/admin/v1/models/{model:path}/versions/{version}/adapters/{name}")
    async def take_adapter_away(model: str, version: str, name: str) -> dict[str, Any]:
        """Take an adapter away: the next request for it gets a 404, those under way end in order."""
        return {"id": await control.set_adapter(model, version, name, None)}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """What the relays have done, for Prometheus."""
        return Response(await read_metrics(), media_type=CONTENT_TYPE)

    return app


def _read_place(path: str) -> Path | SourceAddress:
    if is_address(path):
        try:
            return parse_address(path)
        except ValueError as error:
            raise BadRequest(f"The path of an adapter {error}.", param="path") from error
    if not Path(path).is_absolute():
        raise BadRequest("The path of an adapter must begin at the root of the gateway's machine.", param="path")
    return Path(path)
