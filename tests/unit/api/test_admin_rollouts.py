from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_rollouts import build_router
from gateway.api.failures import add_error_answers
from gateway.control.experiments import Experiments
from gateway.control.rollouts import Rollouts
from tests.support.control_bench import ControlBench, make_model, standing


class Bench(ControlBench):
    def __init__(self) -> None:
        super().__init__(make_model("a/m"))
        self.rollouts = Rollouts(self.control, self.mirror, self.store)
        experiments = Experiments(self.store, lambda: self.control.serving)
        app = FastAPI()
        add_error_answers(app)
        app.include_router(build_router(self.rollouts, experiments))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.open()
    async with made.client:
        yield made
    await made.close()


async def test_a_rollout_is_started_listed_shown_and_ended(bench: Bench) -> None:
    path = "/models/a/m/rollouts"
    started = await bench.client.post(path, json={"candidate": "v2"})
    assert (started.status_code, started.json()) == (202, {"id": "r1"})
    assert [one["id"] for one in (await bench.client.get(path)).json()["rollouts"]] == ["r1"]
    shown = (await bench.client.get(f"{path}/r1")).json()
    assert (shown["state"], shown["plan"]["baseline"]) == ("waiting", "v1")
    await bench.rollouts.step(bench.lease, [standing("a/m:v1", "a/m:v2", served=("a/m:v1", "a/m:v2"))])
    paused = await bench.client.post(f"{path}/r1/pause")
    assert (paused.status_code, paused.json()["state"], paused.json()["percent"]) == (200, "paused", 1)
    shown = (await bench.client.get(f"{path}/r1")).json()
    assert shown["findings"][0] | {"text": ""} == {
        "metric": "error_rate", "is_goal": False, "verdict": "open", "margin": 0.005, "harm": None, "low": -1,
        "high": 1, "users": {"candidate": 0, "baseline": 0}, "text": "",
    }  # fmt: skip
    assert (await bench.client.post(f"{path}/r1/abort")).json()["state"] == "aborted"


async def test_what_cannot_be_is_refused(bench: Bench) -> None:
    path = "/models/a/m/rollouts"
    refused = await bench.client.post(path, json={"candidate": "v7"})
    assert (refused.status_code, "has no version 'v7'" in refused.text) == (400, True)
    assert (await bench.client.post(path, json=["v2"])).status_code == 400
    assert (await bench.client.post("/models/b/rollouts", json={"candidate": "v2"})).status_code == 404
    assert (await bench.client.get(f"{path}/r9")).status_code == 404
    await bench.client.post(path, json={"candidate": "v2"})
    assert (await bench.client.post(path, json={"candidate": "v2"})).status_code == 409
    assert (await bench.client.post(f"{path}/r1/resume")).status_code == 409
    flown = await bench.client.post(f"{path}/r1/fly")
    assert (flown.status_code, "One cannot fly a rollout" in flown.text) == (404, True)


async def test_an_experiment_is_asked_for_by_its_baseline_and_stage(bench: Bench) -> None:
    alone = (await bench.client.get("/models/a/m/experiment")).json()
    assert (alone["versions"].keys(), alone["comparisons"]) == ({"v1"}, {})
    await bench.control.set_split("a/m", {"v1": 1, "v2": 1})
    await bench.observe("v1", [False] * 5, model="a/m")
    shown = (await bench.client.get("/models/a/m/experiment", params={"baseline": "v2", "alpha": 0.1})).json()
    assert (shown["baseline"], shown["alpha"], shown["versions"]["v1"]["users"]) == ("v2", 0.1, 5)
    for query in ({"alpha": "0"}, {"alpha": "2"}, {"baseline": "v9"}, {"stage": "x"}):
        assert (await bench.client.get("/models/a/m/experiment", params=query)).status_code == 400
    assert (await bench.client.get("/models/a/m/experiment", params={"stage": 77})).status_code == 404
