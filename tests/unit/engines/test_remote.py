import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.engines.engine import EngineState, EngineStatus
from gateway.engines.remote import RemoteSpec, RemoteTiming, RemoteWatch
from gateway.tasks import TaskSet
from tests.support.fake_engines import FakeProbe, remote_spec, until

TIMING = RemoteTiming(retry_s=0, health_every_s=0, failed_checks=3)


class Bench:
    """A watch over a fake engine."""

    def __init__(self) -> None:
        self.probe = FakeProbe()
        self.history: list[EngineStatus] = []
        self.tasks = TaskSet()
        self.watch = RemoteWatch(remote_spec(), self._make_probe, self.history.append, TIMING)
        self.made_for: list[RemoteSpec] = []

    def _make_probe(self, spec: RemoteSpec) -> FakeProbe:
        self.made_for.append(spec)
        return self.probe

    def start(self) -> "asyncio.Task[None]":
        return self.tasks.start(self.watch.run(), "watch")

    async def reach(self, state: EngineState) -> None:
        await until(lambda: self.watch.status.state is state)

    def states(self) -> list[EngineState]:
        """The states in order, each once until the next."""
        found = [status.state for status in self.history]
        return [state for place, state in enumerate(found) if place == 0 or found[place - 1] is not state]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.tasks.close()


async def test_an_engine_that_gives_a_token_is_ready_under_the_name_it_calls_itself(bench: Bench) -> None:
    bench.probe.name = "org/shapes-7b"
    assert bench.watch.status.state is EngineState.STARTING
    bench.start()
    await bench.reach(EngineState.READY)
    assert bench.watch.served_name == "org/shapes-7b"
    assert bench.watch.status.max_model_len == 2048
    assert bench.probe.warmed == [(False, ())]
    assert bench.made_for == [bench.watch.spec]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"healthy": False}, "http://far:8000/health does not answer with 200"),
        ({"name": None}, "/v1/models names no model"),
        ({"fault": "no token came out"}, "no token came out"),
    ],
)
async def test_one_that_cannot_serve_is_failed_with_the_reason_and_ready_when_it_can(
    bench: Bench, trouble: dict[str, Any], reason: str
) -> None:
    sound = {name: getattr(bench.probe, name) for name in trouble}
    for name, value in trouble.items():
        setattr(bench.probe, name, value)
    bench.start()
    await bench.reach(EngineState.FAILED)
    assert bench.watch.status.reason == reason
    for name, value in sound.items():
        setattr(bench.probe, name, value)
    await bench.reach(EngineState.READY)
    assert bench.watch.status.reason is None
    assert bench.states() == [EngineState.FAILED, EngineState.READY]


async def test_a_single_failed_check_changes_nothing(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    for _ in range(5):
        bench.probe.healthy = False
        await turn(bench.probe)
        bench.probe.healthy = True
        await turn(bench.probe)
    assert bench.states() == [EngineState.READY]


async def turn(probe: FakeProbe) -> None:
    """Wait for one more look."""
    before = probe.looks
    await until(lambda: probe.looks > before)


async def test_checks_that_fail_in_a_row_take_it_out_until_it_is_back(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.healthy = False
    await bench.reach(EngineState.FAILED)
    bench.probe.healthy, bench.probe.name = True, "another"
    await bench.reach(EngineState.READY)
    assert bench.states() == [EngineState.READY, EngineState.FAILED, EngineState.READY]
    assert next(status.reason for status in bench.history if status.state is EngineState.FAILED) == (
        "http://far:8000/health failed 3 times in a row"
    )
    assert bench.watch.served_name == "another"
    assert len(bench.probe.warmed) == 2


async def test_one_that_comes_back_as_another_engine_is_met_anew_at_once(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.name = "another"
    await bench.reach(EngineState.FAILED)
    assert bench.watch.status.reason == "http://far:8000 now calls its model 'another', not 'shapes'"
    await bench.reach(EngineState.READY)
    assert bench.watch.served_name == "another"


async def test_a_single_time_without_a_name_changes_nothing(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.name = None
    await turn(bench.probe)
    bench.probe.name = "shapes"
    await turn(bench.probe)
    assert bench.states() == [EngineState.READY]


async def test_the_time_in_a_state_counts_from_its_beginning(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000, 10**6))
    monkeypatch.setattr("gateway.engines.remote.time.time", lambda: float(next(seconds)))
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.history) >= 4)
    assert {status.since for status in bench.history} == {bench.history[0].since}


async def test_a_reason_is_told_once_for_each_time_it_begins(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.probe.healthy = False
    with caplog.at_level(logging.ERROR):
        bench.start()
        await until(lambda: bench.probe.looks > 5)
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("shapes:far#0 failed: http://far:8000/health does not answer with 200")
        bench.probe.healthy = True
        await bench.reach(EngineState.READY)
        bench.probe.healthy = False
        await until(lambda: bench.states()[-1] is EngineState.FAILED and len(caplog.messages) >= 3)
    assert caplog.messages[1:] == [
        "shapes:far#0 failed: http://far:8000/health failed 3 times in a row (tried again every 0 s)",
        "shapes:far#0 failed: http://far:8000/health does not answer with 200 (tried again every 0 s)",
    ]


async def test_what_nobody_foresaw_does_not_leave_it_unwatched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> str:
        raise OverflowError("port must be 0-65535")

    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(bench.probe, "read_served_name", fail)
        bench.start()
        await bench.reach(EngineState.FAILED)
        assert "port must be 0-65535" in (bench.watch.status.reason or "")
    await bench.reach(EngineState.READY)


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_a_stop_ends_the_watch_whatever_it_waits_for(is_healthy: bool) -> None:
    bench = Bench()
    bench.watch = RemoteWatch(
        remote_spec(), lambda spec: bench.probe, bench.history.append, RemoteTiming(retry_s=600, health_every_s=600)
    )
    bench.probe.healthy = is_healthy
    task = bench.start()
    await bench.reach(EngineState.READY if is_healthy else EngineState.FAILED)
    bench.watch.stop()
    await until(task.done)
    assert bench.watch.status.state is EngineState.STOPPED
    assert bench.states()[-1] is EngineState.STOPPED
    assert EngineState.FAILED not in bench.states()[1:]
    assert bench.probe.is_closed


@pytest.mark.parametrize("question", ["is_healthy", "read_served_name", "warm", "read_max_model_len"])
async def test_a_stop_does_not_wait_for_an_answer(bench: Bench, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def hang(**_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.probe, question, hang)
    task = bench.start()
    await until(asked.is_set)
    bench.watch.stop()
    await until(task.done)
    assert bench.states() == [EngineState.STOPPED]
    assert bench.probe.is_closed


async def test_a_stop_ends_a_later_look_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    task = bench.start()
    await bench.reach(EngineState.READY)
    asked = asyncio.Event()

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.probe, "is_healthy", hang)
    await until(asked.is_set)
    bench.watch.stop()
    await until(task.done)
    assert bench.states() == [EngineState.READY, EngineState.STOPPED]
    assert bench.probe.is_closed


async def test_one_that_was_stopped_before_it_ran_is_not_asked(bench: Bench) -> None:
    bench.watch.stop()
    await bench.watch.run()
    assert (bench.states(), bench.probe.looks) == ([EngineState.STOPPED], 0)


async def test_a_watch_that_is_cut_off_closes_its_probe(bench: Bench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    await bench.tasks.close()
    assert bench.probe.is_closed
