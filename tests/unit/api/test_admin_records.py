from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_records import build_router
from gateway.api.failures import add_error_answers
from gateway.control.runner import Runner
from gateway.control.standing import Standing
from gateway.state import Batch, Event
from gateway.state.sqlite import SqliteStore
from gateway.telemetry.observations import Usage


class Bench:
    def __init__(self) -> None:
        self.store = SqliteStore(None)
        self.runner = Runner(self.store, "here", Standing, [])
        app = FastAPI()
        add_error_answers(app)
        app.include_router(build_router(self.store, self.runner))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.client:
        yield made
    await made.store.close()


async def test_events_are_read_newest_first_and_in_pages(bench: Bench) -> None:
    for number in range(3):
        event = Event("split", f"text {number}", "m" if number else "n", 5.0, {"a": 1})
        await bench.store.commit(number, {}, [event])
    found = (await bench.client.get("/events", params={"limit": 2})).json()["events"]
    assert [one["text"] for one in found] == ["text 2", "text 1"]
    assert (found[0]["kind"], found[0]["model"], found[0]["at"], found[0]["details"]) == ("split", "m", 5.0, {"a": 1})
    later = (await bench.client.get("/events", params={"before": found[-1]["number"]})).json()["events"]
    assert [one["text"] for one in later] == ["text 0"]
    assert len((await bench.client.get("/events", params={"model": "m"})).json()["events"]) == 2


async def test_usage_is_read_from_a_day_on(bench: Bench) -> None:
    days = [Usage("anna", "m", "v1", 1, 0, 3, 4, cost=0.5, day=f"2026-01-0{day}") for day in (1, 2)]
    await bench.store.tell(Batch("b", usage=days))
    found = (await bench.client.get("/usage", params={"since": "2026-01-02"})).json()["usage"]
    assert found == [
        {"caller": "anna", "model": "m", "version": "v1", "requests": 1, "failed": 0, "tokens_in": 3, "tokens_out": 4,
         "estimated_in": 0, "estimated_out": 0, "cost": 0.5, "day": "2026-01-02"}]  # fmt: skip
    assert len((await bench.client.get("/usage")).json()["usage"]) == 2


async def test_gateways_are_shown_with_the_one_that_acts(bench: Bench) -> None:
    bench.runner.gateways = {"there": Standing(["m:v1"], acts=True), "here": Standing(["m:v1"], ["m:v1"], [], ["m:v1"])}
    assert (await bench.client.get("/gateways")).json()["gateways"] == [
        {"name": "here", "acts": False, "served": ["m:v1"], "ready": ["m:v1"], "failed": [], "up": ["m:v1"]},
        {"name": "there", "acts": True, "served": ["m:v1"], "ready": [], "failed": [], "up": []},
    ]


@pytest.mark.parametrize("query", ["events?limit=0", "events?limit=9999", "events?before=x", "usage?since=yesterday"])
async def test_what_makes_no_sense_is_refused(bench: Bench, query: str) -> None:
    answer = await bench.client.get(f"/{query}")
    assert (answer.status_code, "error" in answer.json()) == (400, True)
