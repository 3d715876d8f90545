"""What an engine needs of other machines, fetched before its life begins."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.engines.engine import EngineSpec
from gateway.settings import SourceAddress
from gateway.sources import Told

Fetch = Callable[[SourceAddress, Told, str], Awaitable[Path]]
"""Fetches a source into a folder of this machine, for the version of a public id. Raises SourceFailed."""


async def settle(spec: EngineSpec, fetch: Fetch, note: Callable[[str, float], None]) -> EngineSpec:
    """The same engine with folders of this machine alone. `note` is told a phase and a fraction from 0 to 1.

    Raises SourceFailed.
    """
    if spec.settle is None:
        return spec
    folders: dict[SourceAddress, Path] = {}
    public_id = f"{spec.model}:{spec.version}"
    for address in spec.sources:
        phase, begun = f"fetching {address}", len(folders)

        def tell(done_bytes: int, total_bytes: int, phase: str = phase, begun: int = begun) -> None:
            note(phase, (begun + done_bytes / max(total_bytes, 1)) / len(spec.sources))

        tell(0, 1)
        folders[address] = await fetch(address, tell, public_id)
    return spec.settle(folders)
