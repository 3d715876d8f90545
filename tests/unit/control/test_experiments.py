from collections.abc import AsyncIterator

import pytest

from gateway.control.experiments import Experiments
from gateway.errors import BadRequest, NotFound, UnknownModel
from tests.support.control_bench import ControlBench, make_model


@pytest.fixture
async def bench() -> AsyncIterator[ControlBench]:
    made = ControlBench(make_model(split={"v1": 3, "v2": 1}, versions=3), make_model("alone", versions=1))
    await made.open()
    yield made
    await made.close()


async def test_versions_are_compared_with_the_one_that_has_the_most(bench: ControlBench) -> None:
    await bench.observe("v1", [False] * 300)
    await bench.observe("v2", [True] * 100)
    shown = await Experiments(bench.store, lambda: bench.control.serving).show("m")
    assert (shown["model"], shown["baseline"]) == ("m", "v1")
    assert shown["stage"]["shares"] == {"v1": 0.75, "v2": 0.25, "v3": 0}
    assert shown["versions"].keys() == {"v1", "v2"}, "v3 has no traffic"
    [errors] = [one for one in shown["comparisons"]["v2"] if one["metric"] == "error_rate"]
    assert (errors["estimate"], errors["verdict"]) == (1, "worse")
    other = await Experiments(bench.store, lambda: bench.control.serving).show("m", baseline="v2")
    assert other["comparisons"].keys() == {"v1"}


async def test_earlier_stages_may_be_looked_at(bench: ControlBench) -> None:
    experiments = Experiments(bench.store, lambda: bench.control.serving)
    await bench.observe("v2", [False] * 7)
    first = (await experiments.show("m"))["stage"]["number"]
    await bench.control.set_split("m", {"v1": 1, "v2": 1})
    await bench.observe("v2", [False] * 3)
    now = await experiments.show("m")
    assert [one["number"] for one in now["stages"]] == [first, now["stage"]["number"]]
    assert now["versions"]["v2"]["users"] == 3
    assert (await experiments.show("m", stage=first))["versions"]["v2"]["users"] == 7


async def test_what_is_not_there_is_said(bench: ControlBench) -> None:
    experiments = Experiments(bench.store, lambda: bench.control.serving)
    with pytest.raises(UnknownModel):
        await experiments.show("none")
    with pytest.raises(NotFound, match="two versions at least"):
        await experiments.show("alone")
    with pytest.raises(NotFound, match="no such stage"):
        await experiments.show("m", stage=5)
    with pytest.raises(BadRequest, match="v3 has no traffic in this stage: choose one of v1, v2"):
        await experiments.show("m", baseline="v3")
