from pathlib import Path

import pytest

from gateway.state import Batch, Entry, Feedback, First, Value
from gateway.state.sqlite import SqliteStore
from gateway.telemetry.samples import Sample

ENTRY = Entry("m", "v1", 1, 2, True)


async def test_requests_are_not_remembered_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.state.sqlite_counts._REQUESTS_KEPT", 3)
    store = SqliteStore(tmp_path / "state.db")
    for number in range(5):
        await store.tell(Batch(f"b{number}", requests={f"r{number}": ENTRY}))
    assert list(await store.find_requests([f"r{number}" for number in range(5)])) == ["r2", "r3", "r4"]
    await store.close()


async def test_nor_is_feedback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.state.sqlite_counts._FEEDBACK_KEPT", 2)
    store = SqliteStore(tmp_path / "state.db")
    given = [Feedback(f"f{number}", f"r{number}", "thumb", 1.0) for number in range(4)]
    assert await store.give(given) == [True] * 4
    again = [Feedback("x", f"r{number}", "thumb", 1.0) for number in (3, 0)]
    assert await store.give(again) == [False, True]
    await store.close()


async def test_what_was_measured_in_stages_long_out_of_use_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.state.sqlite_counts._STAGES_KEPT", 2)
    store = SqliteStore(tmp_path / "state.db")

    async def use(stage: int, name: str) -> None:
        first = First(stage, "v1", "request", 7, [Value("x", 1.0, 0)])
        await store.tell(Batch(name, firsts=[first], sums={(stage, "v1", "x"): Sample(1, 1.0, 1.0, {0: 1})}))

    for number, stage in enumerate((1, 2, 1, 3)):
        await use(stage, f"b{number}")
    assert [bool(await store.read_evidence(stage)) for stage in (1, 2, 3)] == [True, False, True]
    await use(2, "anew")
    assert {sample.count for sample in (await store.read_evidence(2)).values()} == {1}, "its users count anew"
    await store.close()
