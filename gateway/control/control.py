"""Control: owns what is served. Applies the settings, looks at the engines, publishes routes."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from pydantic import TypeAdapter, ValidationError

from gateway.control.plan import find_bounds, read_system_prompt
from gateway.engines.engine import EngineState, EngineStatus, MountRefused, find_public_id, write_public_id
from gateway.errors import BadRequest, UnknownModel
from gateway.fleet.replica import Replica
from gateway.settings import ModelSettings, PartName, Settings, VersionSettings
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split

logger = logging.getLogger(__name__)

_adapter_name = TypeAdapter[str](PartName)


class Engines(Protocol):
    """The engines as control sees them: the supervisor, or what another process tells of its own."""

    def statuses(self) -> list[EngineStatus]: ...
    def replicas(self) -> list[Replica]: ...
    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None: ...


class Control:
    """The one who publishes routes. `note` must be called at every change of an engine's status.

    `started` is when the gateway was, in seconds since the epoch, where that is not now.
    """

    def __init__(
        self, settings: Settings, engines: Engines, publish: Callable[[Routes], None], started: int | None = None
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._publish = publish
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
                    _describe_version(model, version, by_version.get((model.name, version.name), []))
                    for version in model.versions
                ],
            }
            for model in self._settings.models
        ]

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> str:
        """Mount an adapter on a version, in the place of one of its name; with None take it away. Until the next start.

        Returns its public id. Raises UnknownModel for a name that nobody serves, BadRequest for what cannot be done;
        then nothing has changed.
        """
        known = next((one for one in self._settings.models if one.name == model), None)
        if known is None or not any(one.name == version for one in known.versions):
            raise UnknownModel(f"{model}:{version} is not served here.")
        try:
            _adapter_name.validate_python(adapter)
        except ValidationError as error:
            raise BadRequest(
                f"The name of an adapter {str(error.errors()[0]['msg']).removeprefix('Value error, ')}.", param="name"
            ) from error
        public_id = write_public_id(model, version, adapter)
        try:
            await self._engines.set_adapter(model, version, adapter, folder)
        except MountRefused as refused:
            raise BadRequest(f"{public_id}: {refused}.") from refused
        logger.info("%s is %s", public_id, "taken away" if folder is None else f"mounted, {folder}")
        return public_id

    def _build_routes(self) -> Routes:
        ready: dict[tuple[str, str], list[Replica]] = {}
        for replica in self._engines.replicas():
            ready.setdefault((replica.model, replica.version), []).append(replica)
        statuses = self._engines.statuses()
        return Routes({model.name: self._route(model, ready, statuses) for model in self._settings.models})

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
                pictures=find_bounds(version),
                max_model_len=next((status.max_model_len for status in own if status.max_model_len), None),
            )
        split = Split.from_weights(model.name, _effective_weights(model, versions))
        return ModelRoute(model.name, versions, split, model.sticky_by, self._created)


def _effective_weights(model: ModelSettings, versions: Mapping[str, VersionRoute]) -> dict[str, float]:
    """The split over versions that can answer: one without a ready engine gives its share to the others."""
    ready = {name: weight for name, weight in model.split.items() if versions[name].replicas}
    total = sum(ready.values())
    return {name: weight / total for name, weight in ready.items()} if total > 0 else model.split


def _find_adapters(model: ModelSettings, version: VersionSettings, statuses: list[EngineStatus]) -> dict[str, str]:
    """The version's adapters, with the engines' name for each: those that every ready engine of it has."""
    mounted = [status.adapters for status in statuses if status.state is EngineState.READY]
    mounted = mounted or [status.adapters for status in statuses[:1]]
    if not mounted:
        return {name: write_public_id(model.name, version.name, name) for name in version.adapters}
    common = [name for name in mounted[0] if all(name in others for others in mounted)]
    return {find_public_id(name).partition("+")[2]: name for name in common}


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
        "engines": [
            {**msgspec.to_builtins(status), "seconds_in_state": round(time.time() - status.since, 1)}
            for status in statuses
        ],
    }
