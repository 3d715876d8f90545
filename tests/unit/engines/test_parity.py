import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import Admission, EngineSpec, ProbeFailed, SmokePrompt
from gateway.engines.parity import Parity, choose_prompts
from gateway.engines.process import Spawner
from gateway.tasks import TaskSet
from gateway.telemetry.drafts import DraftCounts
from tests.support.fake_engines import FakeProbe, FakeSpawner, engine_spec, until


class Bench:
    """Trials over fakes: the first probe is asked with guesses, the second without."""

    def __init__(self) -> None:
        self.spawner = FakeSpawner()
        self.probes: list[FakeProbe] = []
        self.answers: list[dict[str, str]] = [{}, {}]
        self.healthy = True
        self.drafts: DraftCounts | None = None

    def make_probe(self, spec: EngineSpec) -> FakeProbe:
        probe = FakeProbe()
        probe.healthy = self.healthy
        probe.drafts = self.drafts
        probe.answers = self.answers[len(self.probes) % 2]
        self.probes.append(probe)
        return probe

    def explain(self, lines: list[str], code: int) -> str:
        return f"it ended with {code}"

    def choose_spawner(self, spec: EngineSpec) -> Spawner:
        return self.spawner  # type: ignore[return-value]

    async def prove(self, parity: Parity, spec: EngineSpec, admission: Admission | None = None) -> bool:
        return await parity.prove(spec, admission or Admission(), self, 5)


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    trial = engine_spec(tmp_path)
    return replace(trial, trials=(trial, trial))


async def test_both_are_asked_the_same_one_after_the_other_and_leave_nothing(spec: EngineSpec) -> None:
    bench = Bench()
    assert await bench.prove(Parity(), spec)
    assert len(bench.probes) == len(bench.spawner.processes) == 2
    assert bench.probes[0].asked == bench.probes[1].asked != []
    assert all(probe.is_closed for probe in bench.probes)
    assert [process.signals for process in bench.spawner.processes] == [["kill"], ["kill"]]


async def test_other_answers_are_final_and_both_are_shown(spec: EngineSpec) -> None:
    bench, parity = Bench(), Parity()
    bench.answers[0] = {"Hello": "a red square"}
    for _ in range(2):
        with pytest.raises(ProbeFailed) as caught:
            await bench.prove(parity, spec)
        assert caught.value.is_final
        assert str(caught.value) == (
            "speculation changes answers: 'Hello' is answered 'a red square' with it and 'the same' without, "
            "both greedily in float32"
        )
    assert len(bench.probes) == 4, "a failure is not remembered"


async def test_what_was_proven_is_not_tried_again(spec: EngineSpec, tmp_path: Path) -> None:
    bench, parity = Bench(), Parity()
    admission = Admission(digests={"": "abc"})
    assert await asyncio.gather(*(bench.prove(parity, spec, admission) for _ in range(3))) == [True] * 3
    assert len(bench.probes) == 2
    await bench.prove(parity, spec, Admission(digests={"": "other"}))
    assert len(bench.probes) == 4, "other weights"
    asked = replace(spec, trials=(replace(spec, smoke=(SmokePrompt("what?", "", "shapes"),)), spec))
    await bench.prove(parity, asked, admission)
    assert len(bench.probes) == 6, "other questions"


async def test_an_engine_that_dies_in_a_trial_is_told_and_may_be_tried_again(spec: EngineSpec) -> None:
    bench = Bench()
    bench.healthy = False
    bench.spawner.on_spawn = lambda process: process.end(1)
    with pytest.raises(ProbeFailed, match="no engine came up in float32: it ended with 1") as caught:
        await bench.prove(Parity(), spec)
    assert not caught.value.is_final


async def test_an_engine_that_cannot_be_launched_is_told(spec: EngineSpec) -> None:
    bench = Bench()
    bench.spawner.failure = OSError("no memory")
    with pytest.raises(ProbeFailed, match="could not be launched: no memory"):
        await bench.prove(Parity(), spec)


async def test_a_trial_that_takes_too_long_is_ended(spec: EngineSpec) -> None:
    bench = Bench()
    bench.healthy = False
    with pytest.raises(ProbeFailed, match=r"within 0\.01 s"):
        await Parity().prove(spec, Admission(), bench, 0.01)
    assert bench.spawner.processes[0].signals == ["kill"]


async def test_a_trial_that_is_given_up_leaves_no_process(spec: EngineSpec) -> None:
    bench, tasks = Bench(), TaskSet()
    bench.healthy = False
    tasks.start(bench.prove(Parity(), spec), "prove")
    await until(lambda: bool(bench.spawner.processes))
    await tasks.close()
    assert bench.spawner.processes[0].signals == ["kill"]


async def test_without_trials_nothing_is_tried(tmp_path: Path) -> None:
    bench = Bench()
    assert await bench.prove(Parity(), engine_spec(tmp_path))
    assert bench.probes == []


def test_smoke_prompts_of_the_model_are_asked_or_else_our_own(tmp_path: Path) -> None:
    own = (SmokePrompt("what?", "circle", "shapes"), SmokePrompt("left?", "right", "shapes:v1+mirror"))
    spec = replace(engine_spec(tmp_path), smoke=own)
    assert choose_prompts(spec, is_visual=True) == [(own[0], False)]
    golden = choose_prompts(engine_spec(tmp_path), is_visual=True)
    assert len(golden) > 4
    assert {is_shown for _, is_shown in golden} == {True, False}
    assert not any(is_shown for _, is_shown in choose_prompts(engine_spec(tmp_path), is_visual=False))


async def test_answers_without_any_text_prove_nothing(spec: EngineSpec) -> None:
    bench = Bench()
    silent = SmokePrompt("what?", "", spec.served_name)
    bench.answers = [{"what?": ""}, {"what?": ""}]
    with pytest.raises(ProbeFailed, match="no answer had any text"):
        await bench.prove(Parity(), replace(spec, smoke=(silent,)))


async def test_what_was_proven_holds_on_other_devices_and_not_for_other_defaults(spec: EngineSpec) -> None:
    bench, parity = Bench(), Parity()
    assert spec.trials is not None

    def on(device: str, **fields: object) -> EngineSpec:
        launch = replace(spec.build_launch(), env={"CUDA_VISIBLE_DEVICES": device})
        smoke = (SmokePrompt("what?", "", "shapes", fields=fields),)
        trial = replace(spec, trials=None, build_launch=lambda: launch, smoke=smoke)
        return replace(spec, trials=(trial, trial))

    await bench.prove(parity, on("0"))
    await bench.prove(parity, on("1"))
    assert len(bench.probes) == 2
    await bench.prove(parity, on("0", repetition_penalty=1.5))
    assert len(bench.probes) == 4


async def test_where_nothing_was_guessed_it_is_said_that_nothing_is_proven(
    spec: EngineSpec, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.drafts = DraftCounts()
    assert await bench.prove(Parity(), spec)
    assert "nothing was guessed" in caplog.text
    caplog.clear()
    bench.drafts = DraftCounts(3, 9, 1)
    assert await bench.prove(Parity(), spec)
    assert caplog.text == ""
