import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.errors import StateUnavailable
from gateway.state import Batch, Comparison, Entry, Event, Feedback, First, Snapshot, Stale, Value
from gateway.state.redis import RedisStore
from gateway.telemetry.observations import Texts
from gateway.telemetry.samples import Sample
from tests.support.redis_server import RedisServer

ENTRY = Entry("m", "v1", 1, 2, True)
FEEDBACK = Feedback("f1", "r1", "thumb", 1.0, First(1, "v1", "feedback:thumb", 2, [Value("thumb", 1.0)]))


@pytest.fixture
def server(shared_redis: RedisServer) -> RedisServer:
    shared_redis.flush()
    return shared_redis


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that keeps nothing on the disk."""
    made = RedisServer(tmp_path, careless=True)
    made.start()
    yield made
    made.kill()


async def test_a_server_that_is_away_is_told_at_once_and_used_again_when_it_is_back(careless: RedisServer) -> None:
    store = RedisStore(careless.url)
    await store.open()
    await store.commit(0, {"a": b"1"})
    careless.kill()
    began_s = time.monotonic()
    with pytest.raises(StateUnavailable, match="Redis, which has the state, cannot be asked") as caught:
        await store.commit(1, {"a": b"2"})
    assert time.monotonic() - began_s < 1
    assert caught.value.retry_after_s == 5
    careless.start()
    assert await store.read(-1) == Snapshot(0, {})
    await store.close()


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.state.redis._TIMEOUT_S", 0.1)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        store = RedisStore(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        async with asyncio.timeout(2):
            with pytest.raises(StateUnavailable):
                await store.open()
        await store.close()


async def test_what_a_server_has_lost_it_is_told_again(careless: RedisServer) -> None:
    store = RedisStore(careless.url)
    await store.open()
    await store.tell(Batch("b1", requests={"r1": ENTRY}, sums={(1, "v1", "x"): Sample(1, 1.0, 1.0, {})}))
    assert await store.give([FEEDBACK]) == [True]
    careless.kill()
    with pytest.raises(StateUnavailable):
        await store.read(-1)
    careless.start()
    assert await store.read(-1) == Snapshot(0, {})
    assert await store.find_requests(["r1"]) == {"r1": ENTRY}
    assert {key[2]: sample.count for key, sample in (await store.read_evidence(1)).items()} == {"x": 1, "thumb": 1}
    assert await store.give([Feedback("other", "r1", "thumb", 0.0)]) == [False]
    await store.close()


async def test_nor_does_it_come_to_know_again_what_was_forgotten(careless: RedisServer) -> None:
    store = RedisStore(careless.url)
    await store.open()
    compared = Comparison(1.0, "m", "r1", "v1", "v2", {}, Texts("q", "a", "b"))
    await store.tell(Batch("b1", comparisons=[compared]))
    await store.forget_comparisons("m")
    await store.tell(Batch("b2", comparisons=[msgspec.structs.replace(compared, request_id="r2")]))
    careless.kill()
    careless.start()
    await store.read(-1)
    assert [one.request_id for one in await store.read_comparisons("m")] == ["r2"]
    await store.close()


async def test_a_server_that_was_another_one_for_a_moment_is_told_again(careless: RedisServer) -> None:
    store = RedisStore(careless.url)
    await store.open()
    assert await store.give([FEEDBACK]) == [True]
    careless.kill()
    careless.start()  # nobody has asked anything meanwhile
    assert await store.read(-1) == Snapshot(0, {})
    assert await store.give([Feedback("other", "r1", "thumb", 0.0)]) == [False]
    await store.close()


async def test_a_commit_that_was_lost_is_not_taken_for_the_one_after_it(careless: RedisServer) -> None:
    first, second = RedisStore(careless.url), RedisStore(careless.url)
    revision = await first.commit(0, {"a": b"1"})
    careless.kill()
    careless.start()
    other = await second.commit(0, {"a": b"2"})  # by one that has not seen the first
    assert await first.read(revision) == Snapshot(other, {"a": b"2"})
    await first.restore(Snapshot(revision, {"a": b"1"}))
    assert await first.read(-1) == Snapshot(other, {"a": b"2"}), "what the state says by now counts"
    for number in range(3):
        other = await second.commit(other, {"a": b"%d" % number})
    assert other >> 20 == 4
    await first.close()
    await second.close()


async def test_a_batch_counts_once_however_long_it_was_on_its_way(server: RedisServer) -> None:
    store = RedisStore(server.url)
    batch = Batch("b1", sums={(1, "v1", "x"): Sample(1, 1.0, 1.0, {})})
    await store.tell(batch)
    assert await store._redis.ttl("{gateway}:batches") == -1, "it does not end by itself"
    await store.tell(batch)
    assert (await store.read_evidence(1))["v1", "requests", "x"].count == 1
    await store.close()


async def test_what_a_server_has_not_lost_does_not_count_twice(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store = RedisStore(server.url)
    await store.open()
    await store.tell(Batch("b1", requests={"r1": ENTRY}, sums={(1, "v1", "x"): Sample(1, 1.0, 1.0, {})}))
    await store.give([FEEDBACK])
    revision = await store.commit(0, {"a": b"1"})
    before = await store.read_evidence(1)
    server.kill()
    with pytest.raises(StateUnavailable):
        await store.read(-1)
    server.start()
    assert await store.read(-1) == Snapshot(revision, {"a": b"1"})
    assert await store.read_evidence(1) == before
    await store.close()
    server.kill()


async def test_a_commit_whose_answer_was_lost_is_not_stale_to_itself(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(server.url)
    names = iter(("one", "one", "two"))
    monkeypatch.setattr("uuid.uuid4", lambda: type("Name", (), {"hex": next(names)}))
    revision = await store.commit(0, {"a": b"1"})
    assert await store.commit(0, {"a": b"1"}) == revision
    with pytest.raises(Stale):
        await store.commit(0, {"a": b"1"})
    await store.close()


async def test_requests_are_not_remembered_for_ever(server: RedisServer) -> None:
    store = RedisStore(server.url)
    await store.tell(Batch("b1", requests={"r1": ENTRY}))
    await store.give([FEEDBACK])
    await store._redis.set("{gateway}:requests", 51 * 20_000 - 1)
    await store.tell(Batch("b2", requests={"r2": ENTRY, "r3": ENTRY}))
    assert await store.find_requests(["r1", "r2", "r3"]) == {"r2": ENTRY, "r3": ENTRY}
    assert await store._redis.exists("{gateway}:requests:0", "{gateway}:feedback:0") == 0
    await store.close()


async def test_users_of_one_stage_have_a_bound(server: RedisServer) -> None:
    store = RedisStore(server.url)
    for start in range(1, 2_000_000, 100_000):
        await store._redis.eval(
            "for n = ARGV[1], ARGV[1] + 99999, 5000 do local t = {} for i = n, n + 4999 do t[#t + 1] = i end "
            "redis.call('SADD', KEYS[1], unpack(t)) end", 1, "{gateway}:seen:1:request", start,
        )  # fmt: skip
    await store.tell(Batch("b1", firsts=[First(1, "v1", "request", 7, [Value("x", 1.0)])]))
    assert await store.read_evidence(1) == {}
    await store.close()


async def test_a_server_that_is_full_says_so(careless: RedisServer) -> None:
    store = RedisStore(careless.url)
    await store._redis.config_set("maxmemory", "1")
    with pytest.raises(StateUnavailable, match="maxmemory"):
        await store.commit(0, {"a": b"1"}, [Event("x", "text")])
    await store._redis.config_set("maxmemory", "0")
    assert await store.read(-1) == Snapshot(0, {})
    await store.close()
