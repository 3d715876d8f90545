"""The admin port: who answers there for what, and who may ask."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict

from gateway.api import admin_explain, admin_keys, admin_models, admin_records, admin_rollouts, admin_shadow
from gateway.api.failures import add_error_answers
from gateway.control.control import Control
from gateway.control.experiments import Experiments
from gateway.control.keys import Keys
from gateway.control.rollouts import Rollouts
from gateway.control.runner import Runner
from gateway.errors import Unauthorized
from gateway.state import Store
from gateway.telemetry.metrics import CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Desk:
    """Who answers for what: `control` for what is served, the `store` for what was.

    `reload` reads the settings file again and returns what comes of it, in words for people.
    """

    control: Control
    keys: Keys
    rollouts: Rollouts
    experiments: Experiments
    runner: Runner
    store: Store
    reload: Callable[..., Awaitable[dict[str, Any]]]


class ReloadRequest(BaseModel):
    """With `reset`, what was changed at run time is forgotten: the file alone counts."""

    model_config = ConfigDict(extra="forbid")

    reset: bool = False


def build_admin_app(desk: Desk, read_metrics: Callable[[], Awaitable[bytes]], key: str | None) -> FastAPI:
    """The admin app; with a `key`, every call needs it as a bearer token. `read_metrics` gives Prometheus' text."""

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
    for router in (
        admin_models.build_router(desk.control),
        admin_keys.build_router(desk.keys),
        admin_shadow.build_router(desk.control, desk.experiments),
        admin_rollouts.build_router(desk.rollouts, desk.experiments),
        admin_records.build_router(desk.store, desk.runner),
        admin_explain.build_router(desk.control),
    ):
        app.include_router(router, prefix="/admin/v1")

    @app.post("/admin/v1/reload", status_code=202)
    async def reload(asked: ReloadRequest | None = None) -> dict[str, Any]:
        """Serve what the settings file says by now, without dropping a request."""
        return await desk.reload(is_reset=asked is not None and asked.reset)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """What the relays have done, for Prometheus."""
        return Response(await read_metrics(), media_type=CONTENT_TYPE)

    return app
