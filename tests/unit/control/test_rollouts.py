import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.control import rollout_record
from gateway.control import rollouts as module
from gateway.control.mirror import Decision
from gateway.control.rollout_record import Rollout
from gateway.control.rollouts import Rollouts
from gateway.control.standing import Standing
from gateway.errors import BadRequest, Conflict, NotFound, StateUnavailable, UnknownModel
from gateway.settings import ModelSettings
from gateway.state import LeaseLost
from tests.support.control_bench import ControlBench, make_model, standing

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
    def __init__(self, *models: ModelSettings, **options: Any) -> None:
        super().__init__(*models, **options)
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


async def test_no_step_is_taken_while_the_candidate_cannot_answer(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    await bench.crowd()
    await bench.tick(59)
    assert await bench.tick(10, DOWN) == "running"
    assert (bench.shown()["step"], bench.shown()["reason"]) == (0, "v2 has no ready engine")
    assert (await bench.rollouts.show("m", "r1"))["reason"] == "v2 has no ready engine"
    await bench.tick()
    assert bench.shown()["step"] == 1


async def test_users_that_others_have_answered_meanwhile_are_no_riddle(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    await bench.observe("v1", [False] * 900)
    await bench.observe("v2", [False] * 25)  # of 100
    await bench.tick(70)
    assert (bench.shown()["step"], "something loses some" in bench.shown()["reason"]) == (0, True)
    here, there = UP, Standing(["m:v1", "m:v2"], ["m:v1"], [], ["m:v1"])
    await bench.tick(1, here, there)
    bench.rollouts = Rollouts(bench.control, bench.mirror, bench.store)  # whoever goes on knows of it too
    await bench.tick()
    assert (bench.shown()["step"], bench.shown()["was_out"]) == (1, False), "the next step begins anew"


async def test_one_engine_of_several_is_enough_to_go_on(bench: Bench) -> None:
    await bench.start(max_unready_s=30)
    await bench.tick()
    half = Standing(["m:v1", "m:v2"], ["m:v1"], [], ["m:v1", "m:v2"])
    assert await bench.tick(40, half, DOWN) == "running"


async def test_what_is_down_as_a_whole_is_not_the_candidates_fault(bench: Bench) -> None:
    await bench.start(max_unready_s=30)
    await bench.tick()
    assert await bench.tick(5, UP) == "running"
    assert await bench.tick(100, standing()) == "running"


async def test_engines_that_a_gateway_starts_for_the_first_time_may_take_theirs(bench: Bench) -> None:
    await bench.start(max_unready_s=30)
    await bench.tick()
    assert await bench.tick(5, UP) == "running"
    bench.rollouts = Rollouts(bench.control, bench.mirror, bench.store)  # the gateway was started anew
    assert await bench.tick(100, DOWN) == "running"
    assert await bench.tick(1, UP) == "running"
    assert await bench.tick(32, DOWN) == "rolled_back"


async def test_what_is_served_may_change_within_a_step(bench: Bench) -> None:
    name = await bench.start()
    await bench.tick()
    await bench.crowd()
    first = bench.control.serving.stages["m"]
    await bench.control.change(lambda serving: serving.set_adapter("m", "v2", "mirror", "/m"))
    await bench.tick()
    assert bench.shown()["stages"] == [first, bench.control.serving.stages["m"]]
    await bench.crowd(candidate_fails=True)
    assert await bench.tick(1) == "rolled_back", "what was measured after it counts"
    assert (await bench.rollouts.show("m", name))["findings"][0]["users"] == {"candidate": 80, "baseline": 720}
    assert (await bench.kinds()).count("rollout_changed") == 1


async def test_a_stage_that_comes_again_counts_once(bench: Bench) -> None:
    await bench.start()
    await bench.tick()
    await bench.crowd()
    first = bench.control.serving.stages["m"]
    for place in ("/m", None):
        await bench.control.change(lambda serving, at=place: serving.set_adapter("m", "v2", "x", at))  # type: ignore[misc]
        await bench.tick()
    shown = await bench.rollouts.show("m", "r1")
    assert (len(shown["stages"]), shown["stages"][-1]) == (2, first)
    assert shown["findings"][0]["users"] == {"candidate": 40, "baseline": 360}


async def test_no_rollout_begins_while_a_version_is_to_take_anothers_place(bench: Bench) -> None:
    await bench.control.add_version("m", {"name": "v3", "engine": "simulated"}, "v1")
    with pytest.raises(Conflict, match="m:v3 is to take the place of v1"):
        await bench.start()


async def test_a_file_takes_nothing_away_from_under_a_rollout(bench: Bench) -> None:
    await bench.start()
    less = make_model(versions=1)
    with pytest.raises(Conflict, match="would take away m:v2, while the rollout r1 moves"):
        await bench.control.reload((less,))
    await bench.rollouts.act("m", "r1", "abort")
    await bench.control.reload((less,))
    assert bench.split == {"v1": 1}


async def test_one_that_cannot_go_on_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(make_model("n"), make_model("m"))
    monkeypatch.setattr(module.time, "monotonic", bench.clock)
    await bench.open()
    await bench.rollouts.start("n", PLAN)
    await bench.start()
    step = bench.rollouts._step

    async def fail(rollout: Rollout, *more: Any) -> None:
        if rollout.model == "n":
            raise ZeroDivisionError
        await step(rollout, *more)

    monkeypatch.setattr(bench.rollouts, "_step", fail)
    assert await bench.tick() == "running"
    assert bench.rollouts.show_all("n")[0]["state"] == "waiting"
    await bench.close()


async def test_what_another_release_has_written_can_be_aborted(bench: Bench) -> None:
    await bench.start()
    strange = Decision({"rollout/r1": b'{"id": "r1", "plan": 7}'}, (), None)
    await bench.mirror.commit(lambda documents: strange)
    await bench.rollouts.step(bench.lease, (UP,))
    with pytest.raises(NotFound):
        await bench.rollouts.act("m", "r1", "pause")
    with pytest.raises(NotFound):
        await bench.rollouts.act("n", "r1", "abort")
    assert (await bench.rollouts.act("m", "r1", "abort"))["state"] == "aborted"
    assert await bench.start() == "r1", "it has left nothing behind"


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
    assert (await bench.rollouts.show("m", name))["findings"] == []
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
    monkeypatch.setattr(rollout_record, "_KEPT", 2)
    for _ in range(5):
        name = await bench.start()
        await bench.tick()
        await bench.rollouts.act("m", name, "abort")
    assert [one["id"] for one in bench.rollouts.show_all("m")] == ["r5", "r4", "r3"]
    assert not [name for name in bench.mirror.snapshot.documents if name.startswith("past/")]


async def test_without_the_state_nothing_begins(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*asked: object) -> None:
        raise StateUnavailable("away")

    monkeypatch.setattr(bench.store, "commit", fail)
    with pytest.raises(StateUnavailable):
        await bench.start()
    assert bench.rollouts.show_all("m") == []
