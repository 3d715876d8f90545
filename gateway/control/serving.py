"""What is served, as a value: the models of the file with what was changed of them since.

Pure: every act gives a new value, or raises what is wrong with it in words for the person who asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydantic import TypeAdapter

from gateway.control.changes import ModelChanges
from gateway.errors import BadRequest, Conflict, UnknownModel
from gateway.fleet.replica import VersionKey
from gateway.settings import ModelSettings, ShadowSettings, VersionSettings, normalise_split
from gateway.traffic.allocation import Allocation
from gateway.traffic.shadow import Shadow

_Dumped = TypeAdapter[tuple[tuple[ModelSettings, ...], dict[str, ModelChanges]]](
    tuple[tuple[ModelSettings, ...], dict[str, ModelChanges]]
)


@dataclass(frozen=True)
class Serving:
    """`file` are the models as the settings have them, `changes` what is remembered of each by its name."""

    file: tuple[ModelSettings, ...]
    changes: Mapping[str, ModelChanges] = field(default_factory=dict)

    @classmethod
    def load(cls, dumped: bytes) -> "Serving":
        """What `dump` wrote."""
        return cls(*_Dumped.validate_json(dumped))

    def dump(self) -> bytes:
        """All of it, for another process."""
        return _Dumped.dump_json((self.file, dict(self.changes)))

    @cached_property
    def models(self) -> tuple[ModelSettings, ...]:
        """The models as they are to be served."""
        return tuple(self.read(model.name).apply(model) for model in self.file)

    @property
    def successors(self) -> dict[VersionKey, str]:
        """Versions that take the place of another of their model as soon as they are ready."""
        return {
            (model.name, new): old for model in self.models for new, old in self.read(model.name).successors.items()
        }

    def read(self, model: str) -> ModelChanges:
        """What is remembered of a model."""
        return self.changes.get(model, ModelChanges())

    def find_model(self, model: str) -> ModelSettings:
        """Raises UnknownModel."""
        for one in self.models:
            if one.name == model:
                return one
        raise UnknownModel(f"{model} is not served here.")

    def list_texts(self) -> dict[str, bool]:
        """Of which models it is kept what a shadow says, with what clients asked and were told."""
        return {one.name: one.shadow is not None and one.shadow.keep_texts for one in self.models}

    def find_version(self, model: str, version: str) -> VersionSettings:
        """Raises UnknownModel."""
        for one in self.models:
            for own in one.versions if one.name == model else ():
                if own.name == version:
                    return own
        raise UnknownModel(f"{model}:{version} is not served here.")

    def list_versions(self) -> set[VersionKey]:
        """Every version."""
        return {(model.name, version.name) for model in self.models for version in model.versions}

    @cached_property
    def allocations(self) -> dict[str, Allocation]:
        """How the users of each model are spread over its versions."""
        return {model.name: self.read(model.name).allocate(model) for model in self.models}

    @cached_property
    def shadows(self) -> dict[str, Shadow]:
        """Who gets copies of the requests to each model; nothing for a model whose requests nobody gets."""
        found = {model.name: self.read(model.name).find_shadow(model) for model in self.models}
        return {name: shadow for name, shadow in found.items() if shadow is not None}

    @cached_property
    def stages(self) -> dict[str, int]:
        """The stage that each model is in, see `ModelChanges.find_stage`."""
        return {model.name: self.read(model.name).find_stage(model) for model in self.models}

    def settle(self, now: float) -> "Serving":
        """The same, with all that has to be remembered of it: users' versions, and the stage that begins `now`."""
        return self.remember({model.name: self.read(model.name).settle(model, now) for model in self.models})

    def add(self, model: str, version: VersionSettings, replaces: str | None = None) -> "Serving":
        """One version more, which gets no traffic yet; if it `replaces` another it gets that one's when it is ready.

        Raises UnknownModel and Conflict.
        """
        self.find_model(model)
        if (model, version.name) in self.list_versions():
            raise Conflict(
                f"{model}:{version.name} is here already: choose another name, or unload it first.", param="name"
            )
        known = self.read(model)
        successors = dict(known.successors)
        if replaces is not None:
            self.require_free(model)
            self.find_version(model, replaces)
            for rival, gone in successors.items():
                if gone == replaces:
                    raise Conflict(f"{model}:{rival} is to take that place already: remove it first.", param="replaces")
            successors[version.name] = replaces
        return _change(
            self,
            model,
            added=(*known.added, version),
            removed=tuple(name for name in known.removed if name != version.name),
            successors=successors,
        )

    def remove(self, model: str, version: str) -> "Serving":
        """One version less. Raises UnknownModel, and Conflict for one that traffic still goes to."""
        self.find_version(model, version)
        self.require_free(model)
        share = self.find_model(model).split.get(version, 0.0)
        if share:
            raise Conflict(
                f"{model}:{version} has {share:.4g} of the traffic: give it to others first (`gateway split`), "
                f"or load a version that replaces it."
            )
        return _without(self, model, version)

    def set_split(self, model: str, weights: Mapping[str, float]) -> "Serving":
        """Other shares of the traffic. Raises UnknownModel, BadRequest, and Conflict while a rollout moves them."""
        old = self.find_model(model)
        self.require_free(model)
        if not weights:
            raise BadRequest(f"Name the versions of {model} that are to get traffic, with their weights.")
        try:
            split = normalise_split(dict(weights), [version.name for version in old.versions])
        except ValueError as error:
            raise BadRequest(f"The split of {model}: {error}.") from error
        return _change(self, model, split=split)

    def set_shadow(self, model: str, shadow: ShadowSettings | None) -> "Serving":
        """Another version gets copies of requests, or with None no one does. Raises UnknownModel and BadRequest."""
        known = self.find_model(model)
        names = [version.name for version in known.versions]
        if shadow is not None and shadow.version not in names:
            raise BadRequest(f"{model} has no version {shadow.version!r}, but {', '.join(names)}.", param="version")
        return _change(self, model, shadow=shadow, is_shadow_touched=True)

    def list_touched(self) -> list[str]:
        """What was changed at run time and therefore counts whatever the file says, in words for people."""
        found = []
        for model in self.models:
            known = self.read(model.name)
            touched = {
                "split": known.split is not None,
                "shadow": known.is_shadow_touched,
                "adapters": bool(known.adapters),
                **{f"version {version.name}, loaded": True for version in known.added},
                **{f"version {name}, unloaded": True for name in known.removed},
            }
            found += [f"{model.name}: {what}" for what, is_touched in touched.items() if is_touched]
        return found

    def forget(self, models: Sequence[str]) -> "Serving":
        """Of these models what the file says alone. Raises Conflict while a rollout moves one of them."""
        for model in models:
            self.require_free(model)
        return self.remember({model: self.read(model).forget() for model in models})

    def require_free(self, model: str) -> None:
        """Raises Conflict while a rollout has the say over a model's split."""
        if rollout := self.read(model).rollout:
            raise Conflict(f"The rollout {rollout} moves the traffic of {model}: abort it first (`gateway rollout`).")

    def move(self, model: str, split: Mapping[str, float], rollout: str) -> "Serving":
        """The shares that a rollout gives; an empty name ends its say over them.

        Raises UnknownModel, and Conflict where nobody is left who would get them.
        """
        names = [version.name for version in self.find_model(model).versions]
        known = {name: share for name, share in split.items() if name in names}
        if not any(known.values()):
            raise Conflict(f"The versions that are to get the traffic of {model} are not served any more.")
        return _change(self, model, split=normalise_split(known, names), rollout=rollout)

    def require_settled(self, model: str) -> None:
        """Raises Conflict while a version waits to take another's place."""
        for new, old in self.read(model).successors.items():
            raise Conflict(f"{model}:{new} is to take the place of {old}: wait until it has, or remove it first.")

    def set_adapter(self, model: str, version: str, adapter: str, place: str | None) -> "Serving":
        """An adapter of a version lies there; with None it has none of that name. Raises UnknownModel."""
        self.find_version(model, version)
        known, name = self.read(model), f"{version}+{adapter}"
        adapters = known.adapters | {version: known.adapters.get(version, {}) | {adapter: place}}
        return _change(self, model, adapters=adapters, mounts=known.mounts | {name: known.mounts.get(name, 0) + 1})

    def hand_over(self, model: str, version: str) -> "Serving":
        """A successor has become ready: it gets the share of the one that it replaces, which is removed."""
        split = self.find_model(model).split
        gone = self.read(model).successors[version]
        moved = split | {version: split.get(version, 0.0) + split.get(gone, 0.0), gone: 0.0}
        before = self.read(model).successors.get(gone)  # it was itself to take another's place: that goes on
        after = _without(_change(self, model, split=moved), model, gone)
        if before is None:
            return after
        return _change(after, model, successors={**after.read(model).successors, version: before})

    def give_up(self, model: str, version: str) -> "Serving":
        """A successor replaces nobody any more."""
        successors = {new: old for new, old in self.read(model).successors.items() if new != version}
        return _change(self, model, successors=successors)

    def remember(self, changes: Mapping[str, ModelChanges]) -> "Serving":
        """The same with other things remembered of some models."""
        return replace(self, changes={**self.changes, **changes})


def _without(serving: Serving, model: str, version: str) -> Serving:
    known = serving.read(model)
    rest = None if known.split is None else {name: share for name, share in known.split.items() if name != version}
    is_in_file = any(one.name == version for of in serving.file if of.name == model for one in of.versions)
    return _change(
        serving,
        model,
        split=rest,
        added=tuple(one for one in known.added if one.name != version),
        removed=(*known.removed, version) if is_in_file else known.removed,
        adapters={name: adapters for name, adapters in known.adapters.items() if name != version},
        successors={new: gone for new, gone in known.successors.items() if version not in (new, gone)},
    )


def _change(serving: Serving, model: str, **fields: object) -> Serving:
    return serving.remember({model: serving.read(model).model_copy(update=fields)})
