from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints import check
from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.manifest import inspect
from gateway.checkpoints.packing import Scheme, list_layers, list_unpacked, read_packing
from tests.support import packed_files as packed
from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint


@pytest.mark.parametrize(
    ("settings", "scheme"),
    [
        (packed.GPTQ, Scheme("gptq", "int", 4, "group", (1, 8))),
        (packed.GPTQ | {"dynamic": {}}, Scheme("gptq", "int", 4, "group", (1, 8))),
        (packed.GPTQ | {"group_size": -1}, Scheme("gptq", "int", 4, "channel", (1, 0))),
        (packed.GPTQ | {"quant_method": "GPTQ_Marlin"}, Scheme("gptq", "int", 4, "group", (1, 8))),
        (packed.AWQ, Scheme("awq", "int", 4, "group", (1, 8))),
        (packed.INT4, Scheme("packed", "int", 4, "group", (1, 8))),
        (packed.INT8, Scheme("scaled", "int", 8, "channel", (1, 0), "int")),
        (packed.FP8, Scheme("scaled", "float", 8, "tensor", (1, 0), "float")),
        (packed.FP8 | {"activation_scheme": "static"}, Scheme("scaled", "float", 8, "tensor", (1, 0), "float", True)),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8"},
            Scheme("scaled", "float", 8, "tensor", (1, 0), "float", True),
        ),
        (packed.FP8_BLOCKS, Scheme("scaled", "float", 8, "block", (8, 8), "float")),
        (packed.FP8_ROWS, Scheme("scaled", "float", 8, "channel", (1, 0), "float")),
        (packed.FP8_WEIGHTS, Scheme("scaled", "float", 8, "channel", (1, 0))),
    ],
)
def test_the_scheme_is_read_from_the_settings(tmp_path: Path, settings: dict[str, Any], scheme: Scheme) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=settings)
    packing = read_packing(read_contents(tmp_path))
    assert packing is not None
    assert packing.schemes == (scheme,)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "auto-round"}, "inc"),
        ({"quant_method": "modelopt", "quant_algo": "nvfp4"}, "modelopt_fp4"),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MXFP8"}}, "modelopt_mxfp8"),
        ({"quant_method": "compressed_tensors", "config_groups": 7}, "compressed-tensors"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": "8"}}}}, "compressed-tensors"),
        ({"quant_method": "fp8", "weight_block_size": [0, "x"]}, "fp8"),
        ({"quant_method": "gptq", "bits": "4"}, "gptq"),
        ({"bits": 4}, "unnamed"),
    ],
)  # fmt: skip
def test_of_other_settings_the_name_alone_is_known(tmp_path: Path, settings: dict[str, Any], method: str) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=settings)
    packing = read_packing(read_contents(tmp_path))
    assert packing is not None
    assert (packing.method, packing.schemes) == (method, ())
    assert list_unpacked(read_contents(tmp_path)) is None


def test_the_settings_may_stand_in_the_language_models_part(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", text_config={"quantization_config": packed.AWQ})
    packing = read_packing(read_contents(tmp_path))
    assert packing is not None
    assert packing.method == "awq"


ALL = [packed.GPTQ, packed.AWQ, packed.INT4, packed.INT8, packed.FP8, packed.FP8_BLOCKS, packed.FP8_ROWS]


@pytest.mark.parametrize("settings", ALL)
def test_unpacked_it_is_the_plain_checkpoint(tmp_path: Path, settings: dict[str, Any]) -> None:
    contents = read_contents(packed.write_packed(tmp_path, settings))
    unpacked = list_unpacked(contents)
    assert unpacked is not None
    assert {name: tensor.shape for name, tensor in unpacked.items()} == list_shapes()
    assert len(list_layers(contents)) == 14


@pytest.mark.parametrize("settings", ALL)
def test_parameters_are_counted_unpacked_and_bytes_as_they_are_stored(tmp_path: Path, settings: dict[str, Any]) -> None:
    plain = inspect(write_checkpoint(tmp_path / "plain"))
    manifest = inspect(packed.write_packed(tmp_path / "packed", settings))
    assert manifest.parameters == plain.parameters
    assert manifest.size_bytes < plain.size_bytes
    assert len(manifest.packing) == 1


def test_layers_of_different_bits_have_no_shape_that_is_clear(tmp_path: Path) -> None:
    folder = packed.write_packed(tmp_path, packed.GPTQ)
    edit_json(folder / "config.json", quantization_config=packed.GPTQ | {"dynamic": {"+:.*0.*": {"bits": 8}}})
    assert list_unpacked(read_contents(folder)) is None
    assert inspect(folder).parameters is None


@pytest.mark.parametrize("name", ["self_attn.k_scale", "self_attn.k_proj.output_scale", "mlp.input_scale"])
def test_scales_of_the_cache_and_of_inputs_have_their_place(tmp_path: Path, name: str) -> None:
    entries = packed.list_packed(packed.FP8) | {f"model.layers.0.{name}": ("F32", ())}
    folder = packed.write_packed(tmp_path, packed.FP8, entries)
    assert len(list_layers(read_contents(folder))) == 14
    assert check(folder).findings == ()


def test_a_bias_for_each_layer_is_gptqs_habit(tmp_path: Path) -> None:
    bias = {"model.layers.0.self_attn.q_proj.bias": ("F32", (8,))}
    folder = packed.write_packed(tmp_path / "gptq", packed.GPTQ, packed.list_packed(packed.GPTQ) | bias)
    assert check(folder).findings == ()
    folder = packed.write_packed(tmp_path / "awq", packed.AWQ, packed.list_packed(packed.AWQ) | bias)
    assert [finding.code for finding in check(folder).findings] == ["tensors-extra"]
