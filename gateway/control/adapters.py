"""Adapters mounted at run time: here because somebody asked this gateway, or because another one was asked."""

import asyncio
import logging
from pathlib import Path
from typing import Protocol

from gateway.control.serving import Serving
from gateway.engines.engine import MountRefused, write_public_id
from gateway.errors import BadRequest, NoCapacity
from gateway.fleet.replica import VersionKey
from gateway.settings import SourceAddress, is_address, parse_address
from gateway.sources import Fetched, SourceFailed, Told
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)

_MOUNT_AGAIN_S = 5.0

Mount = tuple[str | None, int]
"""Where an adapter lies, None if it was taken away, and the how manyeth time it was said."""


class MountingEngines(Protocol):
    """The engines that adapters are mounted on."""

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None: ...


class AdapterFetcher(Protocol):
    """Gets what lies elsewhere; `sources.Fetcher` is the real one."""

    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched: ...


class Adapters:
    """Has the engines of this gateway mount what `serving` says, and follows what it says later."""

    def __init__(self, serving: Serving, engines: MountingEngines, fetcher: AdapterFetcher) -> None:
        self._engines = engines
        self._fetcher = fetcher
        self._tasks = TaskSet()
        self._serving = serving
        # Engines are started with the adapters that are wanted by then.
        self._mounts = _list_mounts(serving)

    async def close(self) -> None:
        """Mount nothing any more."""
        await self._tasks.close()

    async def set(self, key: VersionKey, adapter: str, place: Path | SourceAddress | None) -> Path | None:
        """Mount an adapter, in the place of one of its name, or take it away; returns its folder.

        Raises BadRequest for what cannot be mounted, NoCapacity where it cannot be fetched for now.
        """
        public_id = write_public_id(*key, adapter)
        folder = await self._fetch(public_id, place) if isinstance(place, SourceAddress) else place
        try:
            await self._engines.set_adapter(*key, adapter, folder)
        except MountRefused as refused:
            raise BadRequest(f"{public_id}: {refused}.") from refused
        written = None if place is None else str(place)
        number = self._serving.read(key[0]).mounts.get(f"{key[1]}+{adapter}", 0) + 1
        self._mounts.setdefault(key, {})[adapter] = (written, number)  # what will be read is here already
        return folder

    def follow(self, serving: Serving) -> None:
        """Do here what another gateway has been told to."""
        self._serving = serving
        for key, wanted in _list_mounts(serving).items():
            for adapter, mount in wanted.items() if key in serving.list_versions() else ():
                if self._mounts.setdefault(key, {}).get(adapter) != mount:
                    self._mounts[key][adapter] = mount
                    self._tasks.start(self._mount(key, adapter, mount), f"mount {adapter} as on another gateway")

    async def _mount(self, key: VersionKey, adapter: str, mount: Mount) -> None:
        """As soon as there is an engine to do it on."""
        public_id, (place, _) = write_public_id(*key, adapter), mount
        while self._mounts.get(key, {}).get(adapter) == mount and key in self._serving.list_versions():
            try:
                folder = None if place is None else await self._locate(public_id, place)
                await self._engines.set_adapter(*key, adapter, folder)
            except (MountRefused, NoCapacity, BadRequest) as refused:
                logger.warning("%s cannot be mounted as on another gateway: %s", public_id, refused)
                await asyncio.sleep(_MOUNT_AGAIN_S)
            else:
                logger.info("%s is as on another gateway: %s", public_id, place or "taken away")
                return

    async def _locate(self, public_id: str, place: str) -> Path:
        return await self._fetch(public_id, parse_address(place)) if is_address(place) else Path(place)

    async def _fetch(self, public_id: str, address: SourceAddress) -> Path:
        """What lies there now, though the same may have been fetched before."""
        logger.info("fetching %s for %s", address, public_id)
        try:
            fetched = await self._fetcher.fetch(address, lambda done, total: None, is_fresh=True)
        except SourceFailed as failure:
            message = f"{public_id}: {failure}."
            raise BadRequest(message) if failure.is_final else NoCapacity(message, retry_after_s=30) from failure
        return fetched.folder


def _list_mounts(serving: Serving) -> dict[VersionKey, dict[str, Mount]]:
    """What was mounted and taken away at run time."""
    found: dict[VersionKey, dict[str, Mount]] = {}
    for model in serving.models:
        changes = serving.read(model.name)
        for version, adapters in changes.adapters.items():
            found[model.name, version] = {
                name: (place, changes.mounts.get(f"{version}+{name}", 0)) for name, place in adapters.items()
            }
    return found
