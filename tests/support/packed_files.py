"""The checkpoint of `safetensors_files` with its layers packed, as headers have it; every number is nought or one."""

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint, write_header

GROUP = 8
Entries = dict[str, tuple[str, tuple[int, ...]]]

_BYTES = {
    "F32": struct.pack("<f", 0.5),
    "F16": b"\x00\x38",
    "I32": bytes(4),
    "I8": b"\1",
    "U8": b"\1",
    "F8_E4M3": b"\x38",
}
_TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}


def describe(form: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What compressed-tensors writes into config.json."""
    group = {"targets": ["Linear"], "weights": dict(weights), "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FP8_BLOCKS = FP8 | {"weight_block_size": [8, 8]}
INT4 = describe("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP})
INT4_SHIFTED = describe(
    "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": False}
)
_FOUR = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": GROUP}
NVFP4 = describe("nvfp4-pack-quantized", _FOUR, _FOUR | {"dynamic": "local"})
FP8_STATIC = describe(
    "float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"},
    {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False},
)  # fmt: skip
INT8 = describe("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}, _TOKEN)
FP8_ROWS = describe(
    "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}, _TOKEN | {"type": "float"}
)
FP8_WEIGHTS = describe("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"})


def list_packed(settings: Mapping[str, Any]) -> Entries:
    """The tensors of the checkpoint, all layers packed by one of the settings above, whatever they list."""
    lists = ("ignore", "ignored_layers", "modules_to_not_convert")
    settings = {key: value for key, value in settings.items() if key not in lists}
    entries: Entries = {}
    for name, shape in list_shapes().items():
        if "_proj" in name:
            entries |= {
                f"{name.removesuffix('weight')}{part}": entry for part, entry in _pack(settings, *shape).items()
            }
        else:
            entries[name] = ("F32", shape)
    return entries


def _pack(settings: Mapping[str, Any], outputs: int, inputs: int) -> Entries:
    groups = inputs // GROUP
    if settings in (GPTQ, AWQ):
        packed = (inputs // 8, outputs) if settings == GPTQ else (inputs, outputs // 8)
        return {
            "qweight": ("I32", packed), "qzeros": ("I32", (groups, outputs // 8)), "scales": ("F16", (groups, outputs)),
        }  # fmt: skip
    if settings == INT4:
        return {"weight_packed": ("I32", (outputs, inputs // 8)), "weight_scale": ("F32", (outputs, groups))}
    if settings == INT4_SHIFTED:
        return {**_pack(INT4, outputs, inputs), "weight_zero_point": ("I32", (outputs // 8, groups))}
    if settings == NVFP4:
        return {
            "weight_packed": ("U8", (outputs, inputs // 2)), "weight_scale": ("F8_E4M3", (outputs, groups)),
            "weight_global_scale": ("F32", (1,)), "input_global_scale": ("F32", (1,)),
        }  # fmt: skip
    if settings == FP8_STATIC:
        one = ("F32", (1,))
        return {"weight": ("F8_E4M3", (outputs, inputs)), "weight_scale": one, "input_scale": one}
    if settings == FP8_BLOCKS:
        return {"weight": ("F8_E4M3", (outputs, inputs)), "weight_scale_inv": ("F32", (outputs // 8, inputs // 8))}
    kind = "I8" if settings == INT8 else "F8_E4M3"
    scale = ("F32", () if settings == FP8 else (outputs, 1))
    return {"weight": (kind, (outputs, inputs)), "weight_scale": scale}


def write_packed(folder: Path, settings: Mapping[str, Any], entries: Entries | None = None) -> Path:
    """Write a checkpoint that is packed by these settings; soundly, unless other `entries` are given."""
    write_checkpoint(folder)
    edit_json(folder / "config.json", quantization_config=dict(settings))
    write_entries(folder / "model.safetensors", list_packed(settings) if entries is None else entries)
    return folder


def write_entries(path: Path, entries: Entries) -> None:
    """Write a file of tensors of several types."""
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, shape) in entries.items():
        values = _BYTES[dtype] * prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    write_header(path, header, data)
