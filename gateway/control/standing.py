"""How the versions stand on each gateway of a fleet, as the gateways tell each other through the state store. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.control.serving import Serving
from gateway.control.snapshots import group
from gateway.engines.engine import EngineState, EngineStatus


class Standing(msgspec.Struct, frozen=True):
    """What one gateway says of the versions that it serves, as `model:version`.

    `ready` are those all of whose engines are ready or sleep until somebody asks, `up` those of which one is or does,
    `failed` those that cannot be served. `acts`: this gateway has the lease to act for all.
    """

    served: list[str] = []
    ready: list[str] = []
    failed: list[str] = []
    up: list[str] = []
    acts: bool = False


def read_standing(serving: Serving, statuses: Sequence[EngineStatus]) -> Standing:
    """How the versions stand here."""
    served, ready, failed, up, engines = [], [], [], [], group(statuses)
    for model in serving.models:
        for version in model.versions:
            name, wanted = f"{model.name}:{version.name}", len(version.endpoints) or version.replicas
            own = engines.get((model.name, version.name), [])
            # There may be more than were asked for: one is to take another's place, and may fail beside it.
            lost = sum(one.state is EngineState.FAILED and one.next_try_at is None for one in own)
            served.append(name)
            usable = sum(one.state in (EngineState.READY, EngineState.ASLEEP) for one in own)
            if usable:
                up.append(name)
            if usable >= wanted:
                ready.append(name)
            elif lost and len(own) - lost < wanted:
                failed.append(name)
    return Standing(served, ready, failed, up)


def is_ready(standings: Iterable[Standing], name: str) -> bool:
    """True if a version is ready on every gateway that serves it, and on one at least."""
    served = [one for one in standings if name in one.served]
    return bool(served) and all(name in one.ready for one in served)


def is_up(standings: Iterable[Standing], name: str) -> bool:
    """True if a gateway can answer by a version."""
    return any(name in one.up for one in standings)


def is_up_everywhere(standings: Iterable[Standing], name: str) -> bool:
    """True if every gateway that serves a version can answer by it."""
    return all(name in one.up for one in standings if name in one.served)


def is_failed(standings: Iterable[Standing], name: str) -> bool:
    """True if one of the gateways cannot serve a version."""
    return any(name in one.failed for one in standings)


def decode(told: Mapping[str, bytes]) -> dict[str, Standing]:
    """What gateways say of themselves, by their names; one of another release that cannot be read says nothing."""
    found = {}
    for gateway, data in told.items():
        try:
            found[gateway] = msgspec.json.decode(data, type=Standing)
        except msgspec.DecodeError:
            continue
    return found
