"""A changed settings file: what of it can be served while requests go on, and in which order. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.control.serving import Serving
from gateway.control.standing import Standing
from gateway.settings import ModelSettings, Settings, VersionSettings

_MAY_CHANGE = ("routing", "defaults", "replicas", "endpoints", "price")
"""Of a version that is served: what makes it no other version."""


@dataclass(frozen=True, slots=True)
class Reloading:
    """A file that takes the place of another once `awaited`, versions as `model:version`, are ready.

    Meanwhile `blended` is served: all versions of both, the old ones with the shares that they had.
    """

    before: tuple[ModelSettings, ...]
    blended: tuple[ModelSettings, ...]
    after: tuple[ModelSettings, ...]
    awaited: frozenset[str]

    def is_ready(self, standing: Standing) -> bool:
        """True if the new file can be served."""
        return self.awaited <= set(standing.ready)

    def find_failed(self, standing: Standing) -> list[str]:
        """Versions for which it waits in vain."""
        return sorted(self.awaited & set(standing.failed))


def find_conflicts(before: Sequence[ModelSettings], after: Sequence[ModelSettings]) -> Iterator[str]:
    """What cannot change while it is served, in words for the one who wrote the file."""
    known = {(model.name, version.name): version for model in before for version in model.versions}
    for model in after:
        for version in model.versions:
            old = known.get((model.name, version.name))
            changed = [] if old is None else list(_find_changes(old, version))
            if changed:
                yield (
                    f"{model.name}:{version.name} is served with another {', '.join(changed)}: "
                    f"give the changed one another name, or start the gateway anew"
                )


def find_taken(serving: Serving, after: Sequence[ModelSettings]) -> Iterator[str]:
    """What the file would take away from under a rollout, in words for the one who wrote it."""
    final = Serving(tuple(after), serving.changes)
    kept = {(model.name, version.name) for model in final.models for version in model.versions}
    for model in serving.models:
        gone = [version.name for version in model.versions if (model.name, version.name) not in kept]
        if gone and (rollout := serving.read(model.name).rollout):
            yield f"{model.name}:{gone[0]}, while the rollout {rollout} moves the traffic of {model.name}"


def find_ignored(before: Settings, after: Settings) -> list[str]:
    """Sections whose changes count at the next start only."""
    sections = ("server", "admin", "state", "engines", "cache")
    found = [name for name in sections if getattr(before, name) != getattr(after, name)]
    return found + (["auth.required"] if before.auth.required != after.auth.required else [])


def plan(before: Sequence[ModelSettings], after: Sequence[ModelSettings], serving: Serving) -> Reloading:
    """How the file `after` takes the place of `before`; `serving` is what is remembered beside them."""
    old = {model.name: model for model in before}
    final = Serving(tuple(after), serving.changes)
    in_use = {f"{model.name}:{version}" for model in serving.models for version, share in model.split.items() if share}
    awaited = {
        f"{model.name}:{version}"
        for model in final.models
        for version, share in model.split.items()
        if share and model.name in old
    }
    blended = tuple(_blend(old[model.name], model) if model.name in old else model for model in after)
    return Reloading(tuple(before), blended, tuple(after), frozenset(awaited - in_use))


def _blend(old: ModelSettings, new: ModelSettings) -> ModelSettings:
    names = [version.name for version in new.versions]
    versions = (*new.versions, *(version for version in old.versions if version.name not in names))
    split = {version.name: old.split.get(version.name, 0.0) for version in versions}
    return new.model_copy(update={"versions": versions, "split": split})


def _find_changes(old: VersionSettings, new: VersionSettings) -> Iterator[str]:
    fixed = [name for name in VersionSettings.model_fields if name not in _MAY_CHANGE]
    if old.speculative is not None or bool(old.endpoints) != bool(new.endpoints):
        fixed += ["replicas", "endpoints"]  # engines that guess may have been replaced by others
    yield from (name for name in fixed if getattr(old, name) != getattr(new, name))
