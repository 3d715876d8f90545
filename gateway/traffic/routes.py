"""Route snapshots: what a relay needs to know to place a request, and nothing else.

Control builds a new `Routes` for every change and puts it on the `RouteBoard`; relays read `board.routes` once per
request and never change it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from gateway.errors import BadRequest, UnknownModel
from gateway.fleet.replica import Replica
from gateway.traffic.shadow import Shadow
from gateway.traffic.split import Split


@dataclass(frozen=True, slots=True)
class PixelBounds:
    """How many pixels requests may have pictures scaled to, as the settings of a version say it."""

    max_pixels: int
    min_pixels: int | None = None


@dataclass(frozen=True, slots=True)
class VersionRoute:
    """One version as relays see it.

    `adapters` are the version's, with the engines' name for each. `defaults` are request fields filled in where the
    client is silent, values as raw JSON. `state` says, for people, why there are no replicas when there are none.
    `routing` names the policy that chooses among them. `pictures` bound what requests say of pictures. If it
    `can_wake`, requests wait while there are no replicas. `digests` tell what is served from all else: the checkpoint's
    under an empty name, adapters' under theirs.
    """

    name: str
    replicas: tuple[Replica, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, bytes] = field(default_factory=dict)
    system_prompt: str | None = None
    state: str = "starting"
    max_model_len: int | None = None
    routing: str = "least_loaded"
    can_wake: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    pictures: PixelBounds | None = None


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A public name, its versions, and how requests are split over them.

    `stage` names the time in which the same users have the same versions; 0 where there is nothing to compare. The
    `shadow` gets copies of some requests.
    """

    name: str
    versions: Mapping[str, VersionRoute]
    split: Split
    sticky_by: tuple[str, ...] = ()
    created: int = 0
    stage: int = 0
    shadow: Shadow | None = None


class How(StrEnum):
    """How a request came to its version."""

    SPLIT = "split"
    """It is one of the version's users."""
    STAND_IN = "stand_in"
    """It is another version's user, which cannot answer now."""
    PIN = "pin"
    """It asked for it by a header."""
    NAME = "name"
    """It asked for it by its name."""


class Target(NamedTuple):
    """The model and version a request goes to; `public_name` is the id that the client asked for.

    `unit` stands for the user, see `Choice`; 0 where it was not asked for.
    """

    model: ModelRoute
    version: VersionRoute
    public_name: str
    adapter: str | None
    how: How = How.SPLIT
    unit: int = 0

    def engine_name(self, replica: Replica) -> str:
        """The name under which `replica` serves this target."""
        return replica.served_name if self.adapter is None else self.version.adapters[self.adapter]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has a key, and whether he may choose the version that answers."""

    name: str
    may_pin: bool = True


@dataclass(frozen=True, slots=True)
class Routes:
    """One consistent picture of all models, and of those who may ask for them.

    `callers` are known by the SHA-256 of their keys, as hexadecimal digits; they count only where keys are asked for.
    """

    models: Mapping[str, ModelRoute] = field(default_factory=dict)
    callers: Mapping[str, Caller] = field(default_factory=dict)

    def public_names(self) -> list[str]:
        """Every id a client may ask for: models, then their versions and adapters."""
        names: list[str] = []
        for model in self.models.values():
            names.append(model.name)
            for version in model.versions.values():
                names.append(f"{model.name}:{version.name}")
                names += [f"{model.name}:{version.name}+{adapter}" for adapter in sorted(version.adapters)]
        return names

    def has_address(self, address: str) -> bool:
        """True if requests may be sent there."""
        versions = (version for model in self.models.values() for version in model.versions.values())
        return any(replica.address == address for version in versions for replica in version.replicas)

    def resolve(self, public_name: str, pinned: str | None, sticky_key: bytes) -> Target:
        """Find the target of `public_name` (`m`, `m:v` or `m:v+a`), with `pinned` as the version header's value.

        Raises UnknownModel for names nobody serves and BadRequest for a pin that contradicts the name.
        """
        plain = self.models.get(public_name)
        if plain is not None and not pinned:  # nearly every request
            version_name, unit, is_stand_in = plain.split.choose(sticky_key)
            how = How.STAND_IN if is_stand_in else How.SPLIT
            return Target(plain, plain.versions[version_name], public_name, None, how, unit)
        model_name, _, rest = public_name.partition(":")
        version_name, _, adapter = rest.partition("+")
        model = self.models.get(model_name)
        if model is None:
            raise self._unknown(public_name)
        if pinned and version_name and pinned != version_name:
            message = (
                f"The header x-gateway-version asks for {pinned!r}, the model name for {version_name!r}: drop one."
            )
            raise BadRequest(message, param="model")
        if ":" in public_name and not version_name:
            raise self._unknown(public_name)
        chosen = version_name or pinned or ""  # one of the two: a plain name without a pin has been dealt with
        version = model.versions.get(chosen)
        if version is None:
            raise self._unknown(f"{model_name}:{chosen}")
        if "+" in rest and adapter not in version.adapters:
            raise self._unknown(public_name)
        return Target(model, version, public_name, adapter or None, How.NAME if version_name else How.PIN)

    def _unknown(self, name: str) -> UnknownModel:
        known = self.public_names()
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        message = f"The model {name[:200]!r} does not exist. Ask for one of: {shown or '(no model is configured)'}."
        return UnknownModel(message, param="model")


class RouteBoard:
    """Holds the current snapshot. One writer: control. `listeners` are told of each new one."""

    def __init__(self, routes: Routes | None = None) -> None:
        self.routes = routes or Routes()
        self.listeners: list[Callable[[Routes], None]] = []

    def publish(self, routes: Routes) -> None:
        """Replace the snapshot; requests already placed keep the one they read."""
        self.routes = routes
        for listener in self.listeners:
            listener(routes)
