"""What people are shown of models, versions and engines. Pure."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.control.serving import Serving
from gateway.control.snapshots import find_adapters, group
from gateway.engines.engine import EngineState, EngineStatus
from gateway.fleet.replica import VersionKey
from gateway.settings import ModelSettings, VersionSettings
from gateway.state import Event
from gateway.traffic.routes import Routes


def describe(
    serving: Serving, statuses: Sequence[EngineStatus], out: Mapping[str, frozenset[str]]
) -> list[dict[str, Any]]:
    """Models, versions and engines, as the admin API shows them.

    `out` are the versions of each model for which others stand in now.
    """
    engines = group(statuses)
    return [_describe_model(serving, model, engines, out.get(model.name, frozenset())) for model in serving.models]


def _describe_model(
    serving: Serving, model: ModelSettings, engines: Mapping[VersionKey, list[EngineStatus]], out: frozenset[str]
) -> dict[str, Any]:
    names = [version.name for version in model.versions]
    # What is left of a version that was removed: it finishes its answers.
    left = [version for of, version in engines if of == model.name and version not in names]
    versions = (*model.versions, *(VersionSettings(name=name) for name in left))
    return {
        "name": model.name,
        "split": model.split,
        "stage": serving.stages[model.name],
        "rollout": serving.read(model.name).rollout or None,
        "shadow": None if model.shadow is None else model.shadow.model_dump(mode="json"),
        "versions": [
            _describe_version(model, version, engines.get((model.name, version.name), []), is_out=version.name in out)
            for version in versions
        ],
    }


def _describe_version(
    model: ModelSettings, version: VersionSettings, statuses: Sequence[EngineStatus], *, is_out: bool
) -> dict[str, Any]:
    return {
        "name": version.name,
        "checkpoint": version.checkpoint,
        "endpoints": list(version.endpoints),
        "adapters": sorted(find_adapters(model, version, statuses)),
        "share": model.split.get(version.name, 0.0),
        "is_out": is_out,
        "engines": [_describe_engine(status) for status in statuses],
    }


def _describe_engine(status: EngineStatus) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(status),
        "drafts": None if status.drafts is None else status.drafts.to_dict(),
        "seconds_in_state": round(time.time() - status.since, 1),
    }


def list_stand_ins(before: Routes, after: Routes) -> Iterator[Event]:
    """What is to be known of versions whose users others have taken over, or given back, since an earlier snapshot."""
    for name, model in after.models.items():
        known = before.models.get(name)
        if known is None:
            continue
        for version in sorted(model.split.out - known.split.out):
            if version in known.versions and known.versions[version].replicas:
                text = f"{name}:{version} has no ready engine: others stand in for it"
                yield Event("version_out", text, name, details={"version": version})
        for version in sorted(known.split.out - model.split.out):
            if version in model.versions and model.versions[version].replicas:
                text = f"{name}:{version} is ready, and has its users"
                yield Event("version_back", text, name, details={"version": version})


def tell(status: EngineStatus) -> str:
    """One line for the log; failures have been logged with their reason by the engine's keeper."""
    if status.state is EngineState.READY:
        took = "" if status.ready_after_s is None else f" after {status.ready_after_s:.1f} s"
        return f"{status.name} is ready{took}"
    if status.phase:
        return f"{status.name} is {status.state}: {status.phase}"
    return f"{status.name} is stopped" if status.state is EngineState.STOPPED else ""
