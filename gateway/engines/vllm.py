"""The vLLM engine: from a version's settings to the process to launch. Starts nothing and keeps nothing."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gateway.checkpoints import Drafting, inspect
from gateway.checkpoints.architectures import load_registry
from gateway.engines import launcher
from gateway.engines.device import find_openmp, has_package
from gateway.engines.engine import MountRefused
from gateway.engines.machine import Machine
from gateway.engines.pictures import PROCESSOR_FLAG, list_picture_flags
from gateway.engines.placement import Need
from gateway.engines.process import LaunchSpec
from gateway.engines.vila import list_part_flags
from gateway.settings.methods import load_methods

_MIB = 2**20

_OWNED_FLAGS = ("model", "served-model-name", "uds", "host", "port", "api-key", "ssl-keyfile", "ssl-certfile")
"""Flags by which the gateway reaches its engine."""

_SWITCHES = (
    "aggregate-engine-logging",
    "data-parallel-multi-port-external-lb",
    "disable-log-stats",
    "grpc",
    "headless",
)
"""Boolean flags of vLLM that have no opposite."""

_JSON_LISTS = ("allowed-headers", "allowed-methods", "allowed-origins")
_REPEATED_FLAGS = ("middleware",)
_PARALLEL_FLAGS = ("data-parallel-size", "pipeline-parallel-size", "tensor-parallel-size")
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MAX_LORAS_AT_ONCE = 8
_PROCESS_BYTES = 2**30  # measured with tiny weights
_GPU_SHARE = 0.92  # vLLM's own default
_MAX_LORA_RANK = 16  # vLLM's own default


class EngineArgsError(ValueError):
    """An engine argument that cannot be passed on; the message is a sentence for people."""


@dataclass(frozen=True)
class EngineRequest:
    """One engine to start. `index` counts the replicas of a version; `threads` None means: as fits the machine.

    `adapters` are folders by the engine's names for them. `env` is added to the engine's environment; `empty_dir` is a
    folder with nothing in it. `pictures` are bounds in pixels, `min_pixels` and `max_pixels`.
    """

    model: str
    version: str
    index: int
    checkpoint: Path
    adapters: Mapping[str, Path]
    engine_args: Mapping[str, Any]
    speculative: Mapping[str, Any] | None
    uds: Path
    cpu: bool
    drain_grace_s: float
    threads: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    empty_dir: Path | None = None
    pictures: Mapping[str, int] = field(default_factory=dict)
    reasoning_parser: str | None = None


def build_launch_spec(request: EngineRequest, machine: Machine) -> LaunchSpec:
    """The process that serves `request`. Raises EngineArgsError for arguments that are the gateway's own."""
    wanted = {_plain_name(name): value for name, value in request.engine_args.items()}
    for name in wanted:
        _refuse_owned(name)
    flags = {**_own_flags(request), **_adapter_flags(request), **_picture_flags(request, wanted)}
    if request.reasoning_parser is not None:
        flags["reasoning-parser"] = _require_parser(request.reasoning_parser)
    if request.cpu:
        flags |= _cpu_flags(wanted, machine)
    if "chat-template" in wanted:
        flags.pop("chat-template-content-format", None)  # said of the checkpoint's own
    return LaunchSpec(
        name=f"{request.model}:{request.version}#{request.index}",
        module=launcher.__name__,
        args=tuple(word for name, value in {**flags, **wanted}.items() for word in _render_flag(name, value)),
        env={**_environment(request, machine, is_parallel=_is_parallel(wanted)), **request.env},
    )


def let_doze(request: EngineRequest) -> EngineRequest:
    """The same engine, with vLLM's sleep mode where it has one: on a CPU it does not start with it."""
    wanted = {_plain_name(name) for name in request.engine_args}
    if request.cpu or "enable-sleep-mode" in wanted:
        return request
    return replace(request, engine_args={**request.engine_args, "enable-sleep-mode": True})


def can_doze(request: EngineRequest) -> bool:
    """Whether the engine has vLLM's sleep mode."""
    return _has_switch(request, "enable-sleep-mode")


def is_forkable(request: EngineRequest) -> bool:
    """Whether this engine may be forked: on the CPU, in as few processes as vLLM has, with nothing loaded before it."""
    is_parallel = _is_parallel({_plain_name(name): value for name, value in request.engine_args.items()})
    return request.cpu and not is_parallel and _find_preload(request) is None


def trusts_code(request: EngineRequest) -> bool:
    """Whether the engine is to run code that the checkpoint's folder brings."""
    return _has_switch(request, "trust-remote-code")


def _has_switch(request: EngineRequest, switch: str) -> bool:
    return any(_plain_name(name) == switch and value is True for name, value in request.engine_args.items())


def find_draft(request: EngineRequest) -> Path | None:
    """The folder of the model that guesses ahead; None without one, and where the engine is to find it by a name."""
    draft = (request.speculative or {}).get("model")
    return Path(draft) if isinstance(draft, str) and (draft.startswith("/") or Path(draft).is_dir()) else None


def find_drafting(request: EngineRequest) -> Drafting | None:
    """How the engine is to guess ahead, for admission to look at; None if it is not to."""
    method = (request.speculative or {}).get("method")
    if not isinstance(method, str):
        return None
    wanted = {_plain_name(name): value for name, value in request.engine_args.items()}
    has_other_words = (request.speculative or {}).get("use_heterogeneous_vocab") is True
    is_cached = wanted.get("enable-prefix-caching", True) is True and not wanted.get("no-enable-prefix-caching")
    return Drafting(
        load_methods().find_kind(method),
        find_draft(request),
        has_package("arctic_inference"),
        is_cached,
        has_other_words,
    )


def in_float32(request: EngineRequest) -> EngineRequest:
    """The same engine, that reckons in float32 and has no adapters."""
    wanted = {_plain_name(name): value for name, value in request.engine_args.items()} | {"dtype": "float32"}
    if (cache_bytes := _read_size(wanted.get("kv-cache-memory-bytes"))) > 0:
        wanted["kv-cache-memory-bytes"] = 2 * cache_bytes  # as many tokens as the other one has
    return replace(request, engine_args=wanted, adapters={})


def estimate_need(request: EngineRequest, machine: Machine, weights_bytes: int) -> Need:
    """What the engine takes of a device. On a GPU that is the share that it is told to take, whatever its weights."""
    wanted = {_plain_name(name): value for name, value in request.engine_args.items()}
    if not request.cpu:
        count = math.prod(_read_count(wanted.get(name)) for name in _PARALLEL_FLAGS)
        pinned = request.env.get("CUDA_VISIBLE_DEVICES", "")
        names = tuple(name.strip() for name in pinned.split(",") if name.strip())
        return Need(count, round(_read_share(wanted) * 1000), names)
    share_bytes = round(_read_share(wanted) * machine.memory_bytes) if "gpu-memory-utilization" in wanted else None
    given = wanted.get("kv-cache-memory-bytes", _cpu_flags(wanted, machine).get("kv-cache-memory-bytes"))
    cache_bytes = share_bytes if given is None else _read_size(given)
    return Need(1, weights_bytes + (cache_bytes or 0) + _PROCESS_BYTES)


def _read_count(value: object) -> int:
    return int(str(value)) if str(value).isdigit() and int(str(value)) else 1


def _read_share(wanted: Mapping[str, Any]) -> float:
    try:
        return float(wanted["gpu-memory-utilization"])
    except (KeyError, TypeError, ValueError):  # the latter is for vLLM to refuse
        return _GPU_SHARE


def _read_size(value: object) -> int:
    """A number of bytes as vLLM reads it: `128M` is a binary size, `128m` a decimal one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", str(value))
    if not found:
        return 0
    base = 1024 if found[2].isupper() else 1000
    return int(float(found[1]) * base ** (" kmgt".index(found[2].lower()) if found[2] else 0))


def served_name(request: EngineRequest) -> str:
    """The name in the engine's answers: the model's public name, so that they can be passed on unchanged."""
    return request.model


def make_room(request: EngineRequest) -> EngineRequest:
    """The same engine, with what its adapters need of it among its arguments, whatever adapters it has later."""
    try:
        room = {name: value for name, value in _adapter_flags(request).items() if name != "lora-modules"}
    except EngineArgsError:  # admission has more to say of it
        return request
    return replace(
        request, engine_args=room | {_plain_name(name): value for name, value in request.engine_args.items()}
    )


def mount(request: EngineRequest, adapters: Mapping[str, Path]) -> EngineRequest:
    """The same engine with other adapters, without its being started anew. Raises MountRefused if it has no room."""
    room = request.engine_args
    new = {name: folder for name, folder in adapters.items() if name not in request.adapters}
    try:
        needed = _adapter_flags(replace(request, adapters=new))
        rank = max(map(_read_rank, new.values()), default=0)
    except EngineArgsError as error:
        raise MountRefused(str(error)) from error
    for name in ("enable-lora", "enable-tower-connector-lora"):
        if needed.get(name) and room.get(name) is not True:
            raise MountRefused(
                f"the engine was started without {name}: set engine_args {{{name}: true}} for the version"
            )
    most = int(room.get("max-lora-rank") or _MAX_LORA_RANK)
    if rank > most:
        message = f"its rank is {rank}, and the engine was started for {most}"
        raise MountRefused(f"{message}: set engine_args {{max-lora-rank: {_round_rank(rank)}}} for the version")
    return replace(request, adapters=adapters)


def _round_rank(rank: int) -> int:
    """The next rank that vLLM can be started for."""
    return next((known for known in _LORA_RANKS if known >= rank), rank)


def _plain_name(name: str) -> str:
    return name.lstrip("-").replace("_", "-")


def _refuse_owned(name: str) -> None:
    # vLLM takes any unambiguous beginning of a flag for the flag.
    for owned in _OWNED_FLAGS:
        if name and owned.startswith(name):
            raise EngineArgsError(f"engine_args: '{name}' is set by the gateway itself ({owned}); take it out")


def _own_flags(request: EngineRequest) -> dict[str, Any]:
    flags: dict[str, Any] = {
        "model": str(request.checkpoint),
        "served-model-name": served_name(request),
        "uds": str(request.uds),
        "shutdown-timeout": math.ceil(request.drain_grace_s),
        "enable-request-id-headers": True,
        # The render routes are part of it.
        "enable-scale-out": True,
        # Every request has its line in the gateway's own log.
        "disable-uvicorn-access-log": True,
    }
    if request.empty_dir is not None:
        # With any folder allowed, vLLM refuses file:// URLs outside it with 400; with none it answers 500.
        flags["allowed-local-media-path"] = str(request.empty_dir)
    if request.speculative:
        flags["speculative-config"] = dict(request.speculative)
    return flags | list_part_flags(request.checkpoint)


def _adapter_flags(request: EngineRequest) -> dict[str, Any]:
    if not request.adapters:
        return {}
    rank = max(_read_rank(folder) for folder in request.adapters.values())
    modules = [
        {"name": name, "path": str(folder), "base_model_name": served_name(request)}
        for name, folder in request.adapters.items()
    ]
    manifests = [inspect(folder) for folder in request.adapters.values()]
    # Without it vLLM loads what is meant for the vision side, and leaves it without effect.
    changes_vision = any(manifest.adapter and manifest.adapter.has_vision_parts for manifest in manifests)
    return {
        **({"enable-tower-connector-lora": True} if changes_vision else {}),
        "enable-lora": True,
        "lora-modules": modules,
        "max-loras": min(len(modules), _MAX_LORAS_AT_ONCE),
        "max-lora-rank": _round_rank(rank),
    }


def _picture_flags(request: EngineRequest, wanted: Mapping[str, Any]) -> dict[str, Any]:
    if not request.pictures:
        return {}
    if PROCESSOR_FLAG in wanted:
        raise EngineArgsError(f"pictures: engine_args has {PROCESSOR_FLAG} too; take one of them out")
    try:
        return list_picture_flags(request.checkpoint, request.pictures)
    except ValueError as error:
        raise EngineArgsError(str(error)) from error


def _require_parser(name: str) -> str:
    registry = load_registry()
    if name in registry.reasoning_parsers:
        return name
    nearest = get_close_matches(name, registry.reasoning_parsers, n=3)
    mend = (
        f"did you mean {', '.join(nearest)}?"
        if nearest
        else f"take one of {', '.join(sorted(registry.reasoning_parsers))}"
    )
    raise EngineArgsError(f"reasoning.parser: {registry.engine} has no parser {name!r}: {mend}")


def _read_rank(folder: Path) -> int:
    path = folder / "adapter_config.json"
    try:
        content = json.loads(path.read_text())
        ranks = [content["r"], *content.get("rank_pattern", {}).values()]
        return max(int(rank) for rank in ranks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        raise EngineArgsError(f"{path} does not say the adapter's rank (r): {failure}") from failure


def _cpu_flags(wanted: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    # auto: as long as the KV cache allows, where vLLM would otherwise refuse to start.
    flags: dict[str, Any] = {"enforce-eager": True, "max-model-len": "auto"}
    if "gpu-memory-utilization" not in wanted:
        # vLLM's own default is 92 % of the machine's memory.
        flags["kv-cache-memory-bytes"] = min(max(machine.memory_bytes // 64, 128 * _MIB), 16 * 1024 * _MIB)
    return flags


def _environment(request: EngineRequest, machine: Machine, is_parallel: bool) -> dict[str, str]:
    # An API key meant for somebody else's vLLM would lock the gateway out of its own engine. Adapters come and go at
    # the gateway's word only: the engine listens on a socket of the gateway's own, whose relays pass on other routes.
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_API_KEY": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    if (library := _find_preload(request)) is not None:
        env["LD_PRELOAD"] = str(library)
    has_named_draft = (request.speculative or {}).get("model") is not None and find_draft(request) is None
    if request.checkpoint.is_dir() and not has_named_draft:
        env["HF_HUB_OFFLINE"] = "1"
    if can_doze(request):
        env["VLLM_SERVER_DEV_MODE"] = "1"  # the routes of sleep mode; only the gateway reaches them
    if request.cpu and not is_parallel:
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Half the cores: the other half are hyper-threads, or busy with the API server and other engines.
        env["OMP_NUM_THREADS"] = str(request.threads or max(1, machine.cores // 2))
    return env


def _find_preload(request: EngineRequest) -> Path | None:
    return find_openmp() if request.cpu and request.speculative else None


def _is_parallel(wanted: Mapping[str, Any]) -> bool:
    # Anything that is no number is for vLLM to refuse.
    return any(str(wanted.get(name)) not in ("None", "0", "1") for name in _PARALLEL_FLAGS)


def _render_flag(name: str, value: Any) -> Iterator[str]:
    match value:
        case None:
            return
        case bool():
            if value or name not in _SWITCHES:
                yield f"--{name}" if value else f"--no-{name}"
        case list() | tuple() if name in _REPEATED_FLAGS:
            for part in value:
                yield from (f"--{name}", _render_value(part))
        case list() | tuple() if name not in _JSON_LISTS:
            if value:
                yield from (f"--{name}", *map(_render_value, value))
        case _:
            # One word, so that a value that begins with a dash is not read as a flag.
            yield f"--{name}={_render_value(value)}"


def _render_value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)
