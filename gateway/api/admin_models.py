"""Of the admin port: models, their versions and adapters, and how traffic is split over them."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.control.control import Control
from gateway.errors import BadRequest
from gateway.settings import SourceAddress, is_address, parse_address


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


def build_router(control: Control) -> APIRouter:
    """The routes under `/models`."""
    router = APIRouter()

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        """Models, versions, split, and the state of every engine."""
        return {"models": control.describe()}

    @router.get("/models/{model:path}/split")
    async def show_split(model: str) -> dict[str, Any]:
        """The shares of a model's versions."""
        return {"split": control.read_split(model)}

    @router.put("/models/{model:path}/split")
    async def set_split(model: str, weights: dict[str, float]) -> dict[str, Any]:
        """Other shares, in every relay at once. Versions that are not named get none."""
        return {"split": await control.set_split(model, weights)}

    @router.post("/models/{model:path}/versions", status_code=202)
    async def load_version(model: str, asked: LoadRequest) -> dict[str, Any]:
        """Load one more version; returns at once. It gets traffic by name only, or all of the one that it replaces."""
        data = asked.model_extra or {}
        return {"id": await control.add_version(model, data, asked.replaces)}

    @router.delete("/models/{model:path}/versions/{version}", status_code=202)
    async def unload_version(model: str, version: str) -> dict[str, Any]:
        """Serve a version no longer; its engines end with their last answer."""
        return {"id": await control.remove_version(model, version)}

    @router.post("/models/{model:path}/versions/{version}/adapters")
    async def mount_adapter(model: str, version: str, asked: MountRequest) -> dict[str, Any]:
        """Mount an adapter, in the place of one of its name; no engine is started anew and no request notices."""
        return {"id": await control.set_adapter(model, version, asked.name, _read_place(asked.path))}

    @router.delete("/models/{model:path}/versions/{version}/adapters/{name}")
    async def take_adapter_away(model: str, version: str, name: str) -> dict[str, Any]:
        """Take an adapter away: the next request for it gets a 404, those under way end in order."""
        return {"id": await control.set_adapter(model, version, name, None)}

    return router


def _read_place(path: str) -> Path | SourceAddress:
    if is_address(path):
        try:
            return parse_address(path)
        except ValueError as error:
            raise BadRequest(f"The path of an adapter {error}.", param="path") from error
    if not Path(path).is_absolute():
        raise BadRequest("The path of an adapter must begin at the root of the gateway's machine.", param="path")
    return Path(path)
