from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints import check
from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.findings import Finding
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.rules.packing import judge_packing
from tests.support import packed_files as packed
from tests.support.safetensors_files import HIDDEN, edit_json, write_adapter, write_checkpoint

PLAIN = Hardware("cpu", has_avx512=False, has_amx=False)
WIDE = Hardware("cpu", has_avx512=True, has_amx=False)
LATEST = Hardware("cpu", has_avx512=True, has_amx=True)
ARM = Hardware("cpu")
GPU = Hardware("cuda")
STATIC = packed.FP8 | {"activation_scheme": "static"}


def judge(folder: Path, settings: dict[str, Any], hardware: Hardware | None = None, **entries: Any) -> list[Finding]:
    kept = {name.replace("__", "."): entry for name, entry in entries.items()}
    every = packed.list_packed(settings) | kept
    packed.write_packed(folder, settings, {name: entry for name, entry in every.items() if entry is not None})
    return list(judge_packing(read_contents(folder), hardware))


@pytest.mark.parametrize(
    ("settings", "plain", "wide", "latest"),
    [
        (packed.INT8, True, True, True),
        (packed.FP8_ROWS, True, True, True),
        (packed.GPTQ, False, True, True),
        (packed.AWQ, False, True, True),
        (packed.INT4, False, True, True),
        (packed.FP8, False, False, True),
        (packed.FP8_BLOCKS, False, False, True),
        (packed.FP8_WEIGHTS, False, False, False),
    ],
)
def test_what_a_processor_loads_is_for_it_to_say(
    tmp_path: Path, settings: dict[str, Any], plain: bool, wide: bool, latest: bool
) -> None:
    folder = packed.write_packed(tmp_path, settings)
    for hardware, loads in ((PLAIN, plain), (WIDE, wide), (LATEST, latest), (GPU, True), (None, True)):
        report = check(folder, hardware=hardware)
        assert [finding.code for finding in report.findings] == ([] if loads else ["packing-device"])
        assert report.is_servable == loads


def test_of_other_processors_only_what_none_can_load_is_refused(tmp_path: Path) -> None:
    assert judge(tmp_path / "1", packed.GPTQ, ARM) == []
    assert [finding.code for finding in judge(tmp_path / "2", packed.FP8_WEIGHTS, ARM)] == ["packing-device"]


@pytest.mark.parametrize(
    "settings", [packed.NVFP4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, {"quant_method": "mxfp8"}]
)
def test_the_newest_formats_need_a_gpu(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=settings)
    finding = next(judge_packing(read_contents(tmp_path), LATEST))
    assert finding.code == "packing-device"
    assert finding.mend.startswith("serve it on a GPU, or the plain checkpoint")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes (NF4 or LLM.int8)"),
        ({"quant_method": "gguf"}, "GGUF"),
        ({"quant_method": "hqq"}, "hqq"),
        (packed.GPTQ | {"desc_act": True}, "ordered by activation (desc_act)"),
        (packed.GPTQ | {"sym": False}, "zero points of its own"),
        (packed.GPTQ | {"bits": 3}, "GPTQ of 3 bits"),
        (packed.AWQ | {"bits": 8}, "AWQ of 8 bits"),
        (
            packed.describe("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "actorder": "group"}),
            "ordered by activation (actorder)",
        ),
    ],
)
def test_what_no_device_loads(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=settings)
    report = check(tmp_path, hardware=GPU)
    assert report.findings[0].code == "packing-unserved"
    assert words in report.findings[0].message
    assert not report.is_servable


def test_packed_weights_without_a_method_are_refused(tmp_path: Path) -> None:
    folder = packed.write_packed(tmp_path, packed.GPTQ)
    edit_json(folder / "config.json", quantization_config={"bits": 4})
    (finding,) = judge_packing(read_contents(folder))
    assert "does not say by quant_method" in finding.message
    assert check(edited(write_checkpoint(tmp_path / "plain"), {"bits": 4})).findings == ()


def edited(folder: Path, settings: dict[str, Any]) -> Path:
    edit_json(folder / "config.json", quantization_config=settings)
    return folder


def test_one_group_a_row_has_no_order(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=packed.GPTQ | {"desc_act": True, "group_size": -1})
    assert "packing-unserved" not in {finding.code for finding in judge_packing(read_contents(tmp_path))}


def test_what_the_engine_is_about_to_drop_is_warned_of(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config={"quant_method": "fbgemm_fp8"})
    finding = next(judge_packing(read_contents(tmp_path), GPU))
    assert (finding.severity, finding.code) == ("warning", "packing-deprecated")


Q_PROJ = "model__layers__1__self_attn__q_proj__"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (packed.GPTQ, "scales"),
        (packed.GPTQ, "qzeros"),
        (packed.AWQ, "qweight"),
        (packed.INT4, "weight_scale"),
        (packed.INT4, "weight_packed"),
        (packed.INT8, "weight_scale"),
        (packed.FP8, "weight_scale"),
        (packed.FP8_BLOCKS, "weight_scale_inv"),
        (packed.FP8_STATIC, "weight_scale"),
        (packed.FP8_STATIC, "input_scale"),
        (packed.INT4_SHIFTED, "weight_zero_point"),
        (packed.NVFP4, "weight_packed"),
        (packed.NVFP4, "weight_scale"),
        (packed.NVFP4, "weight_global_scale"),
        (packed.NVFP4, "input_global_scale"),
    ],
)
def test_a_layer_without_one_of_its_tensors(tmp_path: Path, settings: dict[str, Any], part: str) -> None:
    (finding,) = judge(tmp_path, settings, **{Q_PROJ + part: None})
    assert finding.code == "packing-parts"
    assert f"first model.layers.1.self_attn.q_proj, which has no {part.removesuffix('_inv')}" in finding.message


def test_static_inputs_need_their_scales(tmp_path: Path) -> None:
    (finding,) = judge(tmp_path, STATIC)
    assert "14 packed layers are not whole" in finding.message
    assert "no input_scale" in finding.message


def test_nothing_is_packed_although_it_is_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=packed.GPTQ)
    assert [finding.code for finding in judge_packing(read_contents(tmp_path))] == ["packing-parts"]


@pytest.mark.parametrize(
    ("settings", "part", "entry"),
    [
        (packed.GPTQ, "scales", ("F16", (2, HIDDEN))),
        (packed.AWQ, "qzeros", ("I32", (1, 2))),
        (packed.INT4, "weight_scale", ("F32", (HIDDEN, 2))),
        (packed.INT8, "weight_scale", ("F32", (4, 1))),
        (packed.FP8_BLOCKS, "weight_scale_inv", ("F32", (2, 1))),
        (packed.FP8, "weight_scale", ("F32", (3, 7))),
        (packed.FP8, "weight_scale", ("F32", (3,))),
        (packed.FP8_STATIC, "weight_scale", ("F32", (HIDDEN,))),
        (packed.INT4_SHIFTED, "weight_zero_point", ("I32", (3, 7))),
    ],
)
def test_scales_of_another_shape(
    tmp_path: Path, settings: dict[str, Any], part: str, entry: tuple[str, tuple[int, ...]]
) -> None:
    (finding,) = judge(tmp_path, settings, **{Q_PROJ + part: entry})
    assert finding.code == "packing-shape"
    assert f"model.layers.1.self_attn.q_proj.{part} is " in finding.message


@pytest.mark.parametrize(
    "settings", [packed.INT4_SHIFTED, packed.NVFP4, packed.FP8_STATIC], ids=["shifted", "nvfp4", "static"]
)
def test_what_is_whole_is_found_so(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert check(packed.write_packed(tmp_path, settings), hardware=GPU).findings == ()


def test_a_fused_layer_may_have_a_scale_for_each_part(tmp_path: Path) -> None:
    name = "model__layers__1__self_attn__qkv_proj__"
    entries = {f"{name}weight": ("F8_E4M3", (3 * HIDDEN, HIDDEN))}
    assert judge(tmp_path / "3", packed.FP8, **entries, **{f"{name}weight_scale": ("F32", (3,))}) == []
    (finding,) = judge(tmp_path / "2", packed.FP8, **entries, **{f"{name}weight_scale": ("F32", (2,))})
    assert finding.code == "packing-shape"


@pytest.mark.parametrize("sides", [["a", "b"], [[1], [2]], [1, 2, 3], {}, "8x8", [0, 0], [True, None], None])
@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_sides_that_are_none_are_no_crash(tmp_path: Path, method: str, sides: object) -> None:
    settings = packed.describe(
        "float-quantized", {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": sides}
    )
    folder = packed.write_packed(tmp_path, packed.FP8_BLOCKS)
    edit_json(
        folder / "config.json",
        quantization_config=settings if method != "fp8" else packed.FP8 | {"weight_block_size": sides},
    )
    assert "packing-unserved" not in {finding.code for finding in check(folder).findings}


def test_a_packed_weight_is_held_against_the_configuration_too(tmp_path: Path) -> None:
    wider = {"qweight": ("I32", (2, HIDDEN)), "scales": ("F16", (2, HIDDEN)), "qzeros": ("I32", (2, 1))}
    entries = packed.list_packed(packed.GPTQ) | {
        f"model.layers.1.self_attn.q_proj.{part}": entry for part, entry in wider.items()
    }
    report = check(packed.write_packed(tmp_path, packed.GPTQ, entries))
    assert [finding.code for finding in report.findings] == ["tensor-shape"]
    assert "q_proj.weight is 8 by 16, config.json makes it 8 by 8" in report.reason()


@pytest.mark.parametrize("lost", ["q_proj", "down_proj"])
def test_a_lost_layer_is_missed(tmp_path: Path, lost: str) -> None:
    every = packed.list_packed(packed.INT4).items()
    entries = {name: one for name, one in every if not ("layers.1" in name and lost in name)}
    report = check(packed.write_packed(tmp_path, packed.INT4, entries))
    assert [finding.code for finding in report.findings] == ["tensors-missing"]


@pytest.mark.parametrize("settings", [packed.INT8, packed.FP8_ROWS])
def test_an_adapter_fits_a_packed_base(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = packed.write_packed(tmp_path / "base", settings)
    assert check(write_adapter(tmp_path / "fits"), base=base).is_servable
    wide = check(write_adapter(tmp_path / "wide", hidden=16), base=base)
    assert [finding.code for finding in wide.findings if finding.severity == "error"] == ["adapter-misfit"]


def test_on_a_cpu_no_adapter_is_mounted_on_whole_numbers(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    on_whole = check(adapter, base=packed.write_packed(tmp_path / "int8", packed.INT8), hardware=PLAIN)
    assert "packing-device" in {finding.code for finding in on_whole.findings}
    assert "mounts no adapter on it" in on_whole.reason()
    assert check(adapter, base=packed.write_packed(tmp_path / "fp8", packed.FP8_ROWS), hardware=PLAIN).is_servable


def test_an_adapter_over_nf4_is_refused_with_the_reason(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    edit_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"})
    report = check(write_adapter(tmp_path / "adapter"), base=base, hardware=GPU)
    assert report.findings[0].code == "base-unusable"
    assert "weights packed by bitsandbytes (NF4 or LLM.int8) are loaded by vLLM" in report.reason()
    assert "serve the plain checkpoint that it was made of" in report.reason()


@pytest.mark.parametrize("name", ["org/Model-7B-bnb-4bit", "org/Model-AWQ", "/models/model-nf4/"])
def test_an_adapter_trained_over_nf4_fits_the_plain_base(tmp_path: Path, name: str) -> None:
    base = write_checkpoint(tmp_path / "base")
    report = check(write_adapter(tmp_path / "adapter", base_model_name_or_path=name), base=base)
    assert report.is_servable
    assert [(finding.severity, finding.code) for finding in report.findings] == [("note", "adapter-packed-base")]
