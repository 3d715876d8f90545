import asyncio
import logging
from collections.abc import Mapping

import pytest

from gateway.control import mirror as module
from gateway.control.mirror import Decision, StateMirror
from gateway.errors import StateUnavailable
from gateway.state import Event, Lease, LeaseLost, Snapshot
from gateway.state.sqlite import SqliteStore
from gateway.tasks import TaskSet
from tests.support.fake_engines import until


class Flaky(SqliteStore):
    """A store in memory that can be away."""

    is_away = False

    async def _run(self, work, **more):  # type: ignore[no-untyped-def]
        if self.is_away:
            raise StateUnavailable("The state is away.")
        return await super()._run(work, **more)


class Bench:
    def __init__(self, store: Flaky | None = None) -> None:
        self.store = store or Flaky(None)
        self.mirror = StateMirror(self.store, remember=lambda snapshot: self.remembered.append(snapshot.revision))
        self.remembered: list[int] = []
        self.seen: list[dict[str, bytes]] = []
        self.mirror.listeners.append(lambda snapshot: self.seen.append(dict(snapshot.documents)))

    async def write(self, name: str, value: bytes | None, *events: Event, lease: Lease | None = None) -> str:
        return await self.mirror.commit(lambda documents: Decision({name: value}, events, "done"), lease)


async def test_what_is_written_here_is_seen_at_once_and_elsewhere_by_looking() -> None:
    here = Bench()
    there = Bench(here.store)
    await there.mirror.look()
    assert await here.write("a", b"1") == "done"
    assert here.seen == [{}, {"a": b"1"}]
    await there.mirror.look()
    await there.mirror.look()
    assert there.seen == [{}, {"a": b"1"}]
    await there.write("a", None)
    await here.mirror.look()
    assert here.seen[-1] == {}
    assert here.remembered == [0, 1, 2]
    await here.store.close()


async def test_who_was_overtaken_decides_again_by_what_is_there() -> None:
    here = Bench()
    there = Bench(here.store)

    def count(documents: Mapping[str, bytes]) -> Decision[int]:
        number = int(documents.get("n", b"0")) + 1
        return Decision({"n": b"%d" % number}, (), number)

    await asyncio.gather(here.mirror.look(), there.mirror.look())
    numbers = await asyncio.gather(*(bench.mirror.commit(count) for bench in (here, there) * 5))
    assert sorted(numbers) == list(range(1, 11))
    await here.store.close()


async def test_a_refusal_writes_nothing() -> None:
    bench = Bench()

    def refuse(documents: Mapping[str, bytes]) -> Decision[None]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await bench.mirror.commit(refuse)
    assert bench.mirror.snapshot == Snapshot(0, {})
    await bench.store.close()


async def test_no_change_makes_no_revision() -> None:
    bench = Bench()
    assert await bench.mirror.commit(lambda documents: Decision({}, (), 7)) == 7
    assert await bench.store.read(-1) == Snapshot(0, {})
    await bench.store.close()


async def test_while_the_state_is_away_what_was_read_counts_and_nothing_is_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    await bench.write("a", b"1")
    bench.mirror.require()
    bench.store.is_away = True
    await bench.mirror.look()
    await bench.mirror.look()
    assert caplog.messages == ["The state is away. Until it is back, nothing can be changed."], "it is told once"
    assert bench.mirror.snapshot.documents == {"a": b"1"}
    with pytest.raises(StateUnavailable):
        bench.mirror.require()
    with pytest.raises(StateUnavailable):
        await bench.write("a", b"2")
    bench.store.is_away = False
    await bench.write("a", b"3")
    bench.mirror.require()
    assert bench.seen[-1] == {"a": b"3"}
    await bench.store.close()


async def test_it_looks_again_and_again_and_says_when_the_state_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0)
    bench = Bench()
    tasks = TaskSet()
    bench.store.is_away = True
    tasks.start(bench.mirror.run(), "look")
    await asyncio.sleep(0.01)
    bench.store.is_away = False
    await until(lambda: "the state is back" in caplog.text)
    await bench.store.commit(0, {"a": b"1"})
    await until(lambda: bench.seen[-1:] == [{"a": b"1"}])
    await tasks.close()
    await bench.store.close()


async def test_what_the_store_has_lost_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    await bench.write("a", b"1")
    await bench.write("a", b"2")
    empty = Flaky(None)
    mirror = StateMirror(empty, bench.mirror.snapshot)
    await mirror.look()
    assert "the store has lost what was decided last" in caplog.text
    assert mirror.snapshot == Snapshot(2, {"a": b"2"}) == await empty.read(-1)
    await empty.close()
    await bench.store.close()


async def test_a_listener_that_fails_keeps_nobody_from_looking(caplog: pytest.LogCaptureFixture) -> None:
    store, seen = SqliteStore(None), list[Snapshot]()

    def fail(snapshot: Snapshot) -> None:
        raise ZeroDivisionError

    mirror = StateMirror(store)
    mirror.listeners += [fail, seen.append]
    await mirror.look()
    assert await mirror.commit(lambda documents: Decision({"a": b"1"}, (), 7)) == 7
    assert seen[-1].documents == {"a": b"1"}
    assert "could not be taken up" in caplog.text
    await store.close()


async def test_events_that_nothing_depends_on_are_written_when_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0)
    monkeypatch.setattr("time.time", lambda: 12.0)
    bench = Bench()
    bench.store.is_away = True
    bench.mirror.note(Event("x", "one"))
    bench.mirror.note(Event("x", "two", at=3.0))
    tasks = TaskSet()
    tasks.start(bench.mirror.run(), "look")
    await asyncio.sleep(0.01)
    bench.store.is_away = False
    found: list[Event] = []
    while len(found) < 2:
        found = await bench.store.read_events(5)
    assert [(event.text, event.at) for event in found] == [("two", 3.0), ("one", 12.0)]
    await asyncio.sleep(0.01)
    assert len(await bench.store.read_events(5)) == 2
    await tasks.close()
    await bench.store.close()


async def test_a_lease_that_is_lost_fences_a_commit_off() -> None:
    bench = Bench()
    with pytest.raises(LeaseLost):
        await bench.write("a", b"1", lease=Lease("runner", "me", 1))
    lease = await bench.store.hold("runner", "me", 30)
    assert await bench.write("a", b"1", lease=lease) == "done"
    await bench.store.close()


async def test_events_get_their_time(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.INFO):
        await bench.write("a", b"1", Event("x", "text"))
    [event] = await bench.store.read_events(1)
    assert event.at > 1e9
    await bench.store.close()
