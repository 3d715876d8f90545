"""Of the admin port: the keys that clients may show."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.control.keys import Keys


class KeyRequest(BaseModel):
    """A key to be made. Requests with one that may not pin cannot choose the version that answers."""

    model_config = ConfigDict(extra="forbid")

    name: str
    may_pin: bool = True


def build_router(keys: Keys) -> APIRouter:
    """The routes under `/keys`."""
    router = APIRouter()

    @router.get("/keys")
    async def list_keys() -> dict[str, Any]:
        """The keys that are known, by name."""
        return {"keys": keys.describe()}

    @router.post("/keys", status_code=201)
    async def make_key(asked: KeyRequest) -> dict[str, Any]:
        """Make a key. Nobody is shown it again."""
        return {"name": asked.name, "key": await keys.make(asked.name, may_pin=asked.may_pin)}

    @router.delete("/keys/{name}")
    async def remove_key(name: str) -> dict[str, Any]:
        """Let nobody in by this key any more."""
        await keys.remove(name)
        return {"name": name}

    return router
