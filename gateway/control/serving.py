"""What is served, as a value: models with their versions and splits, and which version is to take another's place.

Pure: every act gives a new value, or raises what is wrong with it in words for the person who asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from gateway.errors import BadRequest, Conflict, UnknownModel
from gateway.fleet.replica import VersionKey
from gateway.settings import ModelSettings, VersionSettings, normalise_split

_Dumped = TypeAdapter[tuple[tuple[ModelSettings, ...], list[tuple[str, str, str]]]](
    tuple[tuple[ModelSettings, ...], list[tuple[str, str, str]]]
)


@dataclass(frozen=True, slots=True)
class Serving:
    """`successors` are versions that take the place of another of their model as soon as they are ready."""

    models: tuple[ModelSettings, ...]
    successors: Mapping[VersionKey, str] = field(default_factory=dict)

    @classmethod
    def load(cls, dumped: bytes) -> "Serving":
        """What `dump` wrote."""
        models, successors = _Dumped.validate_json(dumped)
        return cls(models, {(model, version): old for model, version, old in successors})

    def dump(self) -> bytes:
        """All of it, for another process."""
        return _Dumped.dump_json((self.models, [(*key, old) for key, old in self.successors.items()]))

    def find_model(self, model: str) -> ModelSettings:
        """Raises UnknownModel."""
        for one in self.models:
            if one.name == model:
                return one
        raise UnknownModel(f"{model} is not served here.")

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

    def add(self, model: str, version: VersionSettings, replaces: str | None = None) -> "Serving":
        """One version more, which gets no traffic yet; if it `replaces` another it gets that one's when it is ready.

        Raises UnknownModel and Conflict.
        """
        old = self.find_model(model)
        if (model, version.name) in self.list_versions():
            raise Conflict(f"{model}:{version.name} is served already: choose another name.", param="name")
        if replaces is not None:
            self.find_version(model, replaces)
            for (of, rival), gone in self.successors.items():
                if (of, gone) == (model, replaces):
                    raise Conflict(f"{model}:{rival} is to take that place already: remove it first.", param="replaces")
        added = old.model_copy(update={"versions": (*old.versions, version), "split": old.split | {version.name: 0.0}})
        successors = {} if replaces is None else {(model, version.name): replaces}
        return replace(self._with(added), successors={**self.successors, **successors})

    def remove(self, model: str, version: str) -> "Serving":
        """One version less. Raises UnknownModel, and Conflict for one that traffic still goes to."""
        self.find_version(model, version)
        old = self.find_model(model)
        share = old.split.get(version, 0.0)
        if share:
            raise Conflict(
                f"{model}:{version} has {share:.4g} of the traffic: give it to others first (`gateway split`), "
                f"or load a version that replaces it."
            )
        return self._without(old, version)

    def set_split(self, model: str, weights: Mapping[str, float]) -> "Serving":
        """Other shares of the traffic. Raises UnknownModel and BadRequest."""
        old = self.find_model(model)
        if not weights:
            raise BadRequest(f"Name the versions of {model} that are to get traffic, with their weights.")
        try:
            split = normalise_split(dict(weights), [version.name for version in old.versions])
        except ValueError as error:
            raise BadRequest(f"The split of {model}: {error}.") from error
        return self._with(old.model_copy(update={"split": split}))

    def hand_over(self, model: str, version: str) -> "Serving":
        """A successor has become ready: it gets the share of the one that it replaces, which is removed."""
        old = self.find_model(model)
        gone = self.successors[model, version]
        split = old.split | {version: old.split.get(version, 0.0) + old.split.get(gone, 0.0)}
        after = self._without(old.model_copy(update={"split": split}), gone)
        before = self.successors.get((model, gone))  # it was itself to take another's place: that goes on
        return after if before is None else replace(after, successors={**after.successors, (model, version): before})

    def give_up(self, model: str, version: str) -> "Serving":
        """A successor replaces nobody any more."""
        return replace(self, successors={key: old for key, old in self.successors.items() if key != (model, version)})

    def _without(self, model: ModelSettings, version: str) -> "Serving":
        rest = {
            "versions": tuple(one for one in model.versions if one.name != version),
            "split": {name: share for name, share in model.split.items() if name != version},
        }
        successors = {
            (of, new): old
            for (of, new), old in self.successors.items()
            if of != model.name or version not in (new, old)
        }
        return replace(self._with(model.model_copy(update=rest)), successors=successors)

    def _with(self, model: ModelSettings) -> "Serving":
        return replace(self, models=tuple(model if one.name == model.name else one for one in self.models))
