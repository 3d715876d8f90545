from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_models import build_router
from gateway.api.failures import add_error_answers
from gateway.errors import Conflict, StateUnavailable, UnknownModel


class FakeControl:
    """Says what it was asked to do, or refuses."""

    refusal: Exception | None = None

    def describe(self) -> list[dict[str, Any]]:
        return [{"name": "shapes"}]

    def read_split(self, model: str) -> dict[str, float]:
        return self._say({model: 1.0})

    async def set_split(self, model: str, weights: dict[str, float]) -> dict[str, float]:
        return self._say(weights)

    async def add_version(self, model: str, data: object, replaces: str | None) -> str:
        return self._say(f"{model} {data} {replaces}")

    async def remove_version(self, model: str, version: str) -> str:
        return self._say(f"{model}:{version}")

    async def set_adapter(self, model: str, version: str, adapter: str, place: object) -> str:
        return self._say(f"{model}:{version}+{adapter} {place!r}")

    def _say(self, said: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        return said


async def ask(method: str, path: str, body: object = None, refusal: Exception | None = None) -> httpx.Response:
    app, control = FastAPI(), FakeControl()
    control.refusal = refusal
    add_error_answers(app)
    app.include_router(build_router(control))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.request(method, path, json=body)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "answer"),
    [
        ("GET", "/models", None, 200, {"models": [{"name": "shapes"}]}),
        ("GET", "/models/org/m/split", None, 200, {"split": {"org/m": 1.0}}),
        ("PUT", "/models/m/split", {"v1": 9, "v2": 0.5}, 200, {"split": {"v1": 9.0, "v2": 0.5}}),
        ("POST", "/models/m/versions", {"name": "v2", "replaces": "v1"}, 202, {"id": "m {'name': 'v2'} v1"}),
        ("DELETE", "/models/org/m/versions/v1", None, 202, {"id": "org/m:v1"}),
        ("POST", "/models/m/versions/v1/adapters", {"name": "a", "path": "/a"}, 200, {"id": "m:v1+a PosixPath('/a')"}),
        ("DELETE", "/models/m/versions/v1/adapters/a", None, 200, {"id": "m:v1+a None"}),
    ],
)
async def test_what_is_asked_for_is_done(method: str, path: str, body: object, status: int, answer: Any) -> None:
    told = await ask(method, path, body)
    assert (told.status_code, told.json()) == (status, answer)


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(UnknownModel("no"), 404), (Conflict("no"), 409), (StateUnavailable("no", retry_after_s=5), 503)],
)
async def test_what_cannot_be_done_is_said(refusal: Exception, status: int) -> None:
    told = await ask("PUT", "/models/m/split", {"v1": 1}, refusal)
    assert (told.status_code, told.json()["error"]["message"]) == (status, "no")
    assert (status == 503) == ("retry-after" in told.headers)


@pytest.mark.parametrize("body", [{"v1": "x"}, [1], None, {"v1": None}])
async def test_shares_that_are_no_numbers_are_refused(body: object) -> None:
    assert (await ask("PUT", "/models/m/split", body)).status_code == 400


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/models/lora", 200, "PosixPath('/models/lora')"),
        ("hf://org/lora@v1", 200, "place='org/lora'"),
        ("lora", 400, "must begin at the root"),
        ("ftp://host/lora", 400, "The path of an adapter should be a folder, hf://ORG/NAME"),
        ("s3://key:secret@bucket/lora", 400, "should be s3://BUCKET/FOLDER"),
    ],
)
async def test_an_adapter_may_lie_here_or_elsewhere(path: str, status: int, said: str) -> None:
    answer = await ask("POST", "/models/shapes/versions/v1/adapters", {"name": "a", "path": path})
    assert answer.status_code == status
    assert said in answer.text
    assert "secret" not in answer.text
