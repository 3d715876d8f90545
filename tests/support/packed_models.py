"""Checkpoints from `tiny_models` with their layers packed, in the public formats of the tools that pack."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GROUP = 32
_BLOCK = 128
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PACKED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Packed = tuple[dict[str, "torch.Tensor"], "torch.Tensor"]
"""The tensors that take a weight's place, by the ends of their names, and the weight that they stand for."""


def pack(plain: Path, folder: Path, scheme: str, dtype: str = "bfloat16", **changes: Any) -> Path:
    """Write the checkpoint again with its layers packed by one of `SCHEMES`; `changes` are those of its settings."""
    packer, settings = SCHEMES[scheme]
    _rewrite(plain, folder, packer, dtype, lambda packed: packed[0], quantization_config=settings | changes)
    return folder


def unpack(plain: Path, folder: Path, scheme: str, dtype: str = "bfloat16") -> Path:
    """The same numbers as `pack` has written, not packed."""
    _rewrite(plain, folder, SCHEMES[scheme][0], dtype, lambda packed: {"weight": packed[1]})
    return folder


def _rewrite(
    plain: Path,
    folder: Path,
    packer: Callable[["torch.Tensor"], Packed],
    dtype: str,
    choose: Callable[[Packed], dict[str, "torch.Tensor"]],
    **settings: Any,
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    for file in plain.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    wanted = getattr(torch, dtype)
    found: dict[str, torch.Tensor] = {}
    for name, weight in load_file(plain / "model.safetensors").items():
        module, _, part = name.rpartition(".")
        if part == "weight" and module.endswith(_PACKED) and "visual" not in module:
            found |= {f"{module}.{end}": tensor for end, tensor in choose(packer(weight.float())).items()}
        else:
            found[name] = weight
    # Scales too are saved in the model's type of numbers, where they are not whole ones.
    cast = {
        name: one.to(wanted) if one.dtype in (torch.float32, torch.bfloat16) else one for name, one in found.items()
    }
    save_file({name: one.contiguous() for name, one in cast.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": dtype} | settings))


def _pack_gptq(weight: "torch.Tensor", bits: int = 4) -> Packed:
    import torch

    middle = 2 ** (bits - 1)
    whole, scales, unpacked = _round_groups(weight, middle)
    outputs, inputs = weight.shape
    groups = inputs // GROUP
    zeros = torch.full((groups, outputs), middle - 1)  # one less than meant, by the format's oldest habit
    tensors = {
        "qweight": _join((whole + middle).T.reshape(inputs * bits // 32, 32 // bits, outputs).transpose(1, 2), bits),
        "qzeros": _join(zeros.reshape(groups, outputs * bits // 32, 32 // bits), bits),
        "scales": scales.T.half(),
        "g_idx": (torch.arange(inputs) // GROUP).int(),
    }
    return tensors, unpacked


def _pack_awq(weight: "torch.Tensor") -> Packed:
    import torch

    whole, scales, unpacked = _round_groups(weight, 8)
    outputs, inputs = weight.shape
    numbers = (whole + 8).T.reshape(inputs, outputs // 8, 8)[:, :, list(_AWQ_ORDER)]
    zeros = torch.full((inputs // GROUP, outputs // 8, 8), 8)
    return {"qweight": _join(numbers, 4), "qzeros": _join(zeros, 4), "scales": scales.T.half()}, unpacked


def _pack_int4(weight: "torch.Tensor", bits: int = 4) -> Packed:
    import torch

    middle = 2 ** (bits - 1)
    whole, scales, unpacked = _round_groups(weight, middle)
    outputs, inputs = weight.shape
    tensors = {
        "weight_packed": _join((whole + middle).reshape(outputs, inputs * bits // 32, 32 // bits), bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor([outputs, inputs]),
    }
    return tensors, unpacked


def _pack_int8(weight: "torch.Tensor") -> Packed:
    scale = weight.abs().amax(1, keepdim=True) / 127
    whole = (weight / scale).round().clamp(-127, 127)
    return {"weight": whole.char(), "weight_scale": scale}, whole * scale


def _pack_fp8(weight: "torch.Tensor") -> Packed:
    import torch

    scale = weight.abs().amax(1, keepdim=True) / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale": scale}, small.float() * scale


def _pack_fp8_tensor(weight: "torch.Tensor") -> Packed:
    import torch

    scale = weight.abs().amax() / 448
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale": scale}, small.float() * scale


def _pack_fp8_blocks(weight: "torch.Tensor") -> Packed:
    import torch

    outputs, inputs = weight.shape
    blocks = weight.reshape(outputs // _BLOCK, _BLOCK, inputs // _BLOCK, _BLOCK)
    scale = blocks.abs().amax((1, 3), keepdim=True) / 448
    small = (blocks / scale).to(torch.float8_e4m3fn)
    unpacked = (small.float() * scale).reshape(outputs, inputs)
    return {"weight": small.reshape(outputs, inputs), "weight_scale_inv": scale[:, 0, :, 0]}, unpacked


def _round_groups(weight: "torch.Tensor", middle: int) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Whole numbers around nought, a scale for each group of inputs, and the weight that they make."""
    outputs, inputs = weight.shape
    grouped = weight.reshape(outputs, inputs // GROUP, GROUP)
    scales = (grouped.abs().amax(2) / (middle - 1)).half().float()
    whole = (grouped / scales[..., None]).round().clamp(-middle, middle - 1)
    return whole.long().reshape(outputs, inputs), scales, (whole * scales[..., None]).reshape(outputs, inputs)


def _join(numbers: "torch.Tensor", bits: int) -> "torch.Tensor":
    """The last dimension's numbers side by side in one of 32 bits, the first lowest."""
    import torch

    shifts = torch.arange(0, 32, bits)
    return (numbers.long() << shifts).sum(-1).to(torch.int32)


def _describe(format_name: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": format_name, "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": group},
    }  # fmt: skip


def _numbers(bits: int, kind: str, strategy: str, *, is_dynamic: bool = False, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": is_dynamic, **more}


SCHEMES: dict[str, tuple[Callable[["torch.Tensor"], Packed], dict[str, Any]]] = {
    "gptq": (
        _pack_gptq,
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False},
    ),
    "gptq-8": (
        lambda weight: _pack_gptq(weight, 8),
        {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False},
    ),
    "awq": (
        _pack_awq,
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    ),
    "w8a8": (
        _pack_int8,
        _describe("int-quantized", _numbers(8, "int", "channel"), _numbers(8, "int", "token", is_dynamic=True)),
    ),
    "w4a16": (_pack_int4, _describe("pack-quantized", _numbers(4, "int", "group", group_size=GROUP), None)),
    "w8a16": (
        lambda weight: _pack_int4(weight, 8),
        _describe("pack-quantized", _numbers(8, "int", "group", group_size=GROUP), None),
    ),
    "w8a8-fp8": (
        _pack_fp8,
        _describe("float-quantized", _numbers(8, "float", "channel"), _numbers(8, "float", "token", is_dynamic=True)),
    ),
    "w8a16-fp8": (_pack_fp8, _describe("naive-quantized", _numbers(8, "float", "channel"), None)),
    "fp8": (_pack_fp8_tensor, {"quant_method": "fp8", "activation_scheme": "dynamic"}),
    "fp8-blocks": (
        _pack_fp8_blocks,
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [_BLOCK, _BLOCK]},
    ),
}
"""How a weight is packed, and what config.json says of it, by the name of the scheme."""
