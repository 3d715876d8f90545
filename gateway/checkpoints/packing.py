"""Packed weights: how a checkpoint says that its layers are packed, and what each packed layer stands for.

Knows the plain public formats inside out: GPTQ, AWQ, FP8 and those of compressed-tensors. Of others it knows the name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import make_printable
from gateway.checkpoints.safetensors import Tensor

Numbers = Literal["int", "float"]
Form = Literal["gptq", "awq", "packed", "scaled"]
"""How the tensors of a layer are laid out. The last two are those of compressed-tensors; FP8 is `scaled` too."""
Spread = Literal["tensor", "channel", "group", "block"]
"""What shares a scale: a whole tensor, the row of an output, a run of inputs in such a row, a rectangle."""

_MODELOPT_FILE = "hf_quant_config.json"  # where ModelOpt has put its settings up to release 0.29
_NAMES = {"auto-round": "inc", "gptq_marlin": "gptq", "auto_gptq": "gptq", "awq_marlin": "awq", "auto_awq": "awq"}
_MODELOPT_NAMES = {"NVFP4": "modelopt_fp4", "MXFP8": "modelopt_mxfp8", "MIXED_PRECISION": "modelopt_mixed"}
_PARTS = frozenset((
    "qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv", "weight_shape",
    "weight_zero_point", "weight_global_scale", "weight_g_idx", "weight_scale_2", "input_scale", "input_zero_point",
    "input_global_scale",
))  # fmt: skip
_SMALL = ("F8_E4M3", "F8_E5M2", "I8")
_STRATEGIES: Mapping[str, Spread] = {
    "tensor": "tensor", "channel": "channel", "group": "group", "tensor_group": "group", "block": "block",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the numbers of a layer are packed. `group` is the size of a group or rectangle, inputs last.

    `inputs` are the numbers that a layer's inputs are rounded to, None if they stay as they are; `is_static` if by a
    scale that the checkpoint has. `extras` are tensors that each layer has beside those of its form.
    """

    form: Form
    numbers: Numbers
    bits: int
    spread: Spread
    group: tuple[int, int] = (1, 0)
    inputs: Numbers | None = None
    is_static: bool = False
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = "whole numbers" if self.numbers == "int" else "floating point"
        rounded = "" if self.inputs is None else ", inputs too" if self.inputs == self.numbers else ", inputs in FP8"
        return f"{kind} of {self.bits} bits, a scale for each {self.spread}{rounded}"


@dataclass(frozen=True, slots=True)
class Packing:
    """What config.json says. `method` is the engine's name for it, "unnamed" without one.

    `schemes` are empty where the format is known by name only.
    """

    method: str
    settings: Fields
    schemes: tuple[Scheme, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """The tensors that take the place of one weight, by the last part of their names."""

    module: str
    parts: Mapping[str, Tensor]

    @property
    def file(self) -> str:
        """The file that holds it."""
        return next(iter(self.parts.values())).file


def read_packing(contents: Contents) -> Packing | None:
    """How the weights are packed by what the folder says; None if they are plain numbers."""
    for part in (contents.config, contents.text):
        section = part.section("quantization_config") or part.section("compression_config")
        if section:
            method = _read_method(section)
            return Packing(make_printable(method), section, tuple(dict.fromkeys(_read_schemes(method, section))))
    return Packing("modelopt", Fields()) if contents.folder.has(_MODELOPT_FILE) else None


def _read_method(section: Fields) -> str:
    said = (section.text("quant_method") or "").lower()
    if said == "modelopt" or (not said and (section.section("producer") or "quant_algo" in section)):
        return _MODELOPT_NAMES.get(_read_algorithm(section), "modelopt")
    return _NAMES.get(said, said).replace("compressed_tensors", "compressed-tensors") or "unnamed"


def _read_algorithm(section: Fields) -> str:
    """What ModelOpt calls its format; older releases put it one section deeper."""
    return (section.text("quant_algo") or section.section("quantization").text("quant_algo") or "").upper()


def list_layers(contents: Contents) -> dict[str, PackedLayer]:
    """The layers whose weights are packed, by the names of their modules."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in contents.weights.tensors.items():
        module, _, part = name.rpartition(".")
        if part in _PARTS or (part == "weight" and tensor.dtype in _SMALL):
            parts.setdefault(module, {})[part] = tensor
    return {module: PackedLayer(module, found) for module, found in parts.items() if not _is_only_scale(found)}


def _is_only_scale(parts: Mapping[str, Tensor]) -> bool:
    """A scale of a layer that is not packed, as of the cache or of inputs."""
    return parts.keys() <= {"input_scale", "input_zero_point", "input_global_scale"}


def list_unpacked(contents: Contents) -> dict[str, Tensor] | None:
    """Every tensor as it would be if nothing were packed, the weights by the name `weight`; None if that is not clear.

    Only names and shapes of the unpacked ones mean anything.
    """
    packing = read_packing(contents)
    tensors = contents.weights.tensors
    if packing is None:
        return dict(tensors)
    scheme = packing.schemes[0] if len(packing.schemes) == 1 else None
    layers = list_layers(contents)
    if scheme is None or not layers or packing.settings.section("dynamic"):
        return None
    found = {name: one for name, one in tensors.items() if not _is_of_packing(name, layers)}
    for module, layer in layers.items():
        shape = find_shape(layer, scheme)
        if shape is None:
            return None
        some = next(iter(layer.parts.values()))
        found[f"{module}.weight"] = replace(some, name=f"{module}.weight", dtype="BF16", shape=shape)
    return found


def _is_of_packing(name: str, layers: Mapping[str, PackedLayer]) -> bool:
    """Tensors that are there because of the packing: parts of a layer, and scales of inputs or of the cache."""
    module, _, part = name.rpartition(".")
    return part in _PARTS or part.endswith(("_scale", "_zero_point")) or (part == "weight" and module in layers)


def find_shape(layer: PackedLayer, scheme: Scheme) -> tuple[int, ...] | None:
    """The shape of the weight that a layer stands for, outputs by inputs; None if its tensors do not say."""
    name = {"gptq": "qweight", "awq": "qweight", "packed": "weight_packed", "scaled": "weight"}[scheme.form]
    stored = layer.parts.get(name)
    if stored is None:
        return None
    if scheme.form == "scaled":
        return stored.shape
    per_number = 8 if stored.dtype == "U8" else 32
    if len(stored.shape) != 2 or per_number % scheme.bits:
        return None
    rows, columns = stored.shape
    factor = per_number // scheme.bits
    return (columns, rows * factor) if scheme.form == "gptq" else (
        (columns * factor, rows) if scheme.form == "awq" else (rows, columns * factor)
    )  # fmt: skip


def _read_schemes(method: str, section: Fields) -> Iterator[Scheme]:
    if method == "compressed-tensors":
        groups = section.section("config_groups")
        for group in (groups.section(name) for name in groups):
            form = group.text("format") or section.text("format") or ""
            scheme = _read_numbers(form, group.section("weights"), group.section("input_activations"))
            if scheme is not None and not re.search(r"Attention$", "".join(group.texts("targets"))):
                yield scheme
    elif method in ("gptq", "awq"):
        bits = section.first_whole("bits", "w_bit")
        size = section.first_whole("group_size", "q_group_size")
        if bits and size:
            layout: Form = "gptq" if method == "gptq" else "awq"
            yield Scheme(layout, "int", bits, "channel" if size < 0 else "group", (1, max(0, size)))
    elif method == "modelopt" and _read_algorithm(section) == "FP8":
        yield Scheme("scaled", "float", 8, "tensor", inputs="float", is_static=True)
    elif method == "fp8":
        sides = _read_sides(section, "weight_block_size")
        is_static = section.text("activation_scheme") == "static"
        if sides is not None:
            yield Scheme("scaled", "float", 8, "block", sides, "float")
        elif "weight_block_size" not in section:
            yield Scheme("scaled", "float", 8, "tensor", inputs="float", is_static=is_static)


def _read_numbers(form: str, weights: Fields, inputs: Fields) -> Scheme | None:
    numbers, bits = weights.text("type"), weights.whole("num_bits")
    spread = _STRATEGIES.get(weights.text("strategy") or "")
    if numbers not in ("int", "float") or not bits or spread is None or not 0 < bits <= 8:
        return None
    kind = inputs.text("type")
    block = _read_sides(weights, "block_structure") or (1, 0)
    layout: Form = "packed" if "pack" in form else "scaled"
    return Scheme(
        layout,
        "int" if numbers == "int" else "float",
        bits,
        spread,
        block if spread == "block" else (1, weights.whole("group_size") or 0),
        "int" if kind == "int" else "float" if kind == "float" else None,
        is_static=bool(inputs) and inputs.get("dynamic") is False,
        extras=tuple(_list_extras(layout, weights, inputs)),
    )


def _list_extras(layout: Form, weights: Fields, inputs: Fields) -> Iterator[str]:
    if layout == "packed" and weights.text("type") == "int" and weights.flag("symmetric") is False:
        yield "weight_zero_point"
    for part, section in (("weight", weights), ("input", inputs)):
        if section.text("strategy") == "tensor_group":  # its scales are in FP8, and have a scale themselves
            yield f"{part}_global_scale"


def _read_sides(section: Fields, key: str) -> tuple[int, int] | None:
    """The sides of a rectangle, None where there are not two of them."""
    match section.get(key):
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    return None
