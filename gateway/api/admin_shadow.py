"""Of the admin port: shadows, which get copies of requests."""

from typing import Any

from fastapi import APIRouter

from gateway.control.control import Control
from gateway.control.experiments import Experiments
from gateway.settings import ShadowSettings


def build_router(control: Control, experiments: Experiments) -> APIRouter:
    """The routes under `/models/{m}/shadow`."""
    router = APIRouter()

    @router.get("/models/{model:path}/shadow")
    async def show_shadow(model: str) -> dict[str, Any]:
        """Who gets copies, and how its answers compare with those that clients got."""
        return await experiments.show_shadow(model)

    @router.get("/models/{model:path}/shadow/texts")
    async def list_texts(model: str) -> dict[str, Any]:
        """The latest questions with both answers, newest first, where they are kept."""
        return {"texts": await experiments.list_texts(model)}

    @router.put("/models/{model:path}/shadow")
    async def set_shadow(model: str, asked: ShadowSettings) -> dict[str, Any]:
        """Have another version get copies of so many requests."""
        await control.set_shadow(model, asked)
        return {"shadow": asked.model_dump()}

    @router.delete("/models/{model:path}/shadow")
    async def end_shadow(model: str) -> dict[str, Any]:
        """Copy no request any more. Numbers that were measured are kept, texts are not."""
        await control.set_shadow(model, None)
        return {"shadow": None}

    return router
