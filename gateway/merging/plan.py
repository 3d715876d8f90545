"""What a merge will do: which tensor of the base changes how. Reads the adapter's numbers, none of the base's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

from gateway.checkpoints import Report, UnreadableError, check, find_checkpoint
from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import join_names, make_printable
from gateway.checkpoints.manifest import find_quantization, find_tied
from gateway.checkpoints.matrices import find_core, index_modules
from gateway.checkpoints.rules.adapter import PLAIN_STARTS
from gateway.checkpoints.safetensors import Tensor
from gateway.merging import MergeRefused
from gateway.merging.arithmetic import NUMBER_TYPES, Addition, Change, Floats, LowRank, Replacement
from gateway.merging.reading import read_floats

_MOST_REPETITIONS = 4
_PREFIX = "base_model.model."
_ROLES = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
# An engine cannot mount these; a merge can work them in, or says itself why not.
_MOUNTING_ONLY = ("adapter-unmounted", "adapter-vision", "adapter-embeddings")
_UNMERGED = {
    "alora_invocation_tokens": "activated LoRA works from a token on, which weights cannot",
    "layer_replication": "repeated layers are another model",
    "use_bdlora": "block-diagonal LoRA is not known here",
    "use_qalora": "QALoRA changes zero points of packed weights",
    "trainable_token_indices": "single trained tokens are not known here",
    "target_parameters": "adapters on experts that are stored as one are not known here",
}


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Both folders as they were read, and what happens to the base's tensors by their names."""

    base: Contents
    adapter: Contents
    base_report: Report
    adapter_report: Report
    changes: Mapping[str, Change]


def plan_merge(base: Path, adapter: Path) -> MergePlan:
    """Look at both folders. Raises MergeRefused for what cannot be merged; nothing has been written then."""
    try:
        base, adapter = find_checkpoint(base), find_checkpoint(adapter)  # once: a training may go on meanwhile
    except UnreadableError as unreadable:
        raise MergeRefused(str(unreadable.finding)) from unreadable
    base_report = check(base)
    if not base_report.is_servable:
        raise MergeRefused(f"the base: {base_report.reason()}")
    contents, own = read_contents(base), read_contents(adapter)
    if own.adapter_config:
        _require_known_kind(own.adapter_config)
    adapter_report = check(adapter, base=base)
    fault = next((f for f in adapter_report.findings if f.severity == "error" and f.code not in _MOUNTING_ONLY), None)
    if fault is not None:
        raise MergeRefused(f"the adapter: {fault}")
    _require_plain_base(contents)
    changes: dict[str, Change] = {}
    for place, change in _list_changes(own, contents):
        if place in changes:
            message = f"the adapter changes {make_printable(place)} in two ways at once"
            raise MergeRefused(f"{message}: merge it with PEFT's merge_and_unload")
        changes[place] = change
    return MergePlan(contents, own, base_report, adapter_report, changes)


def _require_plain_base(base: Contents) -> None:
    if base.is_in_parts:
        raise MergeRefused(
            f"the base {base.path} lies in parts (llm/, vision_tower/, mm_projector/), which are not written here: "
            "mount the adapter, or merge it with VILA's own loader and save the model again"
        )
    packed = find_quantization(base)
    if packed:
        raise MergeRefused(
            f"the base {base.path} is packed ({packed}), and an adapter cannot be worked into packed numbers: merge it "
            "into the checkpoint that the base was packed from, and pack the result"
        )


def _require_known_kind(config: Fields) -> None:
    if config.text("peft_type") != "LORA":
        raise MergeRefused("the adapter: its peft_type is not LORA: merge it with PEFT's merge_and_unload")
    for key, reason in _UNMERGED.items():
        if config.get(key):
            raise MergeRefused(f"the adapter: {key} is set, and {reason}: merge it with PEFT's merge_and_unload")
    start = (config.text("init_lora_weights") or "").lower()
    if start and start not in PLAIN_STARTS:
        raise MergeRefused(
            f"the adapter: init_lora_weights {make_printable(start)!r} has changed the base's own weights too: convert "
            "it with PEFT's path_initial_model_for_weight_conversion first"
        )


@dataclass(slots=True)
class _Module:
    """What an adapter holds for one module."""

    parts: dict[str, Tensor] = field(default_factory=dict)


def _list_changes(adapter: Contents, base: Contents) -> Iterator[tuple[str, Change]]:
    modules, biases, wholes = _sort(adapter)
    places = index_modules(base.weights.tensors)
    by_core = {find_core(name): name for name in base.weights.tensors}
    for name, module in modules.items():
        place = places.get(find_core(name))
        if place is None:
            raise MergeRefused(f"the adapter changes {make_printable(name)}, which the base has not: give its own base")
        target = _require_number(base, place)
        _require_untied(base, place)
        yield place, _read_low_rank(adapter, name, module, target)
    for name, tensor in biases.items():
        place = by_core.get(f"{find_core(name)}.bias")
        if place is None:
            raise MergeRefused(f"the adapter has a bias for {make_printable(name)}, where the base has none")
        if _require_number(base, place).shape != tensor.shape:
            raise MergeRefused(f"the adapter's bias for {make_printable(name)} has another shape than the base's")
        yield place, Addition(_read(adapter, tensor), _scale(adapter.adapter_config, name))
    for name, tensor in wholes.items():
        place = by_core.get(find_core(name))
        if place is None:
            raise MergeRefused(f"the adapter brings {make_printable(name)}, which the base has not: give its own base")
        if _require_number(base, place).shape != tensor.shape:
            raise MergeRefused(
                f"the adapter brings {make_printable(name)} of another shape than the base's, as after "
                "resize_token_embeddings: merge it with PEFT's merge_and_unload and save the tokenizer beside it"
            )
        _require_untied(base, place)
        yield place, Replacement(_read(adapter, tensor))


def _sort(adapter: Contents) -> tuple[dict[str, _Module], dict[str, Tensor], dict[str, Tensor]]:
    """Modules by name, biases of LoRA's own by module, and tensors that were trained whole by the base's names."""
    modules: dict[str, _Module] = {}
    biases: dict[str, Tensor] = {}
    wholes: dict[str, Tensor] = {}
    for name, tensor in adapter.weights.tensors.items():
        plain = name.removeprefix(_PREFIX)
        module, _, role = plain.removesuffix(".weight").rpartition(".")
        if plain.endswith(".lora_B.bias"):
            biases[plain.removesuffix(".lora_B.bias")] = tensor
        elif role in _ROLES:
            modules.setdefault(module, _Module()).parts[role] = tensor
        elif not plain.endswith(".base_layer.weight"):  # a copy of the base's own embeddings
            wholes[plain.replace(".modules_to_save.", ".").replace(".base_layer.", ".")] = tensor
    return modules, biases, wholes


def _read_low_rank(adapter: Contents, name: str, module: _Module, target: Tensor) -> LowRank:
    config, parts = adapter.adapter_config, module.parts
    is_embedding = "lora_embedding_A" in parts
    start = "lora_embedding_" if is_embedding else "lora_"
    first, second = parts.get(f"{start}A"), parts.get(f"{start}B")
    if first is None or second is None:
        raise MergeRefused(f"the adapter: one of the two matrices of {make_printable(name)} is missing: save it again")
    is_transposed = is_embedding or config.flag("fan_in_fan_out") is True
    outputs, inputs = (target.shape[::-1] if is_transposed else target.shape) if len(target.shape) == 2 else (0, 0)
    rank = first.shape[0] if first.shape else 0
    if first.shape != (rank, inputs) or second.shape != (outputs, rank):
        raise MergeRefused(
            f"the adapter: the matrices of {make_printable(name)} do not make a change of the base's shape "
            f"{target.shape}: convolutions and the like are merged by PEFT's merge_and_unload"
        )
    vector = parts.get("lora_magnitude_vector")
    if (vector is not None) != (config.flag("use_dora") is True):
        raise MergeRefused(
            f"the adapter: use_dora and the tensors of {make_printable(name)} are of two different saves"
        )
    magnitude = None if vector is None else _read(adapter, vector).reshape(-1)
    if magnitude is not None and magnitude.shape != (outputs,):
        raise MergeRefused(f"the adapter: the magnitudes of {make_printable(name)} do not fit the base")
    a, b = _read(adapter, first), _read(adapter, second)
    return LowRank(a, b, _scale(config, name, rank), magnitude, is_transposed)


def _scale(config: Fields, module: str, rank: int | None = None) -> float:
    """How much the change counts; patterns of the configuration may say other than its own numbers."""
    own_rank = _match(config.section("rank_pattern"), module) or config.whole("r") or 0
    if rank is not None and rank != own_rank:
        raise MergeRefused(
            f"the adapter: {make_printable(module)} has rank {rank}, adapter_config.json says {own_rank:g}: copy both "
            "from the same save"
        )
    alpha = _match(config.section("alpha_pattern"), module)
    alpha = (config.number("lora_alpha") or 0.0) if alpha is None else alpha
    if own_rank <= 0:
        raise MergeRefused("the adapter: its rank, r, is no positive number: copy adapter_config.json again")
    return alpha / (sqrt(own_rank) if config.flag("use_rslora") else own_rank)


def _match(patterns: Fields, module: str) -> float | None:
    """The value of the first pattern that the module's name ends with; keys may be regular expressions, as in PEFT."""
    for key in patterns:
        # Repetition of repetition can take for ever; no trainer writes such.
        if re.search(r"\)[*+{]", key) or len(re.findall(r"[*+]", key)) > _MOST_REPETITIONS:
            raise MergeRefused(f"the adapter: the pattern {make_printable(key)} is too involved: write out its modules")
        try:
            if re.fullmatch(rf"(?:.*\.)?(?:{key})", module):
                return patterns.number(key)
        except re.error as fault:
            raise MergeRefused(f"the adapter: the pattern {make_printable(key)} is none: {fault}") from fault
    return None


def _require_number(base: Contents, place: str) -> Tensor:
    tensor = base.weights.tensors[place]
    if tensor.dtype not in NUMBER_TYPES:
        raise MergeRefused(f"the base stores {make_printable(place)} as {tensor.dtype}, which cannot be merged into")
    return tensor


def _require_untied(base: Contents, place: str) -> None:
    has_head = any(find_core(name) == "lm_head.weight" for name in base.weights.tensors)
    is_tied = find_tied(base)
    is_shared = is_tied or (is_tied is None and not has_head)
    if is_shared and find_core(place) in ("embed_tokens.weight", "lm_head.weight"):
        raise MergeRefused(
            f"the adapter changes {join_names([place])}, which in the base is input and output in one: untie them "
            "(save the base with a head of its own and tie_word_embeddings false), then merge"
        )


def _read(adapter: Contents, tensor: Tensor) -> Floats:
    if tensor.dtype not in NUMBER_TYPES:
        raise MergeRefused(f"the adapter stores {make_printable(tensor.name)} as {tensor.dtype}: save it as float32")
    return read_floats(adapter, tensor)
