"""What relays are to know: a route snapshot made of what is served and of how the engines are. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.control.plan import find_bounds, read_system_prompt
from gateway.control.serving import Serving
from gateway.engines.engine import EngineState, EngineStatus, find_public_id, write_public_id
from gateway.fleet.replica import Replica, VersionKey
from gateway.settings import ModelSettings, VersionSettings
from gateway.traffic.routes import Caller, ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split

_WAKEABLE = (EngineState.ASLEEP, EngineState.STARTING, EngineState.WARMING, EngineState.DRAINING)
"""Where an engine that may sleep is when requests are better held than refused."""


def build_routes(
    serving: Serving,
    statuses: Sequence[EngineStatus],
    replicas: Sequence[Replica],
    callers: Mapping[str, Caller],
    created: int,
) -> Routes:
    """The snapshot. `created` is shown to clients as the time of every model, in seconds since the epoch."""
    ready: dict[VersionKey, list[Replica]] = {}
    for replica in replicas:
        ready.setdefault((replica.model, replica.version), []).append(replica)
    engines = group(statuses)
    models = {model.name: _route(serving, model, ready, engines, created) for model in serving.models}
    return Routes(models, callers)


def _route(
    serving: Serving,
    model: ModelSettings,
    ready: Mapping[VersionKey, list[Replica]],
    engines: Mapping[VersionKey, list[EngineStatus]],
    created: int,
) -> ModelRoute:
    versions: dict[str, VersionRoute] = {}
    for version in model.versions:
        own = engines.get((model.name, version.name), [])
        versions[version.name] = VersionRoute(
            name=version.name,
            replicas=tuple(ready.get((model.name, version.name), ())),
            adapters=find_adapters(model, version, own),
            defaults={
                name: msgspec.json.encode(value) for name, value in version.defaults.items() if name != "system_prompt"
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
    split = Split.over(model.name, serving.allocations[model.name], out)
    stage, shadow = serving.stages[model.name], serving.shadows.get(model.name)
    return ModelRoute(model.name, versions, split, model.sticky_by, created, stage, shadow)


def group(statuses: Sequence[EngineStatus]) -> dict[VersionKey, list[EngineStatus]]:
    """The engines of each version."""
    engines: dict[VersionKey, list[EngineStatus]] = {}
    for status in statuses:
        engines.setdefault((status.model, status.version), []).append(status)
    return engines


def find_adapters(model: ModelSettings, version: VersionSettings, statuses: Sequence[EngineStatus]) -> dict[str, str]:
    """The version's adapters, with the engines' name for each: those that every ready engine of it has."""
    mounted = [status.adapters for status in statuses if status.state is EngineState.READY]
    mounted = mounted or [status.adapters for status in statuses[:1]]
    if not mounted:
        return {name: write_public_id(model.name, version.name, name) for name in version.adapters}
    common = [name for name in mounted[0] if all(name in others for others in mounted)]
    return {find_public_id(name).partition("+")[2]: name for name in common}


def _find_digests(statuses: Sequence[EngineStatus]) -> dict[str, str]:
    """Of what is served, by the names that clients know adapters by."""
    served = next((status.digests for status in statuses if status.state is EngineState.READY), {})
    return {find_public_id(name).partition("+")[2]: digest for name, digest in served.items()}
