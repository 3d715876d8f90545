"""Rules about an adapter and a base together: the modules it changes are there, and the shapes are theirs."""

import re
from collections.abc import Iterable, Iterator

from gateway.checkpoints.architectures import is_vision_mounted, load_registry
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, join_names, make_printable, note, warning
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.manifest import find_quantization
from gateway.checkpoints.matrices import Matrices, Pair, find_core, index_modules, is_vision_module, read_matrices
from gateway.checkpoints.packing import list_unpacked
from gateway.checkpoints.rules.packing import judge_adapter_on_packed
from gateway.checkpoints.rules.shapes import find_embedding
from gateway.checkpoints.safetensors import Tensor

_FILE = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_MERGE = "gateway merge --base B --adapter A --out DIR, and serve the result as a version"
_PACKED_NAME = re.compile(r"bnb|nf4|[48]-?bit|int[48]|gptq|awq|fp8|w\da\d+", re.IGNORECASE)
_OTHER_BASE = "give the base that it was trained on"


def judge_mounting(adapter: Contents, base: Contents, hardware: Hardware | None = None) -> Iterator[Finding]:
    """Findings about mounting `adapter` on `base`, both already sound by themselves; on `hardware`, if it is given."""
    if not adapter.weights.is_whole or not base.weights.is_whole:
        return
    matrices = read_matrices(adapter.weights)
    pairs, tensors = matrices.pairs, list_unpacked(base) or base.weights.tensors
    yield from _judge_embeddings(adapter, base, matrices)
    modules = index_modules(tensors)
    # Experts are stored apart or fused, and never as they are named in an adapter.
    plain = {name: pair for name, pair in pairs.items() if ".experts" not in name}
    if base.is_in_parts:  # VILA names its tower's modules otherwise than the tower's file does; they are refused below
        plain = {name: pair for name, pair in plain.items() if not is_vision_module(name)}
    lost = [name for name in plain if find_core(name) not in modules]
    if lost:
        yield _explain_lost(lost, len(plain), base)
    for name, pair in plain.items():
        if name not in lost and (finding := _judge_shapes(name, pair, tensors[modules[find_core(name)]], adapter)):
            yield finding
            break
    yield from judge_adapter_on_packed(base, hardware)
    yield from _judge_vision(pairs, base)
    yield from _judge_tokens(adapter, base)
    yield from _judge_base_name(adapter, base)


def _explain_lost(lost: list[str], total: int, base: Contents) -> Finding:
    layers = base.text.whole("num_hidden_layers")
    highest = max((int(number) for name in lost for number in re.findall(r"\.layers\.(\d{1,9})\.", name)), default=-1)
    reason = f"; the base has {layers} layers" if layers is not None and highest >= layers else ""
    count = "all" if len(lost) == total else f"{len(lost)} of {total}"
    message = f"{_WEIGHTS}: {count} modules it changes are not in the base, first {join_names(lost[:1])}{reason}"
    return error("adapter-misfit", _WEIGHTS, message, _OTHER_BASE)


def _judge_shapes(name: str, pair: Pair, weight: Tensor, adapter: Contents) -> Finding | None:
    if pair.a is None or pair.b is None or len(pair.a.shape) != 2 or len(pair.b.shape) != 2:
        return None
    if not weight.is_float or len(weight.shape) != 2 or not weight.name.endswith(".weight"):
        return None
    outputs, inputs = weight.shape
    if pair.is_embedding or adapter.adapter_config.flag("fan_in_fan_out"):
        outputs, inputs = inputs, outputs
    asked = (pair.b.shape[0], pair.a.shape[1])
    if asked == (outputs, inputs):
        return None
    message = (
        f"{_WEIGHTS}: {make_printable(name)} is for {asked[1]:,} inputs and {asked[0]:,} outputs, "
        f"the base has {inputs:,} and {outputs:,}"
    )
    return error("adapter-misfit", _WEIGHTS, message, _OTHER_BASE)


def _judge_embeddings(adapter: Contents, base: Contents, matrices: Matrices) -> Iterator[Finding]:
    own = find_embedding(base.weights.tensors)
    for name in matrices.embeddings if own is not None else ():
        rows = adapter.weights.tensors[name].shape[:1]
        if own is not None and rows != own.shape[:1]:
            message = (
                f"{_WEIGHTS} brings embeddings with {rows[0] if rows else 0:,} rows, the base has {own.shape[0]:,}"
            )
            mend = "merge it into its base (PEFT's merge_and_unload) and serve the result as a version"
            yield error("adapter-tokens", _WEIGHTS, message, mend)
            return


def _judge_vision(modules: Iterable[str], base: Contents) -> Iterator[Finding]:
    count = sum(1 for name in modules if is_vision_module(name))
    architectures = base.config.texts("architectures")
    is_mounted = is_vision_mounted(architectures)
    if not count or not base.is_visual or is_mounted:
        return
    message = f"{_WEIGHTS} changes {count} modules of the vision side"
    if is_mounted is None:
        message += f", and whether {load_registry().engine} mounts these for {join_names(architectures)} is not known"
        yield warning("adapter-vision", _WEIGHTS, message, f"compare its answers with those of the merged: {_MERGE}")
    else:
        message += (
            f", which {load_registry().engine} mounts for {join_names(architectures)} without effect, or not at all"
        )
        mend = "train one on the language model alone" if base.is_in_parts else f"merge it: {_MERGE}"
        yield error("adapter-vision", _WEIGHTS, message, mend)


def _judge_tokens(adapter: Contents, base: Contents) -> Iterator[Finding]:
    """An adapter's own tokenizer is not used; it matters only if training added tokens to the base's."""
    known = base.tokenizer.added
    new = [token for token in adapter.tokenizer.added if token not in known]
    larger = (adapter.tokenizer.trained_size or 0) > (base.tokenizer.size or 0) > 0
    if base.tokenizer.trained_size is None or not (new or larger):
        return
    what = join_names(new) if new else f"{adapter.tokenizer.trained_size:,} tokens"
    message = f"tokenizer.json of the adapter has tokens that the base does not ({what}); the base's tokenizer is used"
    mend = "if training used them, merge it into its base and serve the result as a version"
    yield warning("adapter-tokens", "tokenizer.json", message, mend)


def _judge_base_name(adapter: Contents, base: Contents) -> Iterator[Finding]:
    said = adapter.adapter_config.text("base_model_name_or_path")
    if not said:
        return
    name = said.rstrip("/").rpartition("/")[2]
    if (packed := _PACKED_NAME.search(name)) is not None and find_quantization(base) is None:
        message = f"{_FILE} names the packed base {make_printable(name)} ({packed[0]}): trained as QLoRA does"
        mend = "over the plain base its answers differ a little from those in training; nothing to do"
        yield note("adapter-packed-base", _FILE, message, mend)
        return
    own = (base.config.text("_name_or_path") or "").rstrip("/").rpartition("/")[2]
    if name not in (base.path.name, base.path.resolve().name, own):
        message = (
            f"{_FILE} names the base {make_printable(name)}, it is looked at over {make_printable(base.path.name)}"
        )
        yield note("adapter-base-name", _FILE, message)
