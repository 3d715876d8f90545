"""What every store promises, tried on each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.state import (
    REQUESTS,
    USERS,
    Batch,
    Comparison,
    Entry,
    Event,
    Feedback,
    First,
    Lease,
    LeaseLost,
    Snapshot,
    Stale,
    Store,
    Value,
    open_store,
)
from gateway.telemetry.observations import Texts, Usage
from gateway.telemetry.samples import Sample
from tests.support.redis_server import RedisServer

STAGE = 2**47 + 12345
ENTRY = Entry("m", "v1", STAGE, 2**64 - 1, True)


def find_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("shared_redis")
        server.flush()
        return server.url
    return f"sqlite://{tmp_path}/new/state.db" if kind == "file" else "sqlite://"


@pytest.fixture(params=["file", "memory", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return find_url(request.param, request, tmp_path)


@pytest.fixture(params=["file", "redis"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that others see too."""
    return find_url(request.param, request, tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    made = open_store(url)
    await made.open()
    yield made
    await made.close()


async def test_documents_are_written_and_removed_under_one_revision(store: Store) -> None:
    assert await store.read(-1) == Snapshot(0, {})
    first = await store.commit(0, {"a": b"\x001", "b": b"2"})
    assert first > 0
    assert await store.read(first) is None
    second = await store.commit(first, {"a": None, "c": b""})
    assert second > first
    assert await store.read(first) == Snapshot(second, {"b": b"2", "c": b""})


async def test_who_has_not_seen_the_latest_writes_nothing(store: Store) -> None:
    revision = await store.commit(0, {"a": b"1"})
    with pytest.raises(Stale):
        await store.commit(0, {"a": b"2"}, [Event("x", "never")])
    assert await store.read(0) == Snapshot(revision, {"a": b"1"})
    assert await store.read_events(5) == []


async def test_of_many_who_write_at_once_one_wins_each_time(store: Store) -> None:
    async def add_one() -> None:
        while True:
            known = await store.read(-1)
            assert known is not None
            try:
                await store.commit(known.revision, {"n": b"%d" % (int(known.documents.get("n", b"0")) + 1)})
            except Stale:
                continue
            return

    await asyncio.gather(*(add_one() for _ in range(10)))
    found = await store.read(-1)
    assert found is not None
    assert found.documents == {"n": b"10"}


async def test_events_come_newest_first_and_in_pages(store: Store) -> None:
    revision = 0
    for number in range(7):
        event = Event("split", f"text {number}", "m" if number % 2 else "n", float(number), {"n": [number, None]})
        revision = await store.commit(revision, {}, [event])
    texts = [event.text for event in await store.read_events(3)]
    assert texts == ["text 6", "text 5", "text 4"]
    first = (await store.read_events(3))[-1]
    assert (first.kind, first.model, first.at, first.details) == ("split", "n", 4.0, {"n": [4, None]})
    assert [event.text for event in await store.read_events(9, before=first.number)] == [
        f"text {n}" for n in (3, 2, 1, 0)
    ]
    assert [event.text for event in await store.read_events(2, model="m")] == ["text 5", "text 3"]
    assert await store.read_events(9, before=0) == []


async def test_what_was_lost_is_put_back_and_what_is_newer_stays(store: Store) -> None:
    await store.commit(0, {"old": b"1"})
    known = Snapshot(5 << 20, {"a": b"5"})
    await store.restore(known)
    assert await store.read(-1) == known
    await store.restore(Snapshot(4 << 20, {"a": b"4"}))
    assert await store.read(-1) == known
    assert await store.commit(known.revision, {"a": b"6"}) > known.revision


async def test_a_lease_is_one_owners_until_it_ends(store: Store) -> None:
    mine = await store.hold("runner", "a", 30)
    assert mine is not None
    assert await store.hold("runner", "b", 30) is None
    assert await store.hold("runner", "a", 30) == mine, "it is kept"
    assert await store.hold("other", "b", 30) is not None
    await store.release(Lease("runner", "b", mine.token))
    assert await store.hold("runner", "b", 30) is None, "nobody else gives it back"
    await store.release(mine)
    theirs = await store.hold("runner", "b", 30)
    assert theirs is not None
    assert theirs.token > mine.token


async def test_a_lease_that_was_not_kept_is_another_s_and_fences_the_first_one_off(store: Store) -> None:
    mine = await store.hold("runner", "a", 0.05)
    assert mine is not None
    revision = await store.commit(0, {"a": b"1"}, lease=mine)
    await asyncio.sleep(0.08)
    theirs = await store.hold("runner", "b", 30)
    assert theirs is not None
    with pytest.raises(LeaseLost):
        await store.commit(revision, {"a": b"mine"}, lease=mine)
    assert await store.commit(revision, {"a": b"theirs"}, lease=theirs) > revision


async def test_a_lease_that_has_ended_is_lost_though_nobody_took_it(store: Store) -> None:
    mine = await store.hold("runner", "a", 0.02)
    await asyncio.sleep(0.05)
    with pytest.raises(LeaseLost):
        await store.commit(0, {"a": b"1"}, lease=mine)


async def test_gateways_are_there_as_long_as_they_say_so(store: Store) -> None:
    await store.report("a", b"1", 0.05)
    assert await store.report("b", b"2", 30) == {"a": b"1", "b": b"2"}
    await asyncio.sleep(0.08)
    assert await store.report("b", b"3", 30) == {"b": b"3"}


def sample(*values: float, has_buckets: bool = False) -> Sample:
    made = Sample()
    for value in values:
        made.add(value, has_buckets=has_buckets)
    return made


def first(unit: int, value: float, group: str = "request", version: str = "v1", bucket: int | None = None) -> First:
    return First(STAGE, version, group, unit, [Value("ttft_s", value, bucket)])


async def test_sums_add_up(store: Store) -> None:
    one = {(STAGE, "v1", "ttft_s"): sample(0.25, 0.5, has_buckets=True)}
    await store.tell(Batch("1", sums=one))
    await store.tell(Batch("2", sums=one | {(7, "v1", "ttft_s"): sample(9)}))
    evidence = await store.read_evidence(STAGE)
    assert evidence == {("v1", REQUESTS, "ttft_s"): sample(0.25, 0.5, 0.25, 0.5, has_buckets=True)}
    assert await store.read_evidence(8) == {}


async def test_a_user_counts_once_in_a_stage(store: Store) -> None:
    big = 2**64 - 1
    await store.tell(Batch("1", firsts=[first(1, 0.5, bucket=-3), first(1, 9.0), first(big, 1.5, bucket=-3)]))
    await store.tell(Batch("2", firsts=[first(1, 9.0), first(big, 9.0), first(2, 1.0, version="v2")]))
    await store.tell(Batch("3", firsts=[first(1, 4.0, group="stream")]))
    evidence = await store.read_evidence(STAGE)
    assert evidence["v1", USERS, "ttft_s"] == Sample(3, 6.0, 0.25 + 2.25 + 16, {-3: 2})
    assert evidence["v2", USERS, "ttft_s"] == Sample(1, 1.0, 1.0, {})


async def test_no_two_users_are_taken_for_one(store: Store) -> None:
    units = [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    await store.tell(Batch("1", firsts=[first(unit, 1.0) for unit in units]))
    await store.tell(Batch("2", firsts=[first(unit, 1.0) for unit in units]))
    assert (await store.read_evidence(STAGE))["v1", USERS, "ttft_s"].count == len(units)


async def test_counts_that_come_twice_count_once(store: Store) -> None:
    batch = Batch(
        "1", sums={(STAGE, "v1", "x"): sample(1)}, usage=[Usage("a", "m", "v1", 1, day="2026-01-01")],
        requests={"r": ENTRY},
    )  # fmt: skip
    await store.tell(batch)
    await store.tell(batch)
    assert (await store.read_evidence(STAGE))["v1", REQUESTS, "x"].count == 1
    assert [one.requests for one in await store.read_usage("")] == [1]


async def test_requests_are_remembered_for_feedback(store: Store) -> None:
    await store.tell(Batch("1", requests={"r1": ENTRY, "r2": Entry("m", "v2", 1, 0, False)}))
    assert await store.find_requests(["r1", "none", "r2"]) == {"r1": ENTRY, "r2": Entry("m", "v2", 1, 0, False)}
    assert await store.find_requests([]) == {}


async def test_of_two_requests_of_one_id_the_later_is_meant(store: Store) -> None:
    await store.tell(Batch("1", requests={"r1": ENTRY}))
    await store.tell(Batch("2", requests={"r1": Entry("m", "v9", 1, 0, False)}))
    assert (await store.find_requests(["r1"]))["r1"].version == "v9"


def feedback(name: str, request_id: str = "r1", metric: str = "thumb", value: float = 1.0, unit: int = 5) -> Feedback:
    counted = First(STAGE, "v1", f"feedback:{metric}", unit, [Value(metric, value)])
    return Feedback(name, request_id, metric, value, counted, {(STAGE, "v1", metric): sample(value)})


async def test_a_request_is_judged_once_by_each_metric(store: Store) -> None:
    await store.tell(Batch("1", requests={"r1": ENTRY, "r2": ENTRY}))
    given = [feedback("f1"), feedback("f2", value=0.0), feedback("f3", metric="score", value=0.5)]
    assert await store.give(given) == [True, False, True]
    assert await store.give([feedback("f4", "r2", value=0.0)]) == [True]
    evidence = await store.read_evidence(STAGE)
    assert evidence["v1", REQUESTS, "thumb"] == sample(1.0, 0.0)
    assert evidence["v1", USERS, "thumb"] == sample(1.0), "a user counts once"
    assert evidence["v1", USERS, "score"] == sample(0.5)


async def test_feedback_whose_answer_was_lost_is_taken_when_it_comes_again(store: Store) -> None:
    await store.tell(Batch("1", requests={"r1": ENTRY}))
    assert await store.give([feedback("f1")]) == [True]
    assert await store.give([feedback("f1")]) == [True]
    assert (await store.read_evidence(STAGE))["v1", REQUESTS, "thumb"].count == 1


async def test_feedback_that_is_not_compared_is_kept(store: Store) -> None:
    assert await store.give([Feedback("f1", "r1", "thumb", 1.0)]) == [True]
    assert await store.give([Feedback("f2", "r1", "thumb", 1.0)]) == [False]
    assert await store.read_evidence(STAGE) == {}


async def test_usage_adds_up_by_day_caller_and_version(store: Store) -> None:
    def used(caller: str, day: str, **counts: Any) -> Usage:
        return Usage(caller, "m", "v1", **counts, day=day)

    await store.tell(Batch("1", usage=[used("a", "2026-01-02", requests=1, tokens_in=5, cost=0.25)]))
    await store.tell(Batch("2", usage=[used("a", "2026-01-02", requests=2, failed=1, estimated_out=3, cost=0.5)]))
    await store.tell(Batch("3", usage=[used("", "2026-01-02", tokens_out=7), used("a", "2026-01-01", requests=9)]))
    both = used("a", "2026-01-02", requests=3, failed=1, tokens_in=5, estimated_out=3, cost=0.75)
    assert await store.read_usage("2026-01-02") == [used("", "2026-01-02", tokens_out=7), both]
    assert [one.day for one in await store.read_usage("2026-01-01")] == ["2026-01-01", "2026-01-02", "2026-01-02"]


async def test_the_latest_comparisons_of_each_model_are_kept(store: Store) -> None:
    def compared(number: int, model: str = "m") -> Comparison:
        texts = Texts("wie heißt „es“?", f"a {number}", "b\n")
        return Comparison(float(number), model, f"r{number}", "v1", "v2", {"agreement": 0.25, "x": -1.0}, texts)

    await store.tell(Batch("1", comparisons=[compared(number) for number in range(150)]))
    await store.tell(Batch("2", comparisons=[*(compared(number) for number in range(150, 230)), compared(7, "n")]))
    await store.tell(Batch("2", comparisons=[compared(999)]))
    assert await store.read_comparisons("m") == [compared(number) for number in range(229, 29, -1)]
    assert await store.read_comparisons("n") == [compared(7, "n")]
    assert await store.read_comparisons("none") == []
    await store.forget_comparisons("m")
    await store.forget_comparisons("none")
    assert await store.read_comparisons("m") == []
    assert await store.read_comparisons("n") == [compared(7, "n")]


async def test_all_of_it_is_there_after_a_restart(shared_url: str) -> None:
    one = open_store(shared_url)
    await one.open()
    revision = await one.commit(0, {"a": b"1"}, [Event("x", "text")])
    await one.tell(Batch("1", requests={"r1": ENTRY}, sums={(STAGE, "v1", "x"): sample(1)}))
    await one.give([feedback("f1")])
    await one.close()
    other = open_store(shared_url)
    await other.open()
    assert await other.read(0) == Snapshot(revision, {"a": b"1"})
    assert [event.text for event in await other.read_events(5)] == ["text"]
    assert await other.give([feedback("f2")]) == [False]
    assert (await other.read_evidence(STAGE))["v1", REQUESTS, "x"].count == 1
    await other.close()


async def test_two_gateways_see_the_same(shared_url: str) -> None:
    store, other = open_store(shared_url), open_store(shared_url)
    await store.open()
    await other.open()
    revision = await store.commit(0, {"a": b"1"})
    assert await other.read(0) == Snapshot(revision, {"a": b"1"})
    await other.tell(Batch("1", requests={"r1": ENTRY}, firsts=[first(1, 1.0)]))
    await store.tell(Batch("2", firsts=[first(1, 2.0)]))
    assert await store.find_requests(["r1"]) == {"r1": ENTRY}
    assert (await store.read_evidence(STAGE))["v1", USERS, "ttft_s"] == sample(1.0)
    assert await store.give([feedback("f1")]) == [True]
    assert await other.give([feedback("f2")]) == [False]
    await store.close()
    await other.close()
