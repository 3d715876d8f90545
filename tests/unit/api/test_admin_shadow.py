from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_shadow import build_router
from gateway.api.failures import add_error_answers
from gateway.control.experiments import Experiments
from gateway.telemetry.observations import Copied, Observed, Texts
from tests.support.control_bench import ControlBench, make_model

PATH = "/models/a/m/shadow"


class Bench(ControlBench):
    def __init__(self) -> None:
        super().__init__(make_model("a/m"))
        app = FastAPI()
        add_error_answers(app)
        app.include_router(build_router(self.control, Experiments(self.store, lambda: self.control.serving)))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.open()
    async with made.client:
        yield made
    await made.close()


async def test_a_shadow_is_set_shown_and_ended(bench: Bench) -> None:
    assert (await bench.client.get(PATH)).json() == {"model": "a/m", "shadow": None}
    asked = {"version": "v2", "percent": 5, "keep_texts": True}
    full = asked | {"concurrency": 4, "cross_score": False}
    assert (await bench.client.put(PATH, json=asked)).json() == {"shadow": full}
    assert (await bench.client.get(PATH)).json()["shadow"] == full | {"against": {}}
    shadow = bench.board.routes.models["a/m"].shadow
    assert shadow is not None
    values = {"primary/failed": 0.0, "shadow/failed": 1.0, "change/failed": 1.0}
    texts = Texts("which?", "a", "")
    bench.evidence.take(Observed(copies=[Copied("r1", "a/m", "v1", "v2", shadow.stage, 1, values, texts)]))
    await bench.evidence.write()
    found = (await bench.client.get(PATH)).json()["shadow"]["against"]["v1"]
    assert (found["copies"], found["numbers"]["failed"]["shadow"]) == (1, 1)
    [kept] = (await bench.client.get(f"{PATH}/texts")).json()["texts"]
    assert (kept["request_id"], kept["texts"]) == ("r1", {"question": "which?", "primary": "a", "shadow": ""})
    assert (await bench.client.delete(PATH)).json() == {"shadow": None}
    assert (await bench.client.get(f"{PATH}/texts")).json() == {"texts": []}, "from now on, whatever is stored yet"
    assert bench.board.routes.models["a/m"].shadow is None
    assert await bench.kinds() == ["shadow", "shadow"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"version": "v9", "percent": 5}, "has no version 'v9', but v1, v2"),
        ({"version": "v2", "percent": 101}, "percent"),
        ({"version": "v2", "percent": -1}, "percent"),
        ({"version": "v2"}, "percent"),
        ({"version": "v2", "percent": 5, "concurrency": 0}, "concurrency"),
        ({"version": "v2", "percent": 5, "speed": 1}, "speed"),
    ],
)
async def test_what_cannot_be_is_refused(bench: Bench, asked: dict[str, object], said: str) -> None:
    refused = await bench.client.put(PATH, json=asked)
    assert (refused.status_code, said in refused.text) == (400, True), refused.text
    assert bench.control.serving.shadows == {}


async def test_a_model_that_is_not_served_has_no_shadow(bench: Bench) -> None:
    for method, path in (("GET", ""), ("GET", "/texts"), ("DELETE", "")):
        assert (await bench.client.request(method, f"/models/none/shadow{path}")).status_code == 404
