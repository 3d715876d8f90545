"""The admin port: what is served and in which state."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response

from gateway.api.failures import add_error_answers
from gateway.control.control import Control
from gateway.errors import Unauthorized
from gateway.telemetry.metrics import CONTENT_TYPE


def build_admin_app(control: Control, read_metrics: Callable[[], Awaitable[bytes]], key: str | None) -> FastAPI:
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

    @app.get("/admin/v1/models")
    async def list_models() -> dict[str, Any]:
        """Models, versions, split, and the state of every engine."""
        return {"models": control.describe()}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """What the relays have done, for Prometheus."""
        return Response(await read_metrics(), media_type=CONTENT_TYPE)

    return app
