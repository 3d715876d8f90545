import asyncio
from typing import Any

import pytest

from gateway.control import evidence as module
from gateway.control.evidence import EvidenceDesk
from gateway.errors import StateUnavailable
from gateway.settings import PriceSettings
from gateway.state import REQUESTS, USERS, Batch, Comparison, Entry
from gateway.state.sqlite import SqliteStore
from gateway.tasks import TaskSet
from gateway.telemetry.observations import Copied, Observation, Observed, Texts, Usage


class FlakyStore(SqliteStore):
    """A store in memory that can be away, or fail after it has written; `told` are the batches that came."""

    def __init__(self) -> None:
        super().__init__(None)
        self.is_away = self.is_mute = False
        self.told: list[str] = []

    async def tell(self, batch: Batch) -> None:
        self.told.append(batch.id)
        if self.is_away:
            raise StateUnavailable("away")
        await super().tell(batch)
        if self.is_mute:
            raise StateUnavailable("nobody knows")

    async def forget_comparisons(self, model: str) -> None:
        if self.is_away:
            raise StateUnavailable("away")
        await super().forget_comparisons(model)


def observed(number: int, *, is_own: bool = True, unit: int | None = None, stage: int = 5) -> Observed:
    one = Observation(
        f"r{number}", "m", "v1", stage, number if unit is None else unit, is_own, False, total_s=1.0, tokens_in=1000,
        tokens_out=2000,
    )  # fmt: skip
    return Observed([one], [Usage("anna", "m", "v1", 1, 0, 1000, 2000)])


class Bench:
    def __init__(self, price: PriceSettings | None = None) -> None:
        self.store = FlakyStore()
        self.with_texts = {"m": True}
        self.desk = EvidenceDesk(self.store, lambda model, version: price, lambda: self.with_texts)

    async def count(self, scope: str = USERS, metric: str = "error_rate") -> int:
        sample = (await self.store.read_evidence(5)).get(("v1", scope, metric))
        return 0 if sample is None else sample.count


async def test_what_is_taken_is_written_once() -> None:
    bench = Bench()
    for number in range(3):
        bench.desk.take(observed(number, unit=number % 2))
    await bench.desk.write()
    await bench.desk.write()
    assert len(bench.store.told) == 1
    assert (await bench.count(), await bench.count(REQUESTS)) == (2, 3)
    assert await bench.store.find_requests(["/r2"]) == {"/r2": Entry("m", "v1", 5, 0, True)}
    [usage] = await bench.store.read_usage("")
    assert (usage.caller, usage.requests, usage.tokens_in, usage.cost) == ("anna", 3, 3000, 0.0)
    assert len(usage.day) == len("2026-01-01")
    await bench.store.close()


async def test_many_are_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_IN_BATCH", 3)
    bench = Bench()
    for number in range(8):
        bench.desk.take(observed(number))
    bench.store.is_mute = True
    for told in (1, 2):
        with pytest.raises(StateUnavailable):
            await bench.desk.write()
        assert len(bench.store.told) == told
    bench.store.is_mute = False
    await bench.desk.write()
    assert len(set(bench.store.told)) == 3
    assert (await bench.count(), await bench.count(REQUESTS)) == (8, 8)
    assert len(await bench.store.find_requests([f"/r{number}" for number in range(8)])) == 8
    await bench.store.close()


async def test_writing_ends_though_more_comes_all_the_time() -> None:
    bench = Bench()
    bench.desk.take(observed(0))
    tell = bench.store.tell

    async def tell_and_get_more(batch: Batch) -> None:
        await tell(batch)
        bench.desk.take(observed(len(bench.store.told)))

    bench.store.tell = tell_and_get_more  # type: ignore[method-assign]
    await asyncio.wait_for(bench.desk.write(), 5)
    assert len(bench.store.told) == 1
    await bench.store.close()


async def test_requests_that_are_no_evidence_are_remembered_and_billed() -> None:
    bench = Bench()
    bench.desk.take(observed(1, is_own=False))
    await bench.desk.write()
    assert (await bench.count(), await bench.count(REQUESTS)) == (0, 0)
    assert list(await bench.store.find_requests(["/r1"])) == ["/r1"]
    assert [usage.requests for usage in await bench.store.read_usage("")] == [1]
    await bench.store.close()


async def test_tokens_are_priced() -> None:
    bench = Bench(PriceSettings(input=1.0, output=2.0))
    bench.desk.take(observed(1))
    bench.desk.take(observed(2))
    await bench.desk.write()
    assert (await bench.store.read_evidence(5))["v1", USERS, "cost"].total == pytest.approx(2 * 0.005)
    assert (await bench.store.read_usage(""))[0].cost == pytest.approx(2 * 0.005)
    await bench.store.close()


async def test_what_could_not_be_written_is_written_later_and_once() -> None:
    bench = Bench()
    bench.desk.take(observed(1))
    bench.store.is_mute = True
    with pytest.raises(StateUnavailable):
        await bench.desk.write()
    bench.desk.take(observed(2))
    bench.store.is_mute, bench.store.is_away = False, True
    with pytest.raises(StateUnavailable):
        await bench.desk.write()
    bench.store.is_away = False
    await bench.desk.write()
    assert bench.store.told[0] == bench.store.told[1] == bench.store.told[2], "the store knows it by its id"
    assert (await bench.count(), await bench.count(REQUESTS)) == (2, 2)
    await bench.store.close()


async def test_what_is_kept_while_the_store_is_away_has_a_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    bench = Bench()
    for number in range(10):
        bench.desk.take(observed(number))
    await bench.desk.write()
    assert (await bench.count(), await bench.count(REQUESTS)) == (3, 10), "sums need no room"
    assert [usage.requests for usage in await bench.store.read_usage("")] == [10]
    assert bench.desk.dropped == 7
    assert caplog.text.count("no longer remembered for feedback") == 1
    await bench.store.close()


async def test_it_is_written_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITE_EVERY_S", 0.001)
    bench = Bench()
    tasks = TaskSet()
    tasks.start(bench.desk.run(), "write")
    bench.store.is_away = True
    bench.desk.take(observed(1))
    await asyncio.sleep(0.02)
    bench.store.is_away = False
    async with asyncio.timeout(5):
        while not await bench.count():
            await asyncio.sleep(0.001)
    await tasks.close()
    await bench.store.close()


def copied(number: int, unit: int, texts: Texts | None = None) -> Copied:
    return Copied(f"r{number}", "m", "v1", "v2", 5, unit, {"agreement": 0.5, "change/total_s": -1.0}, texts)


async def test_copies_count_for_the_version_that_they_are_compared_with() -> None:
    bench = Bench()
    bench.desk.take(Observed(copies=[copied(number, number % 2) for number in range(3)]))
    await bench.desk.write()
    assert (await bench.count(USERS, "agreement"), await bench.count(REQUESTS, "agreement")) == (2, 3)
    assert (await bench.store.read_evidence(5))["v1", REQUESTS, "change/total_s"].total == -3
    assert await bench.store.read_comparisons("m") == []
    assert await bench.store.read_usage("") == [], "nobody pays for them"


async def test_texts_are_kept_where_they_come() -> None:
    bench = Bench()
    bench.desk.take(Observed(copies=[copied(1, 1, Texts("which?", "a", "b"))]))
    await bench.desk.write()
    [kept] = await bench.store.read_comparisons("m")
    assert (kept.request_id, kept.texts.shadow, kept.values["agreement"]) == ("r1", "b", 0.5)


async def test_texts_that_are_not_wanted_any_more_when_they_come_are_not_kept() -> None:
    bench = Bench()
    bench.desk.take(Observed(copies=[copied(1, 1, Texts("which?", "a", "b"))]))
    bench.store.is_away = True
    with pytest.raises(StateUnavailable):
        await bench.desk.write()
    bench.store.is_away = False
    bench.with_texts["m"] = False
    await bench.desk.write()
    assert await bench.store.read_comparisons("m") == []
    assert await bench.count(REQUESTS, "agreement") == 1
    await bench.store.close()


async def test_texts_are_forgotten_when_they_are_switched_off_also_before_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WRITE_EVERY_S", 0.001)
    bench = Bench()
    bench.with_texts |= {"off": False, "leaves": True}
    texts = Texts("which?", "a", "b")
    earlier = [Comparison(1.0, model, "r0", "v1", "v2", {}, texts) for model in ("m", "off", "leaves")]
    await bench.store.tell(Batch("earlier", comparisons=earlier))
    tasks = TaskSet()
    tasks.start(bench.desk.run(), "write")

    async def wait_until_kept(*models: str) -> None:
        async with asyncio.timeout(5):
            while [one for one in ("m", "off", "leaves") if await bench.store.read_comparisons(one)] != list(models):
                await asyncio.sleep(0.001)

    await wait_until_kept("m", "leaves")
    del bench.with_texts["leaves"]
    await wait_until_kept("m")
    bench.store.is_away = True
    bench.with_texts["m"] = False
    await asyncio.sleep(0.01)
    bench.store.is_away = False
    await wait_until_kept()
    bench.with_texts["m"] = True
    bench.desk.take(Observed(copies=[copied(2, 2, texts)]))
    await wait_until_kept("m")
    await tasks.close()
    await bench.store.close()


async def test_a_defect_loses_what_it_strikes_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WRITE_EVERY_S", 0.001)
    bench = Bench()
    tell: Any = bench.store.tell

    async def break_once(batch: Batch) -> None:
        bench.store.tell = tell  # type: ignore[method-assign]
        raise ZeroDivisionError

    bench.store.tell = break_once  # type: ignore[method-assign]
    tasks = TaskSet()
    tasks.start(bench.desk.run(), "write")
    bench.desk.take(observed(1))
    await asyncio.sleep(0.02)
    bench.desk.take(observed(2))
    async with asyncio.timeout(5):
        while not await bench.count():
            await asyncio.sleep(0.001)
    assert "could not be written, and is lost" in caplog.text
    await tasks.close()
    await bench.store.close()
