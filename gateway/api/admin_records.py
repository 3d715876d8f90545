"""Of the admin port: what was done, what was used, and which gateways there are."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from gateway.control.runner import Runner
from gateway.state import Store

_MOST_EVENTS = 1000


def build_router(store: Store, runner: Runner) -> APIRouter:
    """The routes `/events`, `/usage` and `/gateways`."""
    router = APIRouter()

    @router.get("/events")
    async def list_events(
        limit: Annotated[int, Query(ge=1, le=_MOST_EVENTS)] = 100,
        before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
        model: str | None = None,
    ) -> dict[str, Any]:
        """What was changed and decided, newest first; those with a number below `before`, of one model."""
        return {"events": [msgspec.to_builtins(event) for event in await store.read_events(limit, before, model)]}

    @router.get("/usage")
    async def list_usage(
        since: Annotated[str, Query(pattern=r"^\d{4}-\d{2}-\d{2}$")] = "0000-00-00",
    ) -> dict[str, Any]:
        """What each caller has used of each version, by day (UTC), from a day on."""
        usage = await store.read_usage(since)
        return {"usage": [{name: getattr(one, name) for name in one.__struct_fields__} for one in usage]}

    @router.get("/gateways")
    async def list_gateways() -> dict[str, Any]:
        """The gateways that share the state, how the versions stand on each, and which one acts for all."""
        there = sorted(runner.gateways.items())
        return {"gateways": [{"name": name, **msgspec.to_builtins(standing)} for name, standing in there]}

    return router
