import asyncio
import hashlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import httpx
import pytest

from gateway.api.auth import KeyRing
from gateway.api.openai import build_public_app
from gateway.errors import NotFound
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import Caller, ModelRoute, RouteBoard, Routes, VersionRoute
from gateway.traffic.split import Split

VERSIONS = {
    "v1": VersionRoute("v1", max_model_len=1024),
    "v2": VersionRoute(
        "v2", adapters={"mirror": "shapes:v2+mirror"}, max_model_len=2048, digests={"": "aa", "mirror": "bb"}
    ),
}
ROUTES = Routes(
    {
        "org/shapes": ModelRoute(
            "org/shapes", VERSIONS, Split.over("s", Allocation.divide({"v1": 1.0})), (), 1_700_000_000
        )
    }
)


async def give_feedback(request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
    if request_id == "none":
        raise NotFound("No request of this id is known.", param="request_id")
    return {"request_id": request_id, "metric": metric, "value": value, "caller": caller}


async def test_feedback_that_the_end_of_the_gateway_cuts_off_may_be_sent_again() -> None:
    asked = asyncio.Event()

    async def wait_for_ever(request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    transport = httpx.ASGITransport(build_public_app(RouteBoard(ROUTES), wait_for_ever))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        body = {"request_id": "r1", "metric": "thumb", "value": 1}
        giving = asyncio.ensure_future(client.post("/v1/feedback", json=body))
        await asked.wait()
        giving.cancel()  # as uvicorn does with what runs too long at its end
        assert (await giving).status_code == 503


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = build_public_app(RouteBoard(ROUTES), give_feedback)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def test_every_name_a_client_may_ask_for_is_listed(client: httpx.AsyncClient) -> None:
    cards = (await client.get("/v1/models")).json()["data"]
    assert [(card["id"], card["parent"], card["max_model_len"]) for card in cards] == [
        ("org/shapes", None, 1024),
        ("org/shapes:v1", "org/shapes", 1024),
        ("org/shapes:v2", "org/shapes", 2048),
        ("org/shapes:v2+mirror", "org/shapes:v2", 2048),
    ]
    assert {card["object"] for card in cards} == {"model"}


async def test_what_is_served_is_told_by_digests(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/metadata")).json()
    assert told["version"] == version("nim-gateway")
    assert told["modelInfo"] == [
        {"shortName": "org/shapes:v2", "modelUrl": "", "digest": "sha256:aa"},
        {"shortName": "org/shapes:v2+mirror", "modelUrl": "", "digest": "sha256:bb"},
    ]


async def test_one_model_is_shown(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/org/shapes:v2%2Bmirror")).json()["id"] == "org/shapes:v2+mirror"


async def test_an_unknown_model_is_a_404_that_names_the_known_ones(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models/other")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "org/shapes:v1" in answer.json()["error"]["message"]


def with_keys() -> httpx.AsyncClient:
    app = build_public_app(
        RouteBoard(ROUTES), give_feedback, KeyRing({hashlib.sha256(b"key").hexdigest(): Caller("team")})
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org/shapes", "/v1/metadata"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"x-api-key": "other"}])
async def test_where_keys_are_asked_for_each_route_needs_one(path: str, headers: dict[str, str]) -> None:
    answer = await with_keys().get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["x-gateway-error-origin"] == "gateway"
    assert "shapes" not in answer.text


@pytest.mark.parametrize("headers", [{"authorization": "Bearer key"}, {"x-api-key": "key"}])
async def test_a_known_key_opens_every_route(headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/v1/models/org/shapes"):
        assert (await with_keys().get(path, headers=headers)).status_code == 200


async def test_of_two_keys_the_first_counts() -> None:
    headers = [("x-api-key", "other"), ("x-api-key", "key")]
    assert (await with_keys().get("/v1/models", headers=headers)).status_code == 401


async def test_an_unknown_route_is_a_404_in_the_one_shape(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/none")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (0.25, 0.25), (True, 1.0), (False, 0.0)])
async def test_feedback_is_taken(client: httpx.AsyncClient, value: object, number: float) -> None:
    answer = await client.post("/v1/feedback", json={"request_id": "r1", "metric": "thumb", "value": value})
    assert answer.status_code == 200
    assert answer.json() == {"request_id": "r1", "metric": "thumb", "value": number, "caller": ""}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"request_id": "none", "metric": "thumb", "value": 1}, 404),
        ({"request_id": "", "metric": "thumb", "value": 1}, 400),
        ({"request_id": "x" * 300, "metric": "thumb", "value": 1}, 400),
        ({"request_id": "r1", "metric": "thumb"}, 400),
        ({"request_id": "r1", "metric": "thumb", "value": "good"}, 400),
        ({"request_id": "r1", "metric": "thumb", "value": None}, 400),
        ({"request_id": 7, "metric": "thumb", "value": 1}, 400),
        ({"request_id": "r1", "metric": "thumb", "value": 1, "comment": "hm"}, 400),
        ([], 400),
        (None, 400),
    ],
)
async def test_feedback_that_cannot_be_taken_is_refused(client: httpx.AsyncClient, body: object, status: int) -> None:
    answer = await client.post("/v1/feedback", json=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_feedback_is_short_and_its_key_is_checked_first() -> None:
    pulled = 0

    async def give_much() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield b"x" * 1024

    async with with_keys() as client:
        answer = await client.post("/v1/feedback", content=give_much())
        assert (answer.status_code, pulled) == (401, 0)
        assert (await client.post("/v1/feedback", content=b"{")).status_code == 401
        answer = await client.post("/v1/feedback", content=give_much(), headers={"x-api-key": "key"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_feedback_is_given_under_the_name_of_its_key() -> None:
    keys = KeyRing({hashlib.sha256(b"key").hexdigest(): Caller("team")})
    app = build_public_app(RouteBoard(ROUTES), give_feedback, keys)
    body = {"request_id": "r1", "metric": "thumb", "value": 1}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        assert (await client.post("/v1/feedback", json=body)).status_code == 401
        answer = await client.post("/v1/feedback", json=body, headers={"authorization": "Bearer key"})
    assert answer.json()["caller"] == "team"
