from dataclasses import replace
from pathlib import Path

from gateway.engines.settling import settle
from gateway.settings import SourceAddress, parse_address
from gateway.sources import Told
from tests.support.fake_engines import engine_spec, fetch_nothing

ONE, TWO = parse_address("hf://org/name"), parse_address("s3://bucket/adapter")


async def test_an_engine_whose_files_are_here_is_settled(tmp_path: Path) -> None:
    spec = engine_spec(tmp_path)
    assert await settle(spec, fetch_nothing, lambda phase, fraction: None) is spec


async def test_all_sources_together_make_one_progress(tmp_path: Path) -> None:
    spec = engine_spec(tmp_path)
    told: list[tuple[str, float]] = []
    asked_for: list[str] = []

    async def fetch(address: SourceAddress, tell: Told, public_id: str) -> Path:
        asked_for.append(public_id)
        tell(5, 10)
        tell(0, 0)
        return tmp_path / address.kind

    unsettled = replace(
        spec,
        sources=(ONE, TWO),
        settle=lambda folders: replace(spec, checkpoint=folders[ONE], adapters=(("a", folders[TWO]),)),
    )
    settled = await settle(unsettled, fetch, lambda phase, fraction: told.append((phase, fraction)))
    assert (settled.checkpoint, settled.adapters) == (tmp_path / "hf", (("a", tmp_path / "s3"),))
    assert asked_for == [f"{spec.model}:{spec.version}"] * 2
    assert told == [
        ("fetching hf://org/name", 0.0), ("fetching hf://org/name", 0.25), ("fetching hf://org/name", 0.0),
        ("fetching s3://bucket/adapter", 0.5), ("fetching s3://bucket/adapter", 0.75),
        ("fetching s3://bucket/adapter", 0.5),
    ]  # fmt: skip
