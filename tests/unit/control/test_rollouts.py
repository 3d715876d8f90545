import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.control import rollouts as module
from gateway.control.rollouts import Rollouts
from gateway.errors import BadRequest, Conflict, NotFound, StateUnavailable, UnknownModel
from gateway.state import LeaseLost
from tests.support.control_bench import ControlBench, standing

UP = standing("m:v1", "m:v2")
DOWN = standing("m:v1")
PLAN = {
    "candidate": "v2",
    "steps": [10, 50, 100],
    "min_time_s": 60,
    "min_users": 20,
    "guards": {"error_rate": {"margin": 0.1}},
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench(ControlBench):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.clock = Clock()
        self.rollouts = Rollouts(self.control, self.mirror, self.store)

    async def start(self, **plan: Any) -> str:
        return await self.rollouts.start("m", PLAN | plan)

    async def tick(self, seconds: float = 0, *standings: Any) -> str:
        """Time passes as the runner has it, a second a look; returns the state."""
        for _ in range(max(1, round(seconds))):
            self.clock.now_s += min(seconds, 1)
            await self.rollouts.step(self.lease, standings or (UP,))
        return str(self.shown()["state"])

    async def crowd(self, users: int = 400, *, candidate_fails: bool = False) -> None:
        """New users come, and go to the versions by their shares."""
        ours = round(users * self.split["v2"])
        await self.observe("v1", [False] * (users - ours))
        await self.observe("v2", [candidate_fails] * ours)

    def shown(self) -> dict[str, Any]:
        return self.rollouts.show_all("m")[0]

    @property
    def split(self) -> dict[str, float]:
        return self.control.read_split("m")


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench()
    monkeypatch.setattr(module.time, "monotonic", made.clock)
    await made.open()
    yield made
    await made.close()


async def test_it_waits_for_its_candidate_to_be_ready_everywhere(bench: Bench) -> None:
    await bench.start()
    assert await bench.tick(5, UP, DOWN) == "waiting"
    assert bench.split == {"v1": 1, "v2": 0}
    assert await bench.tick(1, UP, UP) == "running"
    assert bench.split == {"v1": 0.9, "v2": 0.1}


async def test_a_candidate_that_cannot_be_served_changes_nothing(bench: Bench) -> None:
    await bench.start()
    assert await bench.tick(1, standing("m:v1", failed=("m:v2",))) == "rolled_back"
    assert bench.split == {"v1": 1, "v2": 0}
    assert "cannot be served" in bench.shown()["reason"]


async def test_it_goes_to_its_end_by_evidence_alone(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    for percent in (10, 50):
        assert bench.shown()["percent"] == percent
        await bench.crowd()
        assert await bench.tick(59) == "running"
        assert bench.shown()["percent"] == percent, "the least time is not over"
        await bench.tick(2)
    assert bench.shown()["state"] == "promoted"
    assert bench.split == {"v1": 0, "v2": 1}
    assert bench.shown()["ended"] == pytest.approx(time.time(), abs=60)
    assert await bench.kinds() == [f"rollout_{kind}" for kind in ("started", "step", "step", "promoted")]
    event = (await bench.store.read_events(1))[0]
    assert event.details["findings"][0]["verdict"] == "kept"
    assert event.details["findings"][0]["users"] == {"candidate": 240, "baseline": 560}
    await bench.tick(5)
    assert len(await bench.kinds()) == 4


async def test_a_candidate_may_be_loaded_by_its_rollout(bench: Bench) -> None:
    written = {"name": "v3", "engine": "simulated", "replicas": 2}
    await bench.start(candidate=written)
    assert bench.control.serving.find_version("m", "v3").replicas == 2
    assert (bench.shown()["plan"]["candidate"], bench.split) == ("v3", {"v1": 1, "v2": 0, "v3": 0})
    await bench.tick(1, standing("m:v1", "m:v3", served=("m:v1", "m:v3")))
    assert bench.split == {"v1": 0.9, "v2": 0, "v3": 0.1}
    await bench.rollouts.act("m", "r1", "abort")
    for candidate in (written, {"name": "v4"}, {"engine": "simulated"}, {"name": "v4", "engine": "simulated", "x": 1}):
        with pytest.raises((Conflict, BadRequest)):
            await bench.start(candidate=candidate)
    assert ("m", "v4") not in bench.control.serving.list_versions()


async def test_harm_takes_all_back_at_once(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    await bench.crowd(candidate_fails=True)
    assert await bench.tick(1) == "rolled_back"
    assert bench.split == {"v1": 1, "v2": 0}
    assert bench.shown()["reason"].startswith("error_rate worse by +1 [")
    bench.control.serving.require_free("m")


async def test_time_stands_still_while_nobody_looks_or_it_is_paused(bench: Bench) -> None:
    name = await bench.start()
    await bench.tick()
    await bench.crowd()
    await bench.tick(30)
    bench.clock.now_s += 10_000  # it slept, or its clock was set
    await bench.tick(29)
    assert bench.shown()["percent"] == 10
    await bench.rollouts.act("m", name, "pause")
    await bench.tick(100)
    assert (bench.shown()["state"], bench.shown()["percent"]) == ("paused", 10)
    await bench.rollouts.act("m", name, "resume")
    await bench.tick(15)
    assert bench.shown()["percent"] == 50


async def test_another_gateway_goes_on_where_it_was(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    await bench.crowd()
    await bench.tick(50)
    other = Bench(store=bench.store)
    other.clock = bench.clock
    await other.mirror.look()
    other.lease = bench.lease
    await other.tick(6)
    assert other.shown()["percent"] == 10, "at most five seconds are lost"
    await other.tick(10)
    assert other.shown()["percent"] == 50


async def test_whoever_has_lost_the_lease_moves_nothing(bench: Bench) -> None:
    await bench.start()
    await bench.store.release(bench.lease)
    with pytest.raises(LeaseLost):
        await bench.tick()
    assert (bench.shown()["state"], bench.split) == ("waiting", {"v1": 1, "v2": 0})


async def test_a_candidate_without_an_engine_is_given_a_minute(bench: Bench) -> None:
    await bench.start(max_unready_s=30)
    await bench.tick()
    assert await bench.tick(29, DOWN) == "running"
    assert await bench.tick(5, UP) == "running"
    assert await bench.tick(29, DOWN) == "running", "it counts from anew"
    assert await bench.tick(5, DOWN) == "rolled_back"
    assert "no ready engine" in bench.shown()["reason"]


async def test_a_person_has_the_last_word(bench: Bench) -> None:
    name = await bench.start()
    with pytest.raises(Conflict, match=rf"The rollout {name} moves"):
        await bench.start()
    with pytest.raises(Conflict, match="one cannot promote it now"):
        await bench.rollouts.act("m", name, "promote")
    await bench.tick()
    assert (await bench.rollouts.act("m", name, "promote"))["state"] == "promoted"
    assert bench.split == {"v1": 0, "v2": 1}
    for act in ("pause", "resume", "abort", "promote"):
        with pytest.raises(Conflict):
            await bench.rollouts.act("m", name, act)


async def test_aborted_shares_are_as_before(bench: Bench) -> None:
    name = await bench.start()
    await bench.tick()
    await bench.rollouts.act("m", name, "abort")
    assert bench.split == {"v1": 1, "v2": 0}
    second = await bench.start()
    assert second != name
    assert [one["id"] for one in bench.rollouts.show_all("m")] == [second, name]


async def test_it_shows_how_guards_stand_and_how_long_it_may_take(bench: Bench) -> None:
    name = await bench.start()
    assert "findings" not in await bench.rollouts.show("m", name)
    await bench.tick()
    await bench.crowd(300)
    await bench.tick(11)
    shown = await bench.rollouts.show("m", name)
    assert (shown["users"], shown["reason"]) == (30, "50 s of this step's least time are left")
    assert shown["findings"][0]["verdict"] in ("open", "kept")
    assert shown["seconds_to_decision"].keys() == {"error_rate"}
    for model, rollout in (("m", "r9"), ("n", name)):
        with pytest.raises((NotFound, UnknownModel)):
            await bench.rollouts.show(model, rollout)


async def test_only_the_latest_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    for _ in range(5):
        name = await bench.start()
        await bench.tick()
        await bench.rollouts.act("m", name, "abort")
    assert [one["id"] for one in bench.rollouts.show_all("m")] == ["r5", "r4", "r3"]
    assert not [name for name in bench.mirror.snapshot.documents if name.startswith("past/r1/")]


async def test_without_the_state_nothing_begins(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*asked: object) -> None:
        raise StateUnavailable("away")

    monkeypatch.setattr(bench.store, "commit", fail)
    with pytest.raises(StateUnavailable):
        await bench.start()
    assert bench.rollouts.show_all("m") == []
