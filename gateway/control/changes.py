"""What is remembered of a model: what was changed at run time, which wins over the file, and who has which version.

A document of the state store, one for each model. Pure.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.settings import ModelSettings, ShadowSettings, VersionSettings, normalise_split
from gateway.traffic.allocation import Allocation
from gateway.traffic.shadow import Shadow

_STAGES_KEPT = 20
_STAGE_BYTES = 6  # a number that JSON readers everywhere take for what it is
_NO_MATTER = {"replicas", "sleep_after_s", "routing", "smoke", "endpoints", "env", "price"}  # to answers


class Stage(BaseModel):
    """A time in which the same users have the same versions; `began` is in seconds since the epoch.

    `rollout` is the one that it is a step of. What is measured in one stage is not mixed with what is measured in
    another: shares that change with the hour would pass for a difference between versions.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    began: float
    shares: dict[str, float]
    rollout: str = ""


class ModelChanges(BaseModel):
    """Of one model. A field that is None or empty was not touched: the file's counts.

    `mounts` counts how often each of the `adapters`, called `version+name`, was mounted: what lies in the same place
    may be another one. `allocation` is how users are spread, parts of the line with their ends. `successors` take the
    place of another version as soon as they are ready. `rollout` is the one that moves the split now. `stages` are the
    latest, in order.
    """

    model_config = ConfigDict(frozen=True)

    split: dict[str, float] | None = None
    shadow: ShadowSettings | None = None
    is_shadow_touched: bool = False
    added: tuple[VersionSettings, ...] = ()
    removed: tuple[str, ...] = ()
    adapters: dict[str, dict[str, str | None]] = {}
    mounts: dict[str, int] = {}
    successors: dict[str, str] = {}
    allocation: tuple[tuple[int, str], ...] = ()
    rollout: str = ""
    stages: Annotated[tuple[Stage, ...], Field(max_length=_STAGES_KEPT)] = ()

    def apply(self, model: ModelSettings) -> ModelSettings:
        """The model as it is to be served, from what the file says of it."""
        added = {version.name for version in self.added}
        versions = [one for one in model.versions if one.name not in added and one.name not in self.removed]
        versions = [*versions, *self.added] or list(
            model.versions
        )  # a file may by now have those alone that were removed
        names = [version.name for version in versions]
        changes: dict[str, Any] = {
            "versions": tuple(self._mount(version) for version in versions),
            "split": _restrict(self.split, names) or _restrict(model.split, names) or normalise_split({}, names),
        }
        shadow = self.shadow if self.is_shadow_touched else model.shadow
        changes["shadow"] = shadow if shadow is not None and shadow.version in names else None
        return model.model_copy(update=changes)

    def _mount(self, version: VersionSettings) -> VersionSettings:
        changed = self.adapters.get(version.name)
        if not changed:
            return version
        merged = version.adapters | changed
        adapters = {name: place for name, place in merged.items() if place is not None}
        return version.model_copy(update={"adapters": adapters})

    def allocate(self, model: ModelSettings) -> Allocation:
        """How the users of the model, as it is to be served, are spread."""
        ends, names = (tuple(column) for column in zip(*self.allocation, strict=True)) if self.allocation else ((), ())
        return Allocation(ends, names).move(model.split)

    def settle(self, model: ModelSettings, now: float) -> "ModelChanges":
        """With the way users are spread over the model, as it is to be served, and with the stage that begins by it."""
        allocation = self.allocate(model)
        number = self.find_stage(model)
        stages = self.stages
        if not stages or stages[-1].number != number:
            began = next((one.began for one in stages if one.number == number), now)  # shares that were there before
            stage = Stage(number=number, began=began, shares=model.split, rollout=self.rollout)
            stages = (*(one for one in stages if one.number != number), stage)[-_STAGES_KEPT:]
        parts = tuple(zip(allocation.ends, allocation.names, strict=True))
        return self.model_copy(update={"allocation": parts, "stages": stages})

    def find_stage(self, model: ModelSettings) -> int:
        """The number of the stage that the model is in; the same wherever the same is served in the same shares.

        0 where there are no two versions to compare.
        """
        if len(model.versions) < 2:
            return 0
        allocation = self.allocate(model)
        users = set(allocation.names)
        served = [_identify(version) for version in model.versions if version.name in users]
        return _hash((model.name, model.sticky_by, allocation.ends, allocation.names, sorted(served), self.rollout))

    def find_shadow(self, model: ModelSettings) -> Shadow | None:
        """Who gets copies of the model's requests; in another stage once other versions answer them."""
        asked = model.shadow
        if asked is None or not asked.percent:
            return None
        versions = {version.name: _identify(version) for version in model.versions}
        primaries = sorted(versions[name] for name in set(self.allocate(model).names))
        number = _hash(("shadow", model.name, versions[asked.version], primaries))
        return Shadow(asked.version, asked.percent, number, asked.concurrency, asked.cross_score, asked.keep_texts)

    def forget(self) -> "ModelChanges":
        """Without all that was changed at run time: the file counts again. Who has which version is remembered."""
        return ModelChanges(allocation=self.allocation, stages=self.stages)


def _hash(told: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(told).encode(), digest_size=_STAGE_BYTES).digest(), "big") or 1


def _identify(version: VersionSettings) -> str:
    """What makes answers of a version what they are; how many engines give them does not."""
    return version.model_dump_json(exclude=_NO_MATTER)


def _restrict(split: Mapping[str, float] | None, names: list[str]) -> dict[str, float] | None:
    """The split over the versions that there are; None if none of them has a share."""
    known = {name: share for name, share in (split or {}).items() if name in names}
    return normalise_split(known, names) if sum(known.values()) > 0 else None
