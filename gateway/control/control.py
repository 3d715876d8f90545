"""Control: owns what is served. Applies the settings, looks at the engines, publishes routes."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from gateway.control.adapters import AdapterFetcher, Adapters, MountingEngines
from gateway.control.changes import ModelChanges
from gateway.control.describing import describe, list_stand_ins, tell
from gateway.control.keys import Keys
from gateway.control.mirror import Decision, StateMirror
from gateway.control.reloading import Reloading, find_conflicts, find_taken, plan
from gateway.control.serving import Serving
from gateway.control.snapshots import build_routes
from gateway.control.standing import Standing, is_failed, is_ready, read_standing
from gateway.engines.engine import EngineStatus, write_public_id
from gateway.errors import BadRequest, Conflict, StateUnavailable, UnknownModel
from gateway.fleet.replica import Replica, VersionKey
from gateway.settings import (
    ModelSettings,
    PriceSettings,
    SettingsError,
    ShadowSettings,
    SourceAddress,
    VersionSettings,
    find_name_fault,
    for_version,
)
from gateway.state import Event, Lease, Snapshot
from gateway.tasks import TaskSet
from gateway.traffic.routes import Routes

logger = logging.getLogger(__name__)

_PREFIX = "model/"
_SETTLE_AGAIN_S = 0.25


class Engines(MountingEngines, Protocol):
    """The engines as control sees them: the supervisor, or what another process tells of its own."""

    def statuses(self) -> list[EngineStatus]: ...
    def replicas(self) -> list[Replica]: ...


class Control:
    """The one who decides what is served, and publishes routes. `note` must be called when an engine's status changes.

    `keep` is told what engines there are to be from now on, whenever that changes; those of `serving` it knows of.
    What is changed goes through the `mirror`, and counts from when the store has it. `fetcher` gets adapters of other
    machines, `keys` let clients in. `started` is when the gateway was, in seconds since the epoch, where that is not
    now. `on_standing` is called when versions have become ready, or ready no more.
    """

    def __init__(
        self,
        serving: Serving,
        engines: Engines,
        keep: Callable[[Serving], None],
        publish: Callable[[Routes], None],
        fetcher: AdapterFetcher,
        mirror: StateMirror,
        keys: Keys,
        started: int | None = None,
    ) -> None:
        self.serving = serving
        self.on_standing: Callable[[], None] = lambda: None
        self._engines = engines
        self._keep = keep
        self._publish = publish
        self._mirror = mirror
        self._keys = keys
        self._tasks = TaskSet()
        self._parsed: dict[str, tuple[bytes, ModelChanges]] = {}
        self._routes: Routes | None = None
        self._standing: Standing | None = None
        self._reloading: Reloading | None = None
        self._created = int(time.time()) if started is None else started
        # Engines may be older than control: what they are by now is no news.
        self._told = {one.name: (one.state, one.phase, one.note) for one in engines.statuses()}
        if mirror.is_known:
            self.serving = self.read(mirror.snapshot.documents)
            if self.serving.changes != serving.changes:
                keep(self.serving)
        self._adapters = Adapters(self.serving, engines, fetcher)
        mirror.listeners.append(self._take)
        self.note()

    async def close(self) -> None:
        """Do nothing any more."""
        await self._adapters.close()
        await self._tasks.close()

    @property
    def routes(self) -> Routes:
        """What relays know now."""
        return self._routes or Routes()

    def note(self) -> None:
        """Take notice of how the engines are: tell people what has changed, and publish what relays should know."""
        statuses = self._engines.statuses()
        for status in statuses:
            self._tell(status)
        replicas, callers = self._engines.replicas(), self._keys.callers()
        routes = build_routes(self.serving, statuses, replicas, callers, self._created)
        if routes != self._routes:  # most of what an engine says while it loads is nothing to relays
            for event in list_stand_ins(self.routes, routes):
                self._mirror.note(event)
            self._routes = routes
            self._publish(routes)
        standing = self.read_standing()
        if standing != self._standing:
            self._standing = standing
            self.on_standing()
            self._go_on_reloading()

    def _tell(self, status: EngineStatus) -> None:
        """Tell people what is new of an engine."""
        known = self._told.get(status.name)
        self._told[status.name] = told = (status.state, status.phase, status.note)
        if (known is None or known[:2] != told[:2]) and (line := tell(status)):
            logger.info("%s", line)
        if status.note is not None and (known is None or known[2] != status.note):
            self._mirror.note(Event("engine", f"{status.name}: {status.note}", status.model))

    def read_standing(self) -> Standing:
        """How the versions stand here."""
        return read_standing(self.serving, self._engines.statuses())

    def find_price(self, model: str, version: str) -> PriceSettings | None:
        """What the tokens of a version cost, if that is known."""
        try:
            return self.serving.find_version(model, version).price
        except UnknownModel:
            return None

    def describe(self) -> list[dict[str, Any]]:
        """Models, versions and engines as the admin API shows them."""
        out = {name: model.split.out for name, model in self.routes.models.items()}
        return describe(self.serving, self._engines.statuses(), out)

    def read_split(self, model: str) -> dict[str, float]:
        """The shares of a model's versions. Raises UnknownModel."""
        return dict(self.serving.find_model(model).split)

    async def settle(self) -> None:
        """Have the store remember who has which version, as it is now, as soon as it can be asked."""
        while True:
            try:
                return await self.change(lambda serving: serving)
            except StateUnavailable:
                await asyncio.sleep(_SETTLE_AGAIN_S)

    async def reload(self, models: tuple[ModelSettings, ...], *, is_reset: bool = False) -> Reloading:
        """Serve what the file says by now, versions that it adds as soon as they are ready; returns how.

        What was changed at run time wins over the file unless this `is_reset`, which needs the state. Raises BadRequest
        for what cannot change while it is served, Conflict, and StateUnavailable; then nothing has changed.
        """
        before = self.serving.file if self._reloading is None else self._reloading.before
        if conflicts := list(find_conflicts(before, models)):
            raise BadRequest(f"The file cannot be used now: {'; '.join(conflicts)}.")
        if taken := next(find_taken(self.serving, models), None):
            raise Conflict(f"The file would take away {taken}: leave it there, or abort the rollout first.")
        if is_reset:
            await self.change(lambda serving: serving.forget([model.name for model in models]))
        self._reloading = reloading = plan(before, models, self.serving)
        self._serve_file(reloading.blended)
        self._go_on_reloading()
        return reloading

    def _go_on_reloading(self) -> None:
        """Serve the new file alone when what it adds is ready; give it up when that cannot be."""
        reloading = self._reloading
        if reloading is None:
            return
        standing = self.read_standing()
        if reloading.is_ready(standing):
            self._reloading = None
            self._serve_file(reloading.after)
            self._mirror.note(Event("reloaded", "the settings file was read again"))
            logger.info("the settings file is served as it stands now")
        elif failed := reloading.find_failed(standing):
            self._reloading = None
            self._serve_file(reloading.before)
            text = f"the settings file is not served: {', '.join(failed)} cannot be"
            self._mirror.note(Event("reload_failed", text))
            logger.error("%s", text)

    def _serve_file(self, models: tuple[ModelSettings, ...]) -> None:
        self.serving = Serving(models, self.serving.changes)
        self._keep(self.serving)
        self.note()
        self._tasks.start(self.settle(), "remember who has which version")

    async def set_split(self, model: str, weights: Mapping[str, float]) -> dict[str, float]:
        """Change the shares of a model's versions, for all relays at once; returns them as fractions.

        Raises UnknownModel, BadRequest, Conflict and StateUnavailable; then nothing has changed.
        """

        def say(serving: Serving) -> Event:
            split = serving.find_model(model).split
            shares = ", ".join(f"{name} {share:.4g}" for name, share in split.items())
            return Event("split", f"{model} is split {shares}", model, details={"split": split})

        await self.change(lambda serving: serving.set_split(model, weights), say)
        return self.read_split(model)

    async def set_shadow(self, model: str, shadow: ShadowSettings | None) -> None:
        """Have another version get copies of a model's requests, or with None no one.

        Raises UnknownModel, BadRequest and StateUnavailable; then nothing has changed.
        """
        text, details = f"no request to {model} is copied any more", {}
        if shadow is not None:
            text = f"{shadow.percent:g} % of the requests to {model} are copied to {shadow.version}"
            details = shadow.model_dump()
        event = Event("shadow", text, model, details=details)
        await self.change(lambda serving: serving.set_shadow(model, shadow), lambda serving: event)

    async def add_version(self, model: str, data: object, replaces: str | None = None) -> str:
        """Load one more version, written as in the file; returns its public id at once.

        It gets no traffic but what asks for it by name; with `replaces` it gets that version's share when all of its
        engines are ready, and that version is removed. Raises UnknownModel, BadRequest, Conflict and StateUnavailable;
        then nothing has changed.
        """
        version = self.read_version(model, data)
        goal = "" if replaces is None else f" to replace {replaces}"
        text = f"{model}:{version.name} is being loaded{goal}"
        event = Event("version_loaded", text, model, details={"version": version.name, "replaces": replaces})
        await self.change(lambda serving: serving.add(model, version, replaces), lambda serving: event)
        return f"{model}:{version.name}"

    def read_version(self, model: str, data: object) -> VersionSettings:
        """A version that is to be loaded, written as in the file. Raises BadRequest, and Conflict for a name in use."""
        try:
            version = for_version(data)
        except SettingsError as error:
            raise BadRequest(f"The version can't be served: {'; '.join(map(str, error.problems))}.") from error
        old = any((one.model, one.version) == (model, version.name) for one in self._engines.statuses())
        if old and (model, version.name) not in self.serving.list_versions():
            raise Conflict(f"{model}:{version.name} still finishes its answers: wait, or choose another name.")
        return version

    async def remove_version(self, model: str, version: str) -> str:
        """Serve a version no longer; its engines end with their last answer. Returns its public id.

        Raises UnknownModel, Conflict for one that traffic still goes to, StateUnavailable; then nothing has changed.
        """
        event = Event("version_unloaded", f"{model}:{version} is unloaded", model, details={"version": version})
        await self.change(lambda serving: serving.remove(model, version), lambda serving: event)
        return f"{model}:{version}"

    async def set_adapter(self, model: str, version: str, adapter: str, place: Path | SourceAddress | None) -> str:
        """Mount an adapter on a version, in the place of one of its name; with None take it away.

        Returns its public id. Raises UnknownModel for a name that nobody serves, BadRequest for what cannot be done,
        NoCapacity where the adapter cannot be fetched for now, StateUnavailable; then nothing has changed.
        """
        self.serving.find_version(model, version)
        if fault := find_name_fault(adapter):
            raise BadRequest(f"The name of an adapter {fault}.", param="name")
        self._mirror.require()
        folder = await self._adapters.set((model, version), adapter, place)
        public_id = write_public_id(model, version, adapter)
        kind = "adapter_removed" if place is None else "adapter_mounted"
        text = f"{public_id} is {'taken away' if place is None else f'mounted, {folder}'}"
        event = Event(kind, text, model, details={"version": version, "adapter": adapter})
        written = None if place is None else str(place)
        await self.change(lambda serving: serving.set_adapter(model, version, adapter, written), lambda serving: event)
        return public_id

    async def hand_over(self, lease: Lease, standings: Sequence[Standing]) -> None:
        """Let successors that are ready take the place they were loaded for, and give up those that cannot be."""
        for key, old in list(self.serving.successors.items()):
            name = ":".join(key)
            if is_ready(standings, name):
                event = Event("version_replaced", f"{name} takes the place of {old}, which is unloaded", key[0])
                act, level = Serving.hand_over, logging.INFO
            elif is_failed(standings, name):
                event = Event("version_failed", f"{name} can't be served: {old} stays in its place", key[0])
                act, level = Serving.give_up, logging.ERROR
            else:
                continue
            await self.change(partial(_end_succession, act, key), partial(_say, event), lease, level)

    async def change(
        self,
        change: Callable[[Serving], Serving],
        say: Callable[[Serving], Event] | None = None,
        lease: Lease | None = None,
        level: int = logging.INFO,
    ) -> None:
        """Serve something else from when the store has it; `say` tells of it, unless it is no change.

        Raises what `change` does, StateUnavailable, and LeaseLost; then nothing has changed.
        """

        def decide(documents: Mapping[str, bytes]) -> Decision[Event | None]:
            settled, written = self.compose(documents, change)
            event = say(settled) if say is not None and written else None
            return Decision(written, () if event is None else (event,), event)

        event = await self._mirror.commit(decide, lease)
        if event is not None:
            logger.log(level, "%s", event.text)

    def compose(
        self, documents: Mapping[str, bytes], change: Callable[[Serving], Serving]
    ) -> tuple[Serving, dict[str, bytes | None]]:
        """What would be served after a change to what the documents say, and the documents that say so."""
        before = self.read(documents)
        settled = change(before).settle(time.time())
        return settled, {
            f"{_PREFIX}{name}": changes.model_dump_json().encode()
            for name, changes in settled.changes.items()
            if changes != before.changes.get(name)
        }

    def _take(self, snapshot: Snapshot) -> None:
        """The store has something else: serve that."""
        serving = self.read(snapshot.documents)
        if serving.changes == self.serving.changes:
            self.note()  # of keys, perhaps
            return
        self.serving = serving
        self._keep(serving)
        self.note()
        self._adapters.follow(serving)

    def read(self, documents: Mapping[str, bytes]) -> Serving:
        """What is to be served by the documents. One that cannot be read counts as it did before."""
        changes: dict[str, ModelChanges] = {}
        for name, data in documents.items():
            if name.startswith(_PREFIX):
                model = name.removeprefix(_PREFIX)
                known = self._parsed.get(name)
                if known is None or known[0] != data:
                    known = self._parsed[name] = (data, self._parse(model, data))
                changes[model] = known[1]
        return Serving(self.serving.file, changes)

    def _parse(self, model: str, data: bytes) -> ModelChanges:
        try:
            return ModelChanges.model_validate_json(data)
        except ValidationError:
            logger.exception("what the state says of %s cannot be read, and is ignored", model)
            return self.serving.read(model)


def _end_succession(act: Callable[[Serving, str, str], Serving], key: VersionKey, serving: Serving) -> Serving:
    """What comes of a succession, unless there is none any more."""
    return act(serving, *key) if key in serving.successors else serving


def _say(event: Event, serving: Serving) -> Event:
    return event
