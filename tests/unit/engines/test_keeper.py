import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import Admission, EngineSpec, EngineState, EngineStatus, SmokePrompt
from gateway.engines.keeper import EngineKeeper, KeeperTiming, KeeperTools
from gateway.engines.settling import Fetch
from gateway.settings import SourceAddress, parse_address
from gateway.sources import SourceFailed
from gateway.sources.download import Told
from gateway.tasks import TaskSet
from tests.support.fake_engines import FakeProbe, FakeProcess, FakeSpawner, engine_spec, fetch_nothing, until

TIMING = KeeperTiming(
    start_timeout_s=5,
    poll_s=0,
    health_every_s=0,
    failed_checks=3,
    stop_grace_s=0.01,
    last_words_s=0.01,
    first_pause_s=0.001,
)


class Bench:
    """A keeper among fakes."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spawner = FakeSpawner()
        self.fork_spawner: FakeSpawner | None = None
        self.probe = FakeProbe()
        self.admission = Admission()
        self.admit: Callable[[EngineSpec], Admission] = lambda spec: self.admission
        self.fetch: Fetch = fetch_nothing
        self.history: list[EngineStatus] = []
        self.spec = spec
        self.timing = TIMING
        self.tasks = TaskSet()

    def start(self) -> EngineKeeper:
        tools = KeeperTools(
            spawner=self.spawner,
            fork_spawner=self.fork_spawner,
            make_probe=lambda spec: self.probe,
            fetch=self.fetch,
            admit=lambda spec: self.admit(spec),
            explain=lambda lines, code: f"it ended with {code}",
            slots=asyncio.Semaphore(1),
            turns=asyncio.Lock(),
            on_change=self.history.append,
        )
        self.keeper = EngineKeeper(self.spec, tools, self.timing)
        self.running = self.tasks.start(self.keeper.run(), "keeper")
        return self.keeper

    async def reach(self, state: EngineState) -> EngineStatus:
        await until(lambda: self.keeper.status.state is state)
        return self.keeper.status

    def states(self) -> list[EngineState]:
        told = [status.state for status in self.history]
        return [state for index, state in enumerate(told) if index == 0 or told[index - 1] is not state]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(engine_spec(tmp_path))
    yield made
    await made.tasks.close()


async def test_an_engine_is_ready_only_after_a_token(bench: Bench) -> None:
    bench.start()
    status = await bench.reach(EngineState.READY)
    assert bench.states() == [EngineState.STARTING, EngineState.WARMING, EngineState.READY]
    assert bench.probe.warmed == [(False, ())]
    assert (status.max_model_len, status.pid, status.reason) == (2048, 1000, None)


async def test_what_admission_saw_is_warmed(bench: Bench, tmp_path: Path) -> None:
    bench.admission = Admission(is_visual=True)
    bench.spec = replace(bench.spec, adapters=(("shapes:v1+mirror", tmp_path),))
    bench.start()
    await bench.reach(EngineState.READY)
    assert bench.probe.warmed == [(True, ("shapes:v1+mirror",))]


async def test_a_ready_engine_tells_what_it_has_loaded(bench: Bench) -> None:
    bench.admission = Admission(digests={"": "abc"})
    bench.start()
    assert (await bench.reach(EngineState.READY)).digests == {"": "abc"}


async def test_files_that_changed_while_they_were_loaded_are_not_served(bench: Bench) -> None:
    looks = iter([{"": "before"}, {"": "after"}, {"": "after"}, {"": "after"}])

    bench.admit = lambda spec: Admission(digests=next(looks))
    bench.start()
    assert (
        await bench.reach(EngineState.FAILED)
    ).reason == "the checkpoint's files changed while the engine loaded them"
    assert (await bench.reach(EngineState.READY)).digests == {"": "after"}, "it is loaded again"


async def test_an_open_port_without_a_token_is_a_failure(bench: Bench) -> None:
    bench.probe.fault = "no token came out"
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "no token came out"
    assert EngineState.READY not in bench.states()
    await until(lambda: "kill" in bench.spawner.processes[0].signals)


async def test_an_engine_that_dies_at_its_first_request_is_asked_for_its_last_words(bench: Bench) -> None:
    bench.probe.fault = "the first request failed with 500: EngineCore encountered an issue"
    bench.probe.on_warm = lambda: bench.spawner.processes[-1].end(0)
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "it started, and died at its first request: it ended with 0"


async def test_a_wrong_answer_to_a_smoke_prompt_is_final(bench: Bench) -> None:
    bench.spec = replace(bench.spec, smoke=(SmokePrompt("what?", "circle", "shapes"),))
    bench.probe.fault, bench.probe.is_final = "the smoke prompt 'what?' was answered 'square'", True
    bench.start()
    await bench.running
    assert bench.probe.smoke == bench.spec.smoke
    assert bench.keeper.status.state is EngineState.FAILED
    assert bench.keeper.status.reason == "the smoke prompt 'what?' was answered 'square'"
    assert bench.keeper.status.next_try_at is None


async def test_smoke_prompts_of_adapters_follow_their_names(bench: Bench, tmp_path: Path) -> None:
    names = ("shapes", "shapes:v1+a", "shapes:v1+gone")
    prompts = tuple(SmokePrompt(name[-1], "x", name) for name in names)
    bench.spec = replace(bench.spec, smoke=prompts, adapters=(("shapes:v1+a@12", tmp_path),))
    bench.start()
    await bench.reach(EngineState.READY)
    assert [(prompt.prompt, prompt.name) for prompt in bench.probe.smoke] == [("s", "shapes"), ("a", "shapes:v1+a@12")]


async def test_what_answered_rightly_once_is_tried_again(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.fault, bench.probe.is_final = "wrong", True
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    bench.probe.fault = None
    await bench.reach(EngineState.READY)


async def test_a_bad_checkpoint_starts_nothing_and_is_not_tried_again(bench: Bench) -> None:
    bench.admission = Admission("config.json is missing")
    bench.start()
    await bench.running
    assert bench.keeper.status.state is EngineState.FAILED
    assert bench.keeper.status.reason == "config.json is missing"
    assert bench.keeper.status.next_try_at is None
    assert bench.spawner.processes == []


async def test_arguments_that_cannot_be_passed_are_a_final_failure(bench: Bench) -> None:
    def refuse() -> None:
        raise ValueError("engine_args: 'port' is the gateway's own")

    bench.spec = replace(bench.spec, build_launch=refuse)
    bench.start()
    await bench.running
    assert bench.keeper.status.reason == "engine_args: 'port' is the gateway's own"


async def test_a_launch_that_fails_is_tried_again(bench: Bench) -> None:
    bench.spawner.failure = OSError("no memory")
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine could not be launched: no memory"
    bench.spawner.failure = None
    await bench.reach(EngineState.READY)


@pytest.mark.parametrize("code", [0, 1, -9])
async def test_any_end_that_nobody_asked_for_is_a_failure_and_restarts(bench: Bench, code: int) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].lines = ["the last words"]
    bench.spawner.processes[0].end(code)
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == f"it ended with {code}"
    assert status.tail == ("the last words",)
    assert status.next_try_at is not None
    status = await bench.reach(EngineState.READY)
    assert status.restarts == 1
    assert len(bench.spawner.processes) == 2
    assert "kill" in bench.spawner.processes[0].signals


async def test_flags_the_engine_does_not_know_are_not_tried_again(bench: Bench) -> None:
    bench.spawner.on_spawn = lambda process: process.end(2)
    bench.probe.healthy = False
    bench.start()
    await bench.running
    assert len(bench.spawner.processes) == 1
    assert bench.keeper.status.state is EngineState.FAILED


async def test_pauses_grow(bench: Bench) -> None:
    bench.spawner.on_spawn = lambda process: process.end(1)
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.spawner.processes) == 4)
    failures = [status for status in bench.history if status.state is EngineState.FAILED]
    pauses = [status.next_try_at - status.since for status in failures[:3] if status.next_try_at]
    assert pauses[0] < pauses[1] < pauses[2]


async def test_an_engine_that_stops_answering_is_killed_and_restarted(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.healthy = False
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine failed 3 health checks in a row"
    bench.probe.healthy = True
    await bench.reach(EngineState.READY)
    assert "kill" in bench.spawner.processes[0].signals


async def test_an_engine_that_never_gets_ready_is_given_up_in_time(bench: Bench) -> None:
    bench.timing = replace(TIMING, start_timeout_s=0.02)
    bench.probe.healthy = False
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine was not ready within 0.02 s"


async def test_stopping_asks_first_and_then_kills(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].is_stubborn = True
    bench.keeper.stop()
    assert bench.keeper.status.state is EngineState.DRAINING
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED
    assert bench.spawner.processes[0].signals == ["term", "kill"]
    assert len(bench.spawner.processes) == 1


async def test_stopping_while_loading_or_pausing_ends_at_once(bench: Bench) -> None:
    bench.timing = replace(TIMING, first_pause_s=60)
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.spawner.processes) == 1)
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    bench.keeper.stop()
    await asyncio.wait_for(bench.running, 2)
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_a_cancelled_keeper_leaves_no_process(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    await bench.tasks.close()
    assert bench.spawner.processes[0].signals == ["kill"]


async def test_a_leftover_socket_file_is_removed_before_the_start(bench: Bench) -> None:
    bench.spec.socket.touch()
    seen: list[bool] = []

    def look(process: FakeProcess) -> None:
        seen.append(bench.spec.socket.exists())

    bench.spawner.on_spawn = look
    bench.start()
    await bench.reach(EngineState.READY)
    assert seen == [False]


async def test_engines_that_can_be_forked_are(bench: Bench, tmp_path: Path) -> None:
    bench.spec = engine_spec(tmp_path, can_fork=True)
    bench.fork_spawner = FakeSpawner()
    bench.start()
    await bench.reach(EngineState.READY)
    assert (len(bench.fork_spawner.processes), len(bench.spawner.processes)) == (1, 0)


async def test_progress_is_read_from_the_engines_lines(bench: Bench) -> None:
    bench.spawner.on_spawn = lambda process: process.lines.append("INFO Starting to load model /m")
    bench.start()
    await bench.reach(EngineState.READY)
    assert "loading weights" in {status.phase for status in bench.history}


async def test_what_nobody_foresaw_is_a_failure_like_others_and_tried_again(bench: Bench) -> None:
    async def break_down(**_: object) -> None:
        raise AttributeError("no such thing")

    good = bench.probe.warm
    bench.probe.warm = break_down  # type: ignore[assignment]
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert "no such thing" in (status.reason or "")
    bench.probe.warm = good  # type: ignore[method-assign]
    await bench.reach(EngineState.READY)


async def test_exit_code_2_of_an_engine_that_was_ready_is_tried_again(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].end(2)
    await bench.reach(EngineState.FAILED)
    await bench.reach(EngineState.READY)


async def test_files_out_of_reach_at_a_restart_are_looked_at_again(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.admission = Admission("the folder is missing")
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.reason == "the folder is missing")
    bench.admission = Admission()
    await bench.reach(EngineState.READY)


async def test_stopping_does_not_wait_for_a_slow_launch(bench: Bench) -> None:
    began = asyncio.Event()

    async def spawn(*_: object) -> FakeProcess:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench.spawner.spawn = spawn  # type: ignore[assignment]
    bench.start()
    await began.wait()
    bench.keeper.stop()
    await asyncio.wait_for(bench.running, 2)
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_only_the_life_that_just_ended_counts_as_stable(bench: Bench) -> None:
    bench.timing = replace(TIMING, stable_after_s=0)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.admission = Admission("the folder is missing")
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.restarts == 4)
    failures = [status for status in bench.history if status.state is EngineState.FAILED]
    pauses = [status.next_try_at - status.since for status in failures if status.next_try_at]
    assert pauses[1] < pauses[2] < pauses[3]


ADDRESS = parse_address("hf://org/name")


def unsettled(spec: EngineSpec) -> EngineSpec:
    """The same engine, whose checkpoint lies elsewhere."""
    return replace(spec, sources=(ADDRESS,), settle=lambda folders: replace(spec, checkpoint=folders[ADDRESS]))


async def test_what_lies_elsewhere_is_fetched_before_it_is_looked_at(bench: Bench, tmp_path: Path) -> None:
    fetched: list[SourceAddress] = []
    looked_at: list[Path | None] = []

    async def fetch(address: SourceAddress, told: Told) -> Path:
        fetched.append(address)
        told(1, 4)
        return tmp_path

    def admit(spec: EngineSpec) -> Admission:
        looked_at.append(spec.checkpoint)
        return Admission()

    bench.spec, bench.fetch, bench.admit = unsettled(bench.spec), fetch, admit
    keeper = bench.start()
    assert keeper.status.checkpoint is None
    assert (await bench.reach(EngineState.READY)).checkpoint == str(tmp_path)
    assert looked_at == [tmp_path]
    told = [(status.state, status.progress) for status in bench.history if status.phase == "fetching hf://org/name"]
    assert told == [(EngineState.STARTING, 0.0), (EngineState.STARTING, 0.25)]

    bench.spawner.processes[0].end(1)
    await until(lambda: len(bench.spawner.processes) == 2)
    await bench.reach(EngineState.READY)
    assert fetched == [ADDRESS], "another life needs no network"


@pytest.mark.parametrize("is_final", [True, False])
async def test_a_fetch_that_fails_is_a_failure_with_its_reason(bench: Bench, is_final: bool) -> None:
    async def fetch(address: SourceAddress, told: Told) -> Path:
        raise SourceFailed("the Hub said no", is_final=is_final)

    bench.spec, bench.fetch, bench.timing = unsettled(bench.spec), fetch, replace(TIMING, first_pause_s=60)
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the Hub said no"
    assert (status.next_try_at is None) is is_final
    assert bench.spawner.processes == []


async def test_stopping_ends_a_fetch_at_once(bench: Bench) -> None:
    ended = asyncio.Event()

    async def fetch(address: SourceAddress, told: Told) -> Path:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    bench.spec, bench.fetch = unsettled(bench.spec), fetch
    keeper = bench.start()
    await until(lambda: keeper.status.phase.startswith("fetching"))
    keeper.stop()
    await bench.running
    assert ended.is_set()
    assert keeper.status.state is EngineState.STOPPED
