import sqlite3
from pathlib import Path

import pytest

from gateway.errors import StateUnavailable
from gateway.state import Event
from gateway.state.sqlite import SqliteStore


async def test_a_file_that_cannot_be_had_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqliteStore(tmp_path / "file" / "state.db")
    with pytest.raises(StateUnavailable, match="make room, or give the right to") as caught:
        await store.open()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5)
    (tmp_path / "file").unlink()
    await store.open()
    await store.close()


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("not a database, and longer than the head of one " * 10)
    with pytest.raises(StateUnavailable, match="not a database"):
        await SqliteStore(tmp_path / "state.db").open()
    assert (tmp_path / "state.db").read_text().startswith("not a database")


async def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateUnavailable, match="a later release has written it"):
        await SqliteStore(tmp_path / "state.db").open()


async def test_what_does_not_fit_on_the_disk_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.commit(0, {"a": b"1"})
    assert store._connection is not None
    store._connection.execute("PRAGMA max_page_count = 60")
    with pytest.raises(StateUnavailable, match="full"):
        await store.commit(1, {"a": b"2", "b": b"x" * 1_000_000})
    store._connection.execute("PRAGMA max_page_count = 100000")
    found = await store.read(0)
    assert found is not None
    assert (found.revision, found.documents) == (1, {"a": b"1"})
    await store.close()


async def test_what_was_written_is_on_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    assert store._connection is not None
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_others_may_not_read_the_folder(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "state.db")
    await store.open()
    assert (tmp_path / "new").stat().st_mode & 0o007 == 0
    await store.close()


async def test_a_lease_and_a_gateway_of_before_the_machine_was_started_are_gone(tmp_path: Path) -> None:
    before = SqliteStore(tmp_path / "state.db")
    before._boot = "an earlier one"
    lease = await before.hold("runner", "a", 10_000)
    await before.report("a", b"", 10_000)
    await before.close()
    store = SqliteStore(tmp_path / "state.db")
    mine = await store.hold("runner", "b", 10)
    assert lease is not None
    assert mine is not None
    assert mine.token > lease.token
    assert await store.report("b", b"", 10) == {"b": b""}
    await store.close()


async def test_the_wall_clock_does_not_end_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "state.db")
    assert await store.hold("runner", "a", 10) is not None
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert await store.hold("runner", "b", 10) is None
    await store.close()


async def test_of_events_the_latest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.state.sqlite._EVENTS_KEPT", 3)
    store = SqliteStore(tmp_path / "state.db")
    await store.commit(0, {}, [Event("x", f"{number}") for number in range(9)])
    assert [event.text for event in await store.read_events(99)] == ["8", "7", "6"]
    await store.close()
