"""The public port's routes that are not relayed: models, feedback, and 404 for everything else."""

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from gateway.api.auth import KeyRing
from gateway.api.failures import add_error_answers, describe_faults
from gateway.errors import BadRequest, BodyTooLarge, StateUnavailable, UnknownModel
from gateway.traffic.routes import ModelRoute, RouteBoard

_LONGEST_FEEDBACK_BYTES = 16 * 1024

GiveFeedback = Callable[[str, str, float, str], Awaitable[dict[str, Any]]]
"""Keeps what a caller says of a request: its id, the metric, the value and the caller's name, see `FeedbackDesk`."""


class FeedbackRequest(BaseModel):
    """What a client says of a request: a number, or true and false for 1 and 0."""

    model_config = ConfigDict(extra="forbid")

    request_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    metric: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    value: float


def build_public_app(board: RouteBoard, give_feedback: GiveFeedback, keys: KeyRing | None = None) -> FastAPI:
    """The app behind the lean lane. With `keys`, every route of it needs one."""

    async def check_key(request: Request) -> str:
        return keys.check(dict(reversed(request.headers.raw))).name if keys is not None else ""

    app = FastAPI(title="gateway", dependencies=[Depends(check_key)], docs_url=None, redoc_url=None, openapi_url=None)
    add_error_answers(app)

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(_cards(board).values())}

    @app.get("/v1/metadata")
    async def show_metadata() -> dict[str, Any]:
        """What is served, by the digests of its files; the form is NIM's, of which we leave some fields empty."""
        return {
            "version": importlib.metadata.version("nim-gateway"),
            "assetInfo": [],
            "modelInfo": list(_list_digests(board)),
            "repository_override": "",
            "selectedModelProfileId": "",
        }

    @app.post("/v1/feedback")
    async def take_feedback(request: Request, caller: Annotated[str, Depends(check_key)]) -> dict[str, Any]:
        """Keep what a client says of a request that it made; the answer means that it is kept."""
        asked = await _read_feedback(request)  # by hand: FastAPI would read any length, and before the key is checked
        try:
            return await give_feedback(asked.request_id, asked.metric, asked.value, caller)
        except asyncio.CancelledError:  # by uvicorn, when the gateway ends and does not wait longer: it would say 500
            raise StateUnavailable("The gateway ends: send the feedback again.", retry_after_s=5) from None

    @app.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        cards = _cards(board)
        if name not in cards:
            raise UnknownModel(
                f"The model {name[:200]!r} does not exist. Ask for one of: {', '.join(cards)}.", param="model"
            )
        return cards[name]

    return app


async def _read_feedback(request: Request) -> FeedbackRequest:
    """Raises BodyTooLarge, and BadRequest for what is no feedback."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_FEEDBACK_BYTES:
            raise BodyTooLarge(f"Feedback is longer than {_LONGEST_FEEDBACK_BYTES // 1024} KiB: send a number.")
    try:
        return FeedbackRequest.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(f"This is no feedback: {describe_faults(error.errors())}.") from error


def _list_digests(board: RouteBoard) -> Iterator[dict[str, str]]:
    for model in board.routes.models.values():
        for one in model.versions.values():
            name = f"{model.name}:{one.name}"
            for adapter, digest in sorted(one.digests.items()):
                short_name = f"{name}+{adapter}" if adapter else name
                yield {"shortName": short_name, "modelUrl": "", "digest": f"sha256:{digest}"}


def _cards(board: RouteBoard) -> dict[str, dict[str, Any]]:
    """Every id a client may ask for, with its card in the form OpenAI and vLLM clients read."""
    cards: dict[str, dict[str, Any]] = {}
    for model in board.routes.models.values():
        lengths = [version.max_model_len for version in model.versions.values() if version.max_model_len]
        cards[model.name] = _card(model.name, model, None, min(lengths, default=None))
        for version in model.versions.values():
            name = f"{model.name}:{version.name}"
            cards[name] = _card(name, model, model.name, version.max_model_len)
            for adapter in sorted(version.adapters):
                cards[f"{name}+{adapter}"] = _card(f"{name}+{adapter}", model, name, version.max_model_len)
    return cards


def _card(name: str, model: ModelRoute, parent: str | None, max_model_len: int | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "gateway",
        "root": model.name,
        "parent": parent,
        "max_model_len": max_model_len,
    }
