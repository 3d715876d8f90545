import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_explain import build_router
from gateway.api.failures import add_error_answers
from gateway.fleet.replica import Replica
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import Caller, ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split


def routes(out: tuple[str, ...] = (), routing: str = "least_loaded", replicas: int = 1) -> Routes:
    ready = tuple(Replica(f"v1-{number}", "m", "v1", f"unix:///{number}", "m") for number in range(replicas))
    versions = {"v1": VersionRoute("v1", ready, routing=routing), "v2": VersionRoute("v2", state="failed")}
    split = Split.over("m", Allocation.divide({"v1": 0.75, "v2": 0.25}), out)
    callers = {"ab": Caller("bound", may_pin=False)}
    return Routes({"m": ModelRoute("m", versions, split, ("header:x-session-id", "user"))}, callers)


async def explain(known: Routes, **asked: Any) -> httpx.Response:
    app = FastAPI()
    add_error_answers(app)
    control: Any = type("FakeControl", (), {"routes": known})
    app.include_router(build_router(control))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.post("/explain", content=json.dumps(asked), headers={"content-type": "application/json"})


def find_user(version: str) -> str:
    split = routes().models["m"].split
    return next(f"u{n}" for n in range(100) if split.find_own(b"user=u%d" % n) == version)


async def test_a_user_is_told_his_version_and_why() -> None:
    told = (await explain(routes(), body={"model": "m", "user": find_user("v1")})).json()
    assert (told["version"], told["how"], told["sticky_by"], told["replica"]) == ("v1", "split", "user", "v1-0")
    assert told["why"] == "its user, known by user, is one of the 75.0000% of v1"
    assert told["split"] == {"v1": 0.75, "v2": 0.25}
    assert 0 <= told["point"] < 0.75
    assert told["replica_why"] == "it is the only one"


async def test_who_stands_in_is_told() -> None:
    told = (await explain(routes(("v2",)), body={"model": "m", "user": find_user("v2")})).json()
    assert (told["version"], told["own_version"], told["how"]) == ("v1", "v2", "stand_in")
    assert told["why"].endswith("one of the 25.0000% of v2, which has no ready engine: v1 stands in for it")


async def test_pins_and_names_are_told() -> None:
    by_header = (await explain(routes(), body={"model": "m"}, headers={"X-Gateway-Version": "v2"})).json()
    assert (by_header["version"], by_header["why"]) == ("v2", "the header x-gateway-version asks for v2")
    assert (by_header["replica"], by_header["replica_why"]) == (None, "no engine is ready (failed)")
    by_name = (await explain(routes(), body={"model": "m:v1"})).json()
    assert (by_name["how"], by_name["why"], "split" in by_name) == ("name", "the name of the model asks for v1", False)


@pytest.mark.parametrize("routing", ["least_loaded", "round_robin", "session_affinity", "prefix_affinity"])
async def test_of_several_replicas_the_policy_is_told(routing: str) -> None:
    told = (await explain(routes(routing=routing, replicas=2), body={"model": "m:v1"})).json()
    assert (told["replica"], told["replicas"]) == (None, ["v1-0", "v1-1"])
    assert len(told["replica_why"]) > 10


async def test_a_key_that_may_not_pin_is_told_so() -> None:
    answer = await explain(routes(), body={"model": "m:v1"}, caller="bound")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_allowed")
    assert (await explain(routes(), body={"model": "m:v1"}, caller="other")).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"body": {"model": "x"}}, 404),
        ({"body": {"model": 5}}, 400),
        ({"body": []}, 400),
        ({}, 400),
        ({"body": {}, "user": "anna"}, 400),
        ({"body": {"model": "m\ud800"}}, 400),
        ({"body": {"model": "m"}, "headers": {"x": "\udfff"}}, 400),
        ({"body": {"model": "m"}, "headers": {"\udfff": "x"}}, 400),
    ],
)
async def test_a_request_that_means_nothing_is_refused(asked: dict[str, Any], status: int) -> None:
    assert (await explain(routes(), **asked)).status_code == status
