"""From settings to engines: which engines a gateway runs, and how each is launched. Starts nothing."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from gateway.checkpoints import Drafting, UnreadableError, find_checkpoint
from gateway.engines.engine import Adapters, EngineSpec, SmokePrompt, write_public_id
from gateway.engines.machine import Machine
from gateway.engines.placement import Need
from gateway.engines.process import LaunchSpec
from gateway.engines.remote import RemoteSpec
from gateway.engines.vllm import (
    EngineRequest,
    build_launch_spec,
    can_doze,
    estimate_need,
    find_drafting,
    in_float32,
    is_forkable,
    let_doze,
    make_room,
    mount,
    served_name,
    trusts_code,
)
from gateway.settings import ModelSettings, SourceAddress, VersionSettings, is_address, parse_address
from gateway.traffic.routes import PixelBounds

Folders = Mapping[SourceAddress, Path]
"""Where on this machine lies what was fetched."""


class Planner:
    """Plans the engines of one gateway, whose sockets are numbered files in `runtime_dir`.

    A unix socket's path holds 107 bytes at most.
    """

    def __init__(self, runtime_dir: Path, machine: Machine, *, is_cpu: bool, drain_grace_s: float) -> None:
        self._runtime_dir = runtime_dir
        self._host = _Host(machine, is_cpu, drain_grace_s, runtime_dir / "empty")
        self._numbers = count()

    def plan_all(self, models: Iterable[ModelSettings]) -> Iterator[EngineSpec | RemoteSpec]:
        """Every engine of these models; within a model those with the most traffic first."""
        for model in models:
            for version in sorted(model.versions, key=lambda version: -model.split.get(version.name, 0.0)):
                yield from self.plan(model, version)

    def plan(self, model: ModelSettings, version: VersionSettings) -> Iterator[EngineSpec | RemoteSpec]:
        """The engines of one version."""
        self._host.empty_dir.mkdir(exist_ok=True)
        for index, address in enumerate(version.endpoints):
            name = f"{model.name}:{version.name}#{index}"
            yield RemoteSpec(name, model.name, version.name, index, address.rstrip("/"))
        for index in range(0 if version.endpoints else version.replicas):
            socket = self._runtime_dir / f"{next(self._numbers)}.sock"
            yield _plan_engine(partial(_plan_over, self._host, model, version, index, socket), version)


@dataclass(frozen=True, slots=True)
class _Host:
    """What all engines of a gateway have in common."""

    machine: Machine
    is_cpu: bool
    drain_grace_s: float
    empty_dir: Path


def _plan_engine(plan: Callable[[Folders], EngineSpec], version: VersionSettings) -> EngineSpec:
    """An engine of the version; what it needs of other machines is fetched later."""
    draft = None if version.speculative is None else version.speculative.model
    places = (version.checkpoint, *version.adapters.values(), draft)
    sources = tuple(dict.fromkeys(parse_address(one) for one in places if isinstance(one, str) and is_address(one)))
    if not sources:
        return plan({})
    return replace(
        plan({}), checkpoint=None, drafting=None, plain=None, trials=None, remake=None, sources=sources, settle=plan
    )


def _plan_over(
    host: _Host, model: ModelSettings, version: VersionSettings, index: int, socket: Path, folders: Folders
) -> EngineSpec:
    adapters = {
        write_public_id(model.name, version.name, name): _locate(folder, folders)
        for name, folder in version.adapters.items()
    }
    if version.engine == "simulated":
        return _plan_simulated(model, version, index, socket, host.drain_grace_s, tuple(adapters.items()))
    request = EngineRequest(
        model=model.name,
        version=version.name,
        index=index,
        checkpoint=_locate(version.checkpoint or "", folders),
        adapters=adapters,
        engine_args=version.engine_args,
        speculative=_plan_speculative(version, folders),
        env=version.env,
        uds=socket,
        cpu=host.is_cpu,
        drain_grace_s=host.drain_grace_s,
        empty_dir=host.empty_dir,
        pictures={} if version.pictures is None else version.pictures.model_dump(exclude_none=True),
        reasoning_parser=None if version.reasoning is None else version.reasoning.parser,
    )
    request = make_room(request if version.sleep_after_s is None else let_doze(request))
    return _plan_vllm(request, host.machine, _plan_smoke(model, version), version)


def _plan_smoke(model: ModelSettings, version: VersionSettings) -> tuple[SmokePrompt, ...]:
    """Smoke prompts as a relay would send them, with the version's defaults."""
    fields = {name: value for name, value in version.defaults.items() if name != "system_prompt"}
    return tuple(
        SmokePrompt(
            prompt=question.prompt,
            expected=question.expect,
            name=write_public_id(model.name, version.name, question.adapter) if question.adapter else model.name,
            image=None if question.image is None else Path(question.image),
            system_prompt=read_system_prompt(version),
            fields=fields,
        )
        for question in version.smoke
    )


def read_system_prompt(version: VersionSettings) -> str | None:
    """The system prompt among a version's defaults."""
    prompt = version.defaults.get("system_prompt")
    return prompt if isinstance(prompt, str) else None


def find_bounds(version: VersionSettings) -> PixelBounds | None:
    """What requests to a version may say of pictures; None if its engine takes nothing of them."""
    given = version.pictures
    return None if given is None or given.max_pixels is None else PixelBounds(given.max_pixels, given.min_pixels)


def _locate(place: str, folders: Folders) -> Path:
    """The folder to serve, of a run one of its checkpoints; where there is none, admission says so."""
    if is_address(place):
        return folders.get(parse_address(place), Path(place))
    try:
        return find_checkpoint(Path(place))
    except UnreadableError:
        return Path(place)


def _plan_speculative(version: VersionSettings, folders: Folders) -> dict[str, Any] | None:
    """What the engine gets of the section."""
    if version.speculative is None:
        return None
    config, draft = version.speculative.engine_config, version.speculative.model
    if draft is None or not (draft.startswith("/") or is_address(draft)):
        return config
    return config | {"model": str(_locate(draft, folders))}


def _place_beside(index: int, socket: Path, version: VersionSettings) -> tuple[int, Path]:
    """Index and socket of an engine that runs while the one it replaces still does."""
    return index + version.replicas, socket.with_name(f"{socket.stem}-plain.sock")


def _place_trial(socket: Path) -> Path:
    """The socket of engines that are only tried, one after the other."""
    return socket.with_name(f"{socket.stem}-trial.sock")


def _without_parity(version: VersionSettings) -> VersionSettings:
    speculative = version.speculative and version.speculative.model_copy(update={"parity": False})
    return version.model_copy(update={"speculative": speculative})


def _find_least(version: VersionSettings) -> float | None:
    return None if version.speculative is None else version.speculative.min_acceptance


def _without_speculation(version: VersionSettings) -> VersionSettings:
    return version.model_copy(update={"speculative": None})


def _plan_vllm(
    request: EngineRequest, machine: Machine, smoke: tuple[SmokePrompt, ...], version: VersionSettings
) -> EngineSpec:
    def remake(adapters: Adapters) -> EngineSpec:
        return _plan_vllm(mount(request, dict(adapters)), machine, smoke, version)

    plain = None
    if version.speculative is not None:
        index, socket = _place_beside(request.index, request.uds, version)
        other = replace(request, speculative=None, index=index, uds=socket)
        plain = _plan_vllm(other, machine, smoke, _without_speculation(version))
    trials = None
    if version.speculative is not None and version.speculative.parity:
        guessing = in_float32(replace(request, uds=_place_trial(request.uds)))
        trials = (
            _plan_vllm(guessing, machine, smoke, _without_parity(version)),
            _plan_vllm(replace(guessing, speculative=None), machine, smoke, _without_speculation(version)),
        )
    return EngineSpec(
        name=f"{request.model}:{request.version}#{request.index}",
        model=request.model,
        version=request.version,
        index=request.index,
        build_launch=partial(build_launch_spec, request, machine),
        can_fork=is_forkable(request),
        socket=request.uds,
        served_name=served_name(request),
        checkpoint=request.checkpoint,
        trusts_code=trusts_code(request),
        drafting=find_drafting(request),
        adapters=tuple(request.adapters.items()),
        smoke=smoke,
        sleep_after_s=version.sleep_after_s,
        can_doze=can_doze(request),
        estimate_need=partial(estimate_need, request, machine),
        min_acceptance=_find_least(version),
        plain=plain,
        trials=trials,
        remake=remake,
    )


def _plan_simulated(
    model: ModelSettings, version: VersionSettings, index: int, socket: Path, grace_s: float, adapters: Adapters
) -> EngineSpec:
    def remake(adapters: Adapters) -> EngineSpec:
        return _plan_simulated(model, version, index, socket, grace_s, adapters)

    plain = None
    if version.speculative is not None:
        beside = _place_beside(index, socket, version)
        plain = _plan_simulated(model, _without_speculation(version), *beside, grace_s, adapters)
    trials = None
    if version.speculative is not None and version.speculative.parity:
        trial = partial(_plan_simulated, index=index, socket=_place_trial(socket), grace_s=grace_s, adapters=adapters)
        trials = (trial(model, _without_parity(version)), trial(model, _without_speculation(version)))
    name = f"{model.name}:{version.name}#{index}"
    taken = version.engine_args.get("memory-bytes")
    memory_bytes = taken if isinstance(taken, int) else 0
    args = ["--uds", str(socket), "--served-model-name", model.name, "--shutdown-timeout", f"{grace_s:g}"]
    for public_id, folder in adapters:
        args += ["--lora-modules", f"{public_id}={folder}"]
    if version.speculative is not None:
        args += ["--speculative-config", json.dumps(version.speculative.engine_config)]
    for flag, value in version.engine_args.items():
        if value is True:
            args.append(f"--{flag}")
            continue
        for item in value if isinstance(value, list) else [value]:
            args += [f"--{flag}", str(item)]
    launch = LaunchSpec(name=name, module="gateway.simulator", args=tuple(args), env=dict(version.env))
    return EngineSpec(
        name=name,
        model=model.name,
        version=version.name,
        index=index,
        build_launch=lambda: launch,
        can_fork=False,
        socket=socket,
        served_name=model.name,
        drafting=None if version.speculative is None else Drafting(version.speculative.method),
        adapters=adapters,
        smoke=_plan_smoke(model, version),
        sleep_after_s=version.sleep_after_s,
        can_doze=version.engine_args.get("enable-sleep-mode") is True,
        estimate_need=lambda weights_bytes: Need(amount=memory_bytes),
        min_acceptance=_find_least(version),
        plain=plain,
        trials=trials,
        remake=remake,
    )
