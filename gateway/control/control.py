"""Control: owns what is served. Applies the settings, looks at the engines, publishes routes."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from pydantic import TypeAdapter, ValidationError

from gateway.control.plan import find_bounds, read_system_prompt
from gateway.control.serving import Serving
from gateway.engines.engine import EngineState, EngineStatus, MountRefused, find_public_id, write_public_id
from gateway.errors import BadRequest, Conflict, NoCapacity
from gateway.fleet.replica import Replica
from gateway.settings import ModelSettings, PartName, SettingsError, SourceAddress, VersionSettings, for_version
from gateway.sources import Fetched, SourceFailed, Told
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split

logger = logging.getLogger(__name__)

_WAKEABLE = (EngineState.ASLEEP, EngineState.STARTING, EngineState.WARMING, EngineState.DRAINING)
"""Where an engine that may sleep is when requests are better held than refused."""

_adapter_name = TypeAdapter[str](PartName)


class Engines(Protocol):
    """The engines as control sees them: the supervisor, or what another process tells of its own."""

    def statuses(self) -> list[EngineStatus]: ...
    def replicas(self) -> list[Replica]: ...
    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None: ...


class AdapterFetcher(Protocol):
    """Gets what lies elsewhere; `sources.Fetcher` is the real one."""

    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched: ...


class Control:
    """The one who decides what is served, and publishes routes. `note` must be called when an engine's status changes.

    `keep` is told what engines there are to be from now on, whenever that changes; those of `serving` it knows of.
    `fetcher` gets adapters of other machines. `started` is when the gateway was, in seconds since the epoch, where that
    is not now.
    """

    def __init__(
        self,
        serving: Serving,
        engines: Engines,
        keep: Callable[[Serving], None],
        publish: Callable[[Routes], None],
        fetcher: AdapterFetcher,
        started: int | None = None,
    ) -> None:
        self._serving = serving
        self._engines = engines
        self._keep = keep
        self._publish = publish
        self._fetcher = fetcher
        self._published: Routes | None = None
        self._created = int(time.time()) if started is None else started
        # Engines may be older than control: what they are by now is no news.
        self._told = {status.name: (status.state, status.phase) for status in engines.statuses()}
        self.note()

    def note(self) -> None:
        """Take notice of how the engines are: tell people what has changed, and publish what relays should know."""
        for status in self._engines.statuses():
            told = (status.state, status.phase)
            if self._told.get(status.name) != told:
                self._told[status.name] = told
                _tell(status)
        self._hand_over()
        routes = self._build_routes()
        if routes != self._published:  # most of what an engine says while it loads is nothing to relays
            self._published = routes
            self._publish(routes)

    def describe(self) -> list[dict[str, Any]]:
        """Models, versions and engines as the admin API shows them."""
        by_version: dict[tuple[str, str], list[EngineStatus]] = {}
        for status in self._engines.statuses():
            by_version.setdefault((status.model, status.version), []).append(status)
        return [
            {
                "name": model.name,
                "split": model.split,
                "versions": [
                    _describe_version(model, version, by_version.pop((model.name, version.name), []))
                    for version in model.versions
                ]
                # What is left of a version that was removed: it finishes its answers.
                + [
                    _describe_version(model, VersionSettings(name=name), statuses)
                    for (of, name), statuses in list(by_version.items())
                    if of == model.name and (of, name) not in self._serving.list_versions()
                ],
            }
            for model in self._serving.models
        ]

    def read_split(self, model: str) -> dict[str, float]:
        """The shares of a model's versions. Raises UnknownModel."""
        return dict(self._serving.find_model(model).split)

    def set_split(self, model: str, weights: Mapping[str, float]) -> dict[str, float]:
        """Change the shares of a model's versions, for all relays at once; returns them as fractions.

        It holds until the next start. Raises UnknownModel and BadRequest; then nothing has changed.
        """
        self._serve(self._serving.set_split(model, weights))
        shares = self.read_split(model)
        logger.info("%s is split %s", model, ", ".join(f"{name} {share:.4g}" for name, share in shares.items()))
        return shares

    def add_version(self, model: str, data: object, replaces: str | None = None) -> str:
        """Load one more version, written as in the file; returns its public id at once.

        It gets no traffic but what asks for it by name; with `replaces` it gets that version's share when all of its
        engines are ready, and that version is removed. It holds until the next start. Raises UnknownModel,
        BadRequest and Conflict; then nothing has changed.
        """
        try:
            version = for_version(data)
        except SettingsError as error:
            raise BadRequest(f"The version can't be served: {'; '.join(map(str, error.problems))}.") from error
        old = any((one.model, one.version) == (model, version.name) for one in self._engines.statuses())
        if old and (model, version.name) not in self._serving.list_versions():
            raise Conflict(f"{model}:{version.name} still finishes its answers: wait, or choose another name.")
        self._serve(self._serving.add(model, version, replaces))
        logger.info("%s:%s is loaded%s", model, version.name, "" if replaces is None else f" to replace {replaces}")
        return f"{model}:{version.name}"

    def remove_version(self, model: str, version: str) -> str:
        """Serve a version no longer; its engines end with their last answer. Returns its public id.

        It holds until the next start. Raises UnknownModel, and Conflict for one that traffic still goes to; then
        nothing has changed.
        """
        self._serve(self._serving.remove(model, version))
        logger.info("%s:%s is unloaded", model, version)
        return f"{model}:{version}"

    def _serve(self, serving: Serving) -> None:
        self._serving = serving
        self._keep(serving)
        self.note()

    def _hand_over(self) -> None:
        """Let successors that are ready take the place they were loaded for, and give up those that cannot be."""
        for (model, version), old in list(self._serving.successors.items()):
            wanted = self._serving.find_version(model, version)
            count = len(wanted.endpoints) or wanted.replicas
            own = [one for one in self._engines.statuses() if (one.model, one.version) == (model, version)]
            # There may be more than were asked for: one is to take another's place, and may fail beside it.
            lost = sum(one.state is EngineState.FAILED and one.next_try_at is None for one in own)
            if sum(one.state is EngineState.READY for one in own) >= count:
                logger.info("%s:%s takes the place of %s, which is unloaded", model, version, old)
                self._serving = self._serving.hand_over(model, version)
                self._keep(self._serving)
            elif lost and len(own) - lost < count:
                logger.error("%s:%s can't be served: %s stays in its place", model, version, old)
                self._serving = self._serving.give_up(model, version)
                self._keep(self._serving)

    async def set_adapter(self, model: str, version: str, adapter: str, place: Path | SourceAddress | None) -> str:
        """Mount an adapter on a version, in the place of one of its name; with None take it away. Until the next start.

        Returns its public id. Raises UnknownModel for a name that nobody serves, BadRequest for what cannot be done,
        NoCapacity where the adapter cannot be fetched for now; then nothing has changed.
        """
        self._serving.find_version(model, version)
        try:
            _adapter_name.validate_python(adapter)
        except ValidationError as error:
            raise BadRequest(
                f"The name of an adapter {str(error.errors()[0]['msg']).removeprefix('Value error, ')}.", param="name"
            ) from error
        public_id = write_public_id(model, version, adapter)
        folder = await self._fetch(public_id, place) if isinstance(place, SourceAddress) else place
        try:
            await self._engines.set_adapter(model, version, adapter, folder)
        except MountRefused as refused:
            raise BadRequest(f"{public_id}: {refused}.") from refused
        logger.info("%s is %s", public_id, "taken away" if folder is None else f"mounted, {folder}")
        return public_id

    async def _fetch(self, public_id: str, address: SourceAddress) -> Path:
        """What lies there now, though the same may have been fetched before."""
        logger.info("fetching %s for %s", address, public_id)
        try:
            fetched = await self._fetcher.fetch(address, lambda done, total: None, is_fresh=True)
        except SourceFailed as failure:
            message = f"{public_id}: {failure}."
            raise BadRequest(message) if failure.is_final else NoCapacity(message, retry_after_s=30) from failure
        return fetched.folder

    def _build_routes(self) -> Routes:
        ready: dict[tuple[str, str], list[Replica]] = {}
        for replica in self._engines.replicas():
            ready.setdefault((replica.model, replica.version), []).append(replica)
        statuses = self._engines.statuses()
        return Routes({model.name: self._route(model, ready, statuses) for model in self._serving.models})

    def _route(
        self, model: ModelSettings, ready: Mapping[tuple[str, str], list[Replica]], statuses: list[EngineStatus]
    ) -> ModelRoute:
        versions: dict[str, VersionRoute] = {}
        for version in model.versions:
            own = [status for status in statuses if (status.model, status.version) == (model.name, version.name)]
            versions[version.name] = VersionRoute(
                name=version.name,
                replicas=tuple(ready.get((model.name, version.name), ())),
                adapters=_find_adapters(model, version, own),
                defaults={
                    name: msgspec.json.encode(value)
                    for name, value in version.defaults.items()
                    if name != "system_prompt"
                },
                system_prompt=read_system_prompt(version),
                state=own[0].state if own else "not started",
                routing=version.routing,
                can_wake=version.sleep_after_s is not None and any(one.state in _WAKEABLE for one in own),
                pictures=find_bounds(version),
                digests=_find_digests(own),
                max_model_len=next((status.max_model_len for status in own if status.max_model_len), None),
            )
        # One without an engine that is ready or can wake gives its users to the others meanwhile.
        out = [name for name, version in versions.items() if not version.replicas and not version.can_wake]
        split = Split.over(model.name, self._serving.allocations[model.name], out)
        stage = self._serving.stages[model.name]
        return ModelRoute(model.name, versions, split, model.sticky_by, self._created, stage)


def _find_adapters(model: ModelSettings, version: VersionSettings, statuses: list[EngineStatus]) -> dict[str, str]:
    """The version's adapters, with the engines' name for each: those that every ready engine of it has."""
    mounted = [status.adapters for status in statuses if status.state is EngineState.READY]
    mounted = mounted or [status.adapters for status in statuses[:1]]
    if not mounted:
        return {name: write_public_id(model.name, version.name, name) for name in version.adapters}
    common = [name for name in mounted[0] if all(name in others for others in mounted)]
    return {find_public_id(name).partition("+")[2]: name for name in common}


def _find_digests(statuses: list[EngineStatus]) -> dict[str, str]:
    """Of what is served, by the names that clients know adapters by."""
    served = next((status.digests for status in statuses if status.state is EngineState.READY), {})
    return {find_public_id(name).partition("+")[2]: digest for name, digest in served.items()}


def _tell(status: EngineStatus) -> None:
    """One log line for people; failures have been logged with their reason by the engine's keeper."""
    if status.state is EngineState.READY:
        took = "" if status.ready_after_s is None else f" after {status.ready_after_s:.1f} s"
        logger.info("%s is ready%s", status.name, took)
    elif status.phase:
        logger.info("%s is %s: %s", status.name, status.state, status.phase)
    elif status.state is EngineState.STOPPED:
        logger.info("%s is stopped", status.name)


def _describe_version(model: ModelSettings, version: VersionSettings, statuses: list[EngineStatus]) -> dict[str, Any]:
    return {
        "name": version.name,
        "checkpoint": version.checkpoint,
        "endpoints": list(version.endpoints),
        "adapters": sorted(_find_adapters(model, version, statuses)),
        "share": model.split.get(version.name, 0.0),
        "engines": [_describe_engine(status) for status in statuses],
    }


def _describe_engine(status: EngineStatus) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(status),
        "drafts": None if status.drafts is None else status.drafts.to_dict(),
        "seconds_in_state": round(time.time() - status.since, 1),
    }
