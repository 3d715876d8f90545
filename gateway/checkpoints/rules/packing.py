"""Rules about packed weights: of a kind that the engine loads on this device, and each layer's tensors all there.

What a processor can load was tried with real engines on one without AVX-512; what AVX-512, AMX and GPUs add is read
from the engine's own code.
"""

from collections.abc import Iterator, Mapping
from math import ceil

from gateway.checkpoints.architectures import load_registry
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, make_printable, warning
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.packing import PackedLayer, Packing, Scheme, find_shape, list_layers, read_packing
from gateway.checkpoints.rules.ignoring import judge_ignored
from gateway.checkpoints.safetensors import Tensor, write_shape

_FILE = "config.json"
_UNPACK = "unpack it by from_pretrained(…).dequantize().save_pretrained(DIR, save_original_format=False)"
_PLAIN = "the plain checkpoint that it was made of"
_PACK_AGAIN = f"serve {_PLAIN}, or pack that one by compressed-tensors or AWQ"
_SAME_SAVE = "copy the weights and config.json of one save"
_DEPRECATED = ("fbgemm_fp8", "fp_quant")
_NO_KERNELS_ON_CPU = {
    "modelopt_fp4": "NVFP4", "modelopt_mxfp8": "MXFP8", "mxfp8": "MXFP8", "modelopt_mixed": "ModelOpt's mixed formats",
    "fbgemm_fp8": "FBGEMM's FP8", "fp_quant": "FP-Quant", "humming": "Humming",
}  # fmt: skip
_FUSED = {"qkv_proj": 3, "gate_up_proj": 2}  # layers that may keep the scale of each part
_WHY_UNSERVED = {"bitsandbytes": "bitsandbytes (NF4 or LLM.int8)", "gguf": "GGUF"}


def judge_packing(contents: Contents, hardware: Hardware | None = None) -> Iterator[Finding]:
    """Findings about packed weights; about what loads where only if a kind of `hardware` is given."""
    packing = read_packing(contents)
    if packing is None or contents.is_mistral or not contents.config:
        return
    if packing.method == "unnamed" and not list_layers(contents):
        return  # the engine takes no notice of it
    faults = list(_judge_method(packing))
    yield from faults
    if any(fault.severity == "error" for fault in faults):
        return
    if hardware is not None and hardware.kind == "cpu" and (reason := explain_on_cpu(packing, hardware)):
        mend = f"serve it on a GPU, or {_PLAIN}; compressed-tensors' INT8 (W8A8) runs on every processor"
        yield error("packing-device", _FILE, f"{_FILE}: {reason}", mend)
    if contents.weights.is_whole and packing.schemes:
        yield from _judge_layers(contents, packing)


def judge_adapter_on_packed(base: Contents, hardware: Hardware | None) -> Iterator[Finding]:
    """Findings about mounting any adapter on a packed base."""
    packing = read_packing(base)
    if packing is None or hardware is None or hardware.kind != "cpu":
        return
    if any(scheme.bits == 8 and scheme.numbers == scheme.inputs == "int" for scheme in packing.schemes):
        message = (
            f"the base is packed as {packing.schemes[0]}; on a CPU {load_registry().engine} mounts no adapter on it"
        )
        mend = "serve it on a GPU, take the plain base, or merge the adapter into the plain base and pack the result"
        yield error("packing-device", _FILE, message, mend)


def explain_on_cpu(packing: Packing, hardware: Hardware) -> str | None:
    """Why the engine cannot load such weights on this processor, None if it can or nobody knows."""
    engine = load_registry().engine
    if packing.method in _NO_KERNELS_ON_CPU:
        return f"{engine} has nothing to compute {_NO_KERNELS_ON_CPU[packing.method]} with on a CPU"
    for scheme in packing.schemes:
        if (lack := _find_lack(scheme, hardware)) is not None:
            return f"packed as {scheme}, for which {engine} {lack}"
    return None


def _find_lack(scheme: Scheme, hardware: Hardware) -> str | None:
    nothing = "has nothing to compute with on a CPU"
    if scheme.numbers == "float":
        if scheme.bits != 8 or scheme.inputs != "float" or (scheme.spread == "group"):
            return nothing
        is_plain = scheme.spread == "channel" and not scheme.is_static
        return (
            "needs a processor with AMX, which this one lacks" if not is_plain and hardware.has_amx is False else None
        )
    if scheme.inputs == "int" and scheme.form == "scaled":
        return None
    if scheme.bits != 4:
        return nothing
    return "needs a processor with AVX-512, which this one lacks" if hardware.has_avx512 is False else None


def _judge_method(packing: Packing) -> Iterator[Finding]:
    registry = load_registry()
    if packing.method == "unnamed":
        message = f"{_FILE}: quantization_config does not say by quant_method how the weights are packed"
        yield error("packing-unserved", _FILE, message, "copy quantization_config from where the model was packed")
    elif packing.method not in registry.packings:
        name = _WHY_UNSERVED.get(packing.method, packing.method)
        message = f"{_FILE}: weights packed by {name} are loaded by {registry.engine} on no device"
        mend = f"{_PACK_AGAIN}; or {_UNPACK}" if packing.method == "bitsandbytes" else _PACK_AGAIN
        yield error("packing-unserved", _FILE, message, mend)
    elif packing.method in _DEPRECATED:
        message = f"{_FILE}: {registry.engine} is about to drop {packing.method} and loads it only if it is told to"
        mend = f"set engine_args {{allow-deprecated-quantization: true}}, or {_PACK_AGAIN}"
        yield warning("packing-deprecated", _FILE, message, mend)
    elif (fault := _find_unserved(packing)) is not None:
        yield error("packing-unserved", _FILE, f"{_FILE}: {fault}, which {registry.engine} does not load", _PACK_AGAIN)


def _find_unserved(packing: Packing) -> str | None:
    """A setting of a known format that the engine loads no more, or never did."""
    settings = packing.settings
    if packing.method == "gptq":
        if settings.flag("desc_act") and settings.whole("group_size") != -1:
            return "GPTQ with groups ordered by activation (desc_act)"
        if settings.flag("sym") is False:
            return "GPTQ with zero points of its own (sym: false)"
    bits = {scheme.bits for scheme in packing.schemes}
    if packing.method == "gptq" and not bits <= {4, 8}:
        return f"GPTQ of {min(bits)} bits"
    if packing.method == "awq" and not bits <= {4}:
        return f"AWQ of {min(bits)} bits"
    groups = settings.section("config_groups")
    orders = {groups.section(name).section("weights").text("actorder") for name in groups}
    if orders & {"group", "dynamic"}:
        return "compressed-tensors with groups ordered by activation (actorder)"
    return None


def _judge_layers(contents: Contents, packing: Packing) -> Iterator[Finding]:
    layers = list_layers(contents)
    if not layers:
        file = contents.weights.files[0]
        message = f"{file} holds no packed layer, and config.json says that they are packed by {packing.method}"
        yield error("packing-parts", file, message, f"take quantization_config out of config.json, or {_SAME_SAVE}")
        return
    alone = [(layer, lack) for layer in layers.values() if (lack := _find_missing(layer, packing.schemes))]
    if alone:
        layer, lack = alone[0]
        name = make_printable(layer.module)
        message = f"{layer.file}: {len(alone)} packed layers are not whole, first {name}, which has no {lack}"
        yield error("packing-parts", layer.file, message, "copy all shards of the model, or pack it again")
        return
    yield from judge_ignored(contents, packing, layers)
    if len(packing.schemes) == 1 and not packing.settings.section("dynamic"):
        yield from _judge_shapes(layers, packing)


def _find_missing(layer: PackedLayer, schemes: tuple[Scheme, ...]) -> str | None:
    """The first tensor that a layer lacks, by the scheme that it lacks least of."""
    missing = [
        [names for names in _list_needed(scheme) if not any(name in layer.parts for name in names.split(" or "))]
        for scheme in schemes
    ]
    least = min(missing, key=len)
    return least[0] if least else None


def _list_needed(scheme: Scheme) -> tuple[str, ...]:
    if scheme.form in ("gptq", "awq"):
        return "qweight", "scales", "qzeros"
    if scheme.form == "packed":
        return "weight_packed", "weight_scale", *scheme.extras
    static = ("input_scale",) if scheme.is_static else ()
    return "weight", "weight_scale or weight_scale_inv", *static, *scheme.extras


def _judge_shapes(layers: Mapping[str, PackedLayer], packing: Packing) -> Iterator[Finding]:
    """The scales and zero points must be as many as the weight has rows and groups."""
    scheme = packing.schemes[0]
    for layer in layers.values():
        shape = find_shape(layer, scheme)
        if shape is None or len(shape) != 2:
            continue
        for tensor, allowed in _list_shapes(layer, scheme, shape):
            if tensor.shape not in allowed:
                name, wanted = make_printable(tensor.name), write_shape(allowed[0])
                message = f"{tensor.file}: {name} is {write_shape(tensor.shape)}, config.json makes it {wanted}"
                yield error("packing-shape", tensor.file, message, _SAME_SAVE)
                return


def _list_shapes(
    layer: PackedLayer, scheme: Scheme, shape: tuple[int, ...]
) -> Iterator[tuple[Tensor, tuple[tuple[int, ...], ...]]]:
    outputs, inputs = shape
    size = scheme.group[1]
    groups = ceil(inputs / size) if scheme.spread == "group" and size > 0 else 1
    if scheme.form in ("gptq", "awq"):
        yield layer.parts["scales"], ((groups, outputs),)
        yield layer.parts["qzeros"], ((groups, outputs * scheme.bits // 32),)
        return
    scale = layer.parts.get("weight_scale") or layer.parts["weight_scale_inv"]
    rows, columns = scheme.group
    zeros = layer.parts.get("weight_zero_point")
    if zeros is not None and scheme.form == "packed" and scheme.spread in ("channel", "group"):
        yield zeros, ((ceil(outputs * scheme.bits / 32), groups), (outputs, groups))
    if scheme.spread == "tensor":
        fused = _FUSED.get(layer.module.rpartition(".")[2], 1)
        yield scale, ((1,), (), (1, 1), (fused,), (fused, 1))
    elif scheme.spread == "channel":
        yield scale, ((outputs, 1), (outputs,))
    elif scheme.spread == "group":
        yield scale, ((outputs, groups),)
    elif scheme.spread == "block" and rows > 0 and columns > 0:
        yield scale, ((ceil(outputs / rows), ceil(inputs / columns)),)
