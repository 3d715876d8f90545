"""From settings to engines: which engines a gateway runs, and how each is launched. Starts nothing."""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from gateway.checkpoints import UnreadableError, find_checkpoint
from gateway.engines.engine import Adapters, EngineSpec, SmokePrompt, write_public_id
from gateway.engines.machine import Machine
from gateway.engines.process import LaunchSpec
from gateway.engines.remote import RemoteSpec
from gateway.engines.vllm import (
    EngineRequest,
    build_launch_spec,
    find_draft,
    is_forkable,
    make_room,
    mount,
    served_name,
    trusts_code,
)
from gateway.settings import ModelSettings, Settings, VersionSettings
from gateway.traffic.routes import PixelBounds


def plan_engines(
    settings: Settings, runtime_dir: Path, machine: Machine, *, is_cpu: bool
) -> Iterator[EngineSpec | RemoteSpec]:
    """Every engine the settings ask for; within a model those with the most traffic first.

    Sockets are numbered files in `runtime_dir`, since a unix socket's path holds 107 bytes at most.
    """
    numbers = count()
    empty_dir = runtime_dir / "empty"
    empty_dir.mkdir(exist_ok=True)
    for model in settings.models:
        for version in sorted(model.versions, key=lambda version: -model.split.get(version.name, 0.0)):
            adapters = {
                write_public_id(model.name, version.name, name): _locate(folder)
                for name, folder in version.adapters.items()
            }
            for index, address in enumerate(version.endpoints):
                name = f"{model.name}:{version.name}#{index}"
                yield RemoteSpec(name, model.name, version.name, index, address.rstrip("/"))
            for index in range(0 if version.endpoints else version.replicas):
                socket = runtime_dir / f"{next(numbers)}.sock"
                if version.engine == "simulated":
                    spec = _plan_simulated(
                        model, version, index, socket, settings.server.drain_grace_s, tuple(adapters.items())
                    )
                else:
                    request = EngineRequest(
                        model=model.name,
                        version=version.name,
                        index=index,
                        checkpoint=_locate(version.checkpoint or ""),
                        adapters=adapters,
                        engine_args=version.engine_args,
                        speculative=_locate_draft(version.speculative),
                        env=version.env,
                        uds=socket,
                        cpu=is_cpu,
                        drain_grace_s=settings.server.drain_grace_s,
                        empty_dir=empty_dir,
                        pictures={} if version.pictures is None else version.pictures.model_dump(exclude_none=True),
                        reasoning_parser=None if version.reasoning is None else version.reasoning.parser,
                    )
                    spec = _plan_vllm(make_room(request), machine, _plan_smoke(model, version))
                yield spec


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


def _locate(folder: str) -> Path:
    """The folder to serve, of a run one of its checkpoints; where there is none, admission says so."""
    try:
        return find_checkpoint(Path(folder))
    except UnreadableError:
        return Path(folder)


def _locate_draft(speculative: dict[str, Any] | None) -> dict[str, Any] | None:
    draft = (speculative or {}).get("model")
    if speculative is None or not isinstance(draft, str) or not draft.startswith("/"):
        return speculative
    return speculative | {"model": str(_locate(draft))}


def _plan_vllm(request: EngineRequest, machine: Machine, smoke: tuple[SmokePrompt, ...]) -> EngineSpec:
    def remake(adapters: Adapters) -> EngineSpec:
        return _plan_vllm(mount(request, dict(adapters)), machine, smoke)

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
        draft=find_draft(request),
        adapters=tuple(request.adapters.items()),
        smoke=smoke,
        remake=remake,
    )


def _plan_simulated(
    model: ModelSettings, version: VersionSettings, index: int, socket: Path, grace_s: float, adapters: Adapters
) -> EngineSpec:
    def remake(adapters: Adapters) -> EngineSpec:
        return _plan_simulated(model, version, index, socket, grace_s, adapters)

    name = f"{model.name}:{version.name}#{index}"
    args = ["--uds", str(socket), "--served-model-name", model.name, "--shutdown-timeout", f"{grace_s:g}"]
    for public_id, folder in adapters:
        args += ["--lora-modules", f"{public_id}={folder}"]
    for flag, value in version.engine_args.items():
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
        adapters=adapters,
        smoke=_plan_smoke(model, version),
        remake=remake,
    )
