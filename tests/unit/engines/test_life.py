import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checkpoints import Drafting
from gateway.engines.engine import Admission, EngineSpec, EngineState, SmokePrompt
from gateway.engines.placement import Device, Need
from gateway.engines.process import LaunchSpec
from gateway.settings import SourceAddress, parse_address
from gateway.sources import SourceFailed, Told
from gateway.telemetry.drafts import DraftCounts
from tests.support.fake_engines import FakeProcess, FakeSpawner, engine_spec, remakeable, until
from tests.support.keeper_bench import TIMING, KeeperBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[KeeperBench]:
    made = KeeperBench(engine_spec(tmp_path))
    yield made
    await made.tasks.close()


async def test_an_engine_is_ready_only_after_a_token(bench: KeeperBench) -> None:
    bench.start()
    status = await bench.reach(EngineState.READY)
    assert bench.states() == [EngineState.STARTING, EngineState.WARMING, EngineState.READY]
    assert bench.probe.warmed == [(False, ())]
    assert (status.max_model_len, status.pid, status.reason) == (2048, 1000, None)


async def test_what_admission_saw_is_warmed(bench: KeeperBench, tmp_path: Path) -> None:
    bench.admission = Admission(is_visual=True)
    bench.spec = replace(bench.spec, adapters=(("shapes:v1+mirror", tmp_path),))
    bench.start()
    await bench.reach(EngineState.READY)
    assert bench.probe.warmed == [(True, ("shapes:v1+mirror",))]


async def test_a_ready_engine_tells_what_it_has_loaded(bench: KeeperBench) -> None:
    bench.admission = Admission(digests={"": "abc"})
    bench.start()
    assert (await bench.reach(EngineState.READY)).digests == {"": "abc"}


async def test_files_that_changed_while_they_were_loaded_are_not_served(bench: KeeperBench) -> None:
    looks = iter([{"": "before"}, {"": "after"}, {"": "after"}, {"": "after"}])

    bench.admit = lambda spec: Admission(digests=next(looks))
    bench.start()
    assert (
        await bench.reach(EngineState.FAILED)
    ).reason == "the checkpoint's files changed while the engine loaded them"
    assert (await bench.reach(EngineState.READY)).digests == {"": "after"}, "it is loaded again"


async def test_an_open_port_without_a_token_is_a_failure(bench: KeeperBench) -> None:
    bench.probe.fault = "no token came out"
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "no token came out"
    assert EngineState.READY not in bench.states()
    await until(lambda: "kill" in bench.spawner.processes[0].signals)


async def test_an_engine_that_dies_at_its_first_request_is_asked_for_its_last_words(bench: KeeperBench) -> None:
    bench.probe.fault = "the first request failed with 500: EngineCore encountered an issue"
    bench.probe.on_warm = lambda: bench.spawner.processes[-1].end(0)
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "it started, and died at its first request: it ended with 0"


async def test_a_wrong_answer_to_a_smoke_prompt_is_final(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, smoke=(SmokePrompt("what?", "circle", "shapes"),))
    bench.probe.fault, bench.probe.is_final = "the smoke prompt 'what?' was answered 'square'", True
    bench.start()
    await bench.running
    assert bench.probe.smoke == bench.spec.smoke
    assert bench.keeper.status.state is EngineState.FAILED
    assert bench.keeper.status.reason == "the smoke prompt 'what?' was answered 'square'"
    assert bench.keeper.status.next_try_at is None


async def test_smoke_prompts_of_adapters_follow_their_names(bench: KeeperBench, tmp_path: Path) -> None:
    names = ("shapes", "shapes:v1+a", "shapes:v1+gone")
    prompts = tuple(SmokePrompt(name[-1], "x", name) for name in names)
    bench.spec = replace(bench.spec, smoke=prompts, adapters=(("shapes:v1+a@12", tmp_path),))
    bench.start()
    await bench.reach(EngineState.READY)
    assert [(prompt.prompt, prompt.name) for prompt in bench.probe.smoke] == [("s", "shapes"), ("a", "shapes:v1+a@12")]


async def test_a_bad_checkpoint_starts_nothing_and_is_not_tried_again(bench: KeeperBench) -> None:
    bench.admission = Admission("config.json is missing")
    bench.start()
    await bench.running
    assert bench.keeper.status.state is EngineState.FAILED
    assert bench.keeper.status.reason == "config.json is missing"
    assert bench.keeper.status.next_try_at is None
    assert bench.spawner.processes == []


async def test_arguments_that_cannot_be_passed_are_a_final_failure(bench: KeeperBench) -> None:
    def refuse() -> None:
        raise ValueError("engine_args: 'port' is the gateway's own")

    bench.spec = replace(bench.spec, build_launch=refuse)
    bench.start()
    await bench.running
    assert bench.keeper.status.reason == "engine_args: 'port' is the gateway's own"


async def test_flags_the_engine_does_not_know_are_not_tried_again(bench: KeeperBench) -> None:
    bench.spawner.on_spawn = lambda process: process.end(2)
    bench.probe.healthy = False
    bench.start()
    await bench.running
    assert len(bench.spawner.processes) == 1
    assert bench.keeper.status.state is EngineState.FAILED


async def test_an_engine_that_stops_answering_is_killed_and_restarted(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.healthy = False
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine failed 3 health checks in a row"
    bench.probe.healthy = True
    await bench.reach(EngineState.READY)
    assert "kill" in bench.spawner.processes[0].signals


async def test_an_engine_that_never_gets_ready_is_given_up_in_time(bench: KeeperBench) -> None:
    bench.timing = replace(TIMING, start_timeout_s=0.02)
    bench.probe.healthy = False
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine was not ready within 0.02 s"


async def test_stopping_asks_first_and_then_kills(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].is_stubborn = True
    bench.keeper.stop()
    assert bench.keeper.status.state is EngineState.DRAINING
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED
    assert bench.spawner.processes[0].signals == ["term", "kill"]
    assert len(bench.spawner.processes) == 1


async def test_a_leftover_socket_file_is_removed_before_the_start(bench: KeeperBench) -> None:
    bench.spec.socket.touch()
    seen: list[bool] = []

    def look(process: FakeProcess) -> None:
        seen.append(bench.spec.socket.exists())

    bench.spawner.on_spawn = look
    bench.start()
    await bench.reach(EngineState.READY)
    assert seen == [False]


async def test_engines_that_can_be_forked_are(bench: KeeperBench, tmp_path: Path) -> None:
    bench.spec = engine_spec(tmp_path, can_fork=True)
    bench.fork_spawner = FakeSpawner()
    bench.start()
    await bench.reach(EngineState.READY)
    assert (len(bench.fork_spawner.processes), len(bench.spawner.processes)) == (1, 0)


async def test_progress_is_read_from_the_engines_lines(bench: KeeperBench) -> None:
    bench.spawner.on_spawn = lambda process: process.lines.append("INFO Starting to load model /m")
    bench.start()
    await bench.reach(EngineState.READY)
    assert "loading weights" in {status.phase for status in bench.history}


async def test_stopping_does_not_wait_for_a_slow_launch(bench: KeeperBench) -> None:
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


async def test_a_retired_engine_ends_with_its_last_answer(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    bench.keeper.retire()
    await bench.reach(EngineState.DRAINING)
    await asyncio.sleep(0.01)
    assert bench.spawner.processes[0].signals == []
    bench.traffic.running = 0
    await bench.running
    assert bench.spawner.processes[0].signals == ["term", "kill"]
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_an_answer_that_takes_too_long_is_cut(bench: KeeperBench, caplog: pytest.LogCaptureFixture) -> None:
    bench.timing = replace(TIMING, drain_s=0.01)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 2
    bench.keeper.retire()
    await bench.running
    assert "ends with 2 answers cut" in caplog.text


async def test_an_engine_is_quiet_when_it_has_been_for_a_while(bench: KeeperBench) -> None:
    bench.timing = replace(TIMING, quiet_s=0.05)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.retire()
    await bench.reach(EngineState.DRAINING)
    bench.traffic.running = 1  # a relay that had not heard of it yet
    await asyncio.sleep(0.1)
    assert bench.keeper.status.state is EngineState.DRAINING
    bench.traffic.running = 0
    await bench.running


async def test_one_that_is_asked_for_while_it_drains_goes_on(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    bench.keeper.doze()
    await bench.reach(EngineState.DRAINING)
    bench.keeper.wake()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 0
    await asyncio.sleep(0.01)
    assert (bench.keeper.status.state, len(bench.spawner.processes)) == (EngineState.READY, 1)


async def test_one_that_makes_room_does_so_first_however_often_it_is_asked_for(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    bench.keeper.rest()
    await bench.reach(EngineState.DRAINING)
    bench.keeper.wake()
    bench.traffic.running = 0
    await until(lambda: bench.spawner.processes[0].signals == ["term", "kill"])
    await bench.reach(EngineState.READY)
    assert len(bench.spawner.processes) == 2


async def test_an_engine_that_relays_may_still_send_to_is_not_ended(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.routed = True
    bench.keeper.retire()
    await bench.reach(EngineState.DRAINING)
    await asyncio.sleep(0.02)
    assert bench.spawner.processes[0].signals == []
    bench.traffic.routed = False
    await bench.running


@pytest.mark.parametrize("ask", ["rest", "doze"])
async def test_nothing_is_cut_for_sleep(bench: KeeperBench, ask: str) -> None:
    bench.timing = replace(TIMING, drain_s=0.01)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    getattr(bench.keeper, ask)()
    await bench.reach(EngineState.DRAINING)
    await bench.reach(EngineState.READY)
    assert bench.spawner.processes[0].signals == []


async def test_one_that_serves_keeps_its_place_when_it_dies(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, estimate_need=lambda weights_bytes: Need(1, 600))
    bench.timing = replace(TIMING, first_pause_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    await until(lambda: "kill" in bench.spawner.processes[0].signals)
    await asyncio.sleep(0)
    assert bench.room.has_place("shapes:v1#0")
    bench.keeper.stop()
    await bench.running


async def test_one_that_takes_anothers_place_later_makes_nobody_sleep_for_it(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, estimate_need=lambda weights_bytes: Need(1, 600))
    bench.timing = replace(TIMING, first_pause_s=60)
    old = replace(engine_spec(bench.spec.socket.parent, "shapes:v0#0"), sleep_after_s=60)
    await bench.room.claim(old, Need(1, 600), may_evict=True, note=print)
    bench.idle = {("shapes", "v0"): 9.0}
    bench.start()
    bench.keeper.insist()
    assert (await bench.reach(EngineState.FAILED)).reason == "the room is taken by shapes:v0"
    assert bench.rested == []


async def test_being_asked_for_ends_when_it_is_up(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, sleep_after_s=60)
    bench.start()
    bench.keeper.wake()
    await bench.reach(EngineState.READY)
    assert not bench.keeper._want.is_asked


async def test_one_that_waits_for_its_turn_to_load_can_be_let_go(bench: KeeperBench) -> None:
    slots = asyncio.Semaphore(0)
    bench.slots = slots
    bench.start()
    await until(lambda: bench.keeper.status.phase == "waiting for another engine to load")
    bench.keeper.retire()
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED
    assert not bench.room.has_place("shapes:v1#0")


async def test_an_adapter_that_came_while_it_dozed_is_mounted_when_it_wakes(bench: KeeperBench, tmp_path: Path) -> None:
    bench.spec = replace(remakeable(bench.spec), can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    await bench.reach(EngineState.ASLEEP)
    adapters = (("shapes:v1+a", tmp_path),)
    bench.keeper.hold(replace(bench.keeper.spec, adapters=adapters), {})
    bench.keeper.wake()
    assert (await bench.reach(EngineState.READY)).adapters == ("shapes:v1+a",)
    assert ("load", "shapes:v1+a") in bench.probe.mounted


async def test_stopping_does_not_wait_for_a_drain(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    bench.keeper.retire()
    await bench.reach(EngineState.DRAINING)
    bench.keeper.stop()
    await bench.running
    assert bench.spawner.processes[0].signals == ["term", "kill"]


async def test_an_engine_knows_its_devices_and_gives_its_place_back(bench: KeeperBench) -> None:
    bench.devices = (Device("0", 1000), Device("1", 1000))
    bench.spec = replace(bench.spec, estimate_need=lambda weights_bytes: Need(2, weights_bytes))
    bench.admission = Admission(weights_bytes=900)
    bench.start()
    await bench.reach(EngineState.READY)
    assert bench.spawner.specs[0].env == {"CUDA_VISIBLE_DEVICES": "0,1"}
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    await bench.reach(EngineState.READY)


async def test_devices_that_the_settings_name_have_the_last_word(bench: KeeperBench) -> None:
    bench.devices = (Device("0", 1000),)
    launch = replace(bench.spec.build_launch(), env={"CUDA_VISIBLE_DEVICES": "3"})
    bench.spec = replace(bench.spec, build_launch=lambda: launch)
    bench.start()
    await bench.reach(EngineState.READY)
    assert bench.spawner.specs[0].env == {"CUDA_VISIBLE_DEVICES": "3"}


async def test_one_that_never_fits_starts_nothing(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, estimate_need=lambda weights_bytes: Need(1, 1001))
    bench.start()
    await bench.running
    assert (bench.keeper.status.state, bench.spawner.processes) == (EngineState.FAILED, [])


async def test_one_that_may_sleep_does_so_where_there_is_no_room_until_it_is_asked_for(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, sleep_after_s=60, estimate_need=lambda weights_bytes: Need(1, 600))
    other = replace(engine_spec(bench.spec.socket.parent, "shapes:v2#0"), sleep_after_s=60)
    await bench.room.claim(other, Need(1, 600), may_evict=True, note=print)
    bench.start()
    await bench.reach(EngineState.ASLEEP)
    assert bench.rested == []
    bench.keeper.wake()
    await until(lambda: bench.keeper.status.phase == "waiting for shapes:v2 to make room")
    bench.idle = {("shapes", "v2"): 1.0}
    await until(lambda: bench.rested == [("shapes", "v2")])
    bench.room.release("shapes:v2#0")
    await bench.reach(EngineState.READY)


async def test_one_that_can_doze_keeps_its_process_and_its_place(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    status = await bench.reach(EngineState.ASLEEP)
    assert (status.pid, bench.keeper.is_dozing) == (1000, True)
    bench.keeper.wake()
    await bench.reach(EngineState.READY)
    assert bench.probe.mounted == [("sleep", ""), ("wake", "")]
    assert bench.spawner.processes[0].signals == []
    assert len(bench.probe.warmed) == 2, "it must answer again"


async def test_one_that_dozes_leaves_its_place_when_it_is_needed(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    await bench.reach(EngineState.ASLEEP)
    bench.keeper.rest()
    await until(lambda: bench.keeper.status.pid is None)
    bench.keeper.doze()
    assert (bench.keeper.status.state, bench.keeper.is_dozing) == (EngineState.ASLEEP, False)
    bench.keeper.wake()
    await bench.reach(EngineState.READY)
    assert len(bench.spawner.processes) == 2


async def test_one_that_does_not_wake_is_started_anew(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    await bench.reach(EngineState.ASLEEP)
    bench.probe.wake_fault = "out of memory"
    bench.keeper.wake()
    assert (await bench.reach(EngineState.FAILED)).reason == "it did not wake: out of memory"
    await bench.reach(EngineState.READY)


@pytest.mark.parametrize("ask", ["stop", "retire"])
async def test_one_that_dozes_can_be_let_go(bench: KeeperBench, ask: str) -> None:
    bench.spec = replace(bench.spec, can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    await bench.reach(EngineState.ASLEEP)
    getattr(bench.keeper, ask)()
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_one_that_dies_while_it_dozes_sleeps_on(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, can_doze=True, sleep_after_s=60)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.doze()
    await bench.reach(EngineState.ASLEEP)
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.pid is None)
    assert bench.keeper.status.state is EngineState.ASLEEP
    bench.keeper.wake()
    await bench.reach(EngineState.READY)


ADDRESS = parse_address("hf://org/name")


def unsettled(spec: EngineSpec) -> EngineSpec:
    """The same engine, whose checkpoint lies elsewhere."""
    return replace(spec, sources=(ADDRESS,), settle=lambda folders: replace(spec, checkpoint=folders[ADDRESS]))


async def test_what_lies_elsewhere_is_fetched_before_it_is_looked_at(bench: KeeperBench, tmp_path: Path) -> None:
    fetched: list[SourceAddress] = []
    looked_at: list[Path | None] = []

    async def fetch(address: SourceAddress, told: Told, public_id: str) -> Path:
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
async def test_a_fetch_that_fails_is_a_failure_with_its_reason(bench: KeeperBench, is_final: bool) -> None:
    async def fetch(address: SourceAddress, told: Told, public_id: str) -> Path:
        raise SourceFailed("the Hub said no", is_final=is_final)

    bench.spec, bench.fetch, bench.timing = unsettled(bench.spec), fetch, replace(TIMING, first_pause_s=60)
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the Hub said no"
    assert (status.next_try_at is None) is is_final
    assert bench.spawner.processes == []


async def test_what_to_launch_is_worked_out_beside_the_event_loop(bench: KeeperBench) -> None:
    threads: list[int] = []
    build = bench.spec.build_launch

    def note() -> LaunchSpec:
        threads.append(threading.get_ident())
        return build()

    bench.spec = replace(bench.spec, build_launch=note)
    bench.start()
    await bench.reach(EngineState.READY)
    assert threads
    assert threading.get_ident() not in threads, "it reads files of many megabytes"


async def test_stopping_ends_a_fetch_at_once(bench: KeeperBench) -> None:
    ended = asyncio.Event()

    async def fetch(address: SourceAddress, told: Told, public_id: str) -> Path:
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


async def test_what_comes_of_guesses_is_told_and_never_falls(bench: KeeperBench) -> None:
    bench.spec = replace(bench.spec, drafting=Drafting("ngram"))
    bench.start()
    assert (await bench.reach(EngineState.READY)).drafts is None
    bench.probe.drafts = DraftCounts(10, 40, 20)
    await until(lambda: bench.keeper.status.drafts == DraftCounts(10, 40, 20))
    bench.probe.drafts = None
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.restarts == 1)
    bench.probe.drafts = DraftCounts(1, 4, 0)
    await until(lambda: bench.keeper.status.drafts == DraftCounts(11, 44, 20))


async def test_an_engine_that_does_not_guess_is_not_asked(bench: KeeperBench) -> None:
    bench.probe.drafts = DraftCounts(10, 40, 20)
    bench.start()
    await bench.reach(EngineState.READY)
    looks = bench.probe.looks
    await until(lambda: bench.probe.looks > looks + 3)
    assert bench.keeper.status.drafts is None


async def test_an_engine_whose_guesses_change_answers_is_never_launched(bench: KeeperBench) -> None:
    trial = bench.spec
    bench.spec = replace(bench.spec, trials=(trial, trial))
    texts = iter(["one text", "another text"])
    bench.probe.answers = LastWords(texts)
    bench.start()
    await bench.running
    assert bench.keeper.status.state is EngineState.FAILED
    assert (bench.keeper.status.reason or "").startswith("speculation changes answers: 'Hello' is answered 'one text'")
    assert bench.keeper.status.next_try_at is None
    assert len(bench.spawner.processes) == 2, "the trials, and no third"


async def test_an_engine_whose_guesses_change_nothing_is_launched_after_its_trials(bench: KeeperBench) -> None:
    trial = bench.spec
    bench.spec = replace(bench.spec, trials=(trial, trial))
    bench.start()
    await bench.reach(EngineState.READY)
    assert len(bench.spawner.processes) == 3
    assert "comparing answers with and without speculation" in {status.phase for status in bench.history}


class LastWords(dict[str, str]):
    """Each answer to Hello is the next of some; others are alike."""

    def __init__(self, texts: Iterator[str]) -> None:
        super().__init__()
        self._texts = texts

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        return next(self._texts) if key == "Hello" else default


async def test_arguments_that_no_trial_can_be_given_are_a_final_failure(bench: KeeperBench) -> None:
    def refuse() -> None:
        raise ValueError("engine_args: 'port' is the gateway's own")

    trial = replace(bench.spec, build_launch=refuse)
    bench.spec = replace(bench.spec, trials=(trial, trial))
    bench.start()
    await bench.running
    assert bench.keeper.status.reason == "engine_args: 'port' is the gateway's own"
