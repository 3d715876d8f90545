from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.mounting import judge_mounting
from tests.support.nvila_models import write_nvila, write_nvila_adapter
from tests.support.safetensors_files import (
    HIDDEN,
    RANK,
    VOCABULARY,
    edit_json,
    list_shapes,
    write_adapter,
    write_checkpoint,
    write_tensors,
    write_tokenizer,
)

MODEL, LORA = "model.safetensors", "adapter_model.safetensors"
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base", is_visual=True)


def judge(adapter: Path, base: Path) -> list[str]:
    return [f"{finding.severity} {finding}" for finding in judge_mounting(read_contents(adapter), read_contents(base))]


def make_pair(module: str, inputs: int, outputs: int) -> Shapes:
    name = f"base_model.model.{module}"
    return {f"{name}.lora_A.weight": (RANK, inputs), f"{name}.lora_B.weight": (outputs, RANK)}


def test_fits(tmp_path: Path, base: Path) -> None:
    assert judge(write_adapter(tmp_path / "a"), base) == []


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "language_model."])
def test_fits_whatever_the_save_called_its_parts(tmp_path: Path, base: Path, prefix: str) -> None:
    renamed = {name.replace("model.", prefix, 1): shape for name, shape in list_shapes().items()}
    write_tensors(base / MODEL, renamed)
    assert judge(write_adapter(tmp_path / "a"), base) == []


def test_another_width(tmp_path: Path, base: Path) -> None:
    (finding,) = judge(write_adapter(tmp_path / "a", hidden=HIDDEN * 2), base)
    assert (
        "q_proj is for 16 inputs and 16 outputs, the base has 8 and 8: give the base that it was trained on" in finding
    )


def test_more_layers(tmp_path: Path, base: Path) -> None:
    edit_json(base / "config.json", text_config={"num_hidden_layers": 2})
    (finding,) = judge(write_adapter(tmp_path / "a", layers=4), base)
    assert "4 of 8 modules it changes are not in the base, first model.layers.2.self_attn.q_proj" in finding
    assert "the base has 2 layers" in finding


def test_another_architecture(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    write_tensors(adapter / LORA, make_pair("transformer.h.0.attn.c_attn", 8, 24))
    (finding,) = judge(adapter, base)
    assert finding.startswith("error adapter_model.safetensors: all modules it changes are not in the base")


def test_turned_matrices(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a", fan_in_fan_out=True)
    write_tensors(adapter / LORA, make_pair("model.layers.0.mlp.up_proj", 16, 8))
    assert judge(adapter, base) == []


def test_packed_base_has_no_shapes_to_compare(tmp_path: Path, base: Path) -> None:
    write_tensors(base / MODEL, dict.fromkeys(list_shapes(), (3, 3)), dtype="I8")
    assert judge(write_adapter(tmp_path / "a"), base) == []


def test_experts_are_left_to_the_engine(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    write_tensors(adapter / LORA, make_pair("model.layers.0.mlp.experts.3.up_proj", 8, 16))
    assert judge(adapter, base) == []


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("Qwen2_5_VLForConditionalGeneration", None),
        (
            "InternVLForConditionalGeneration",
            "error adapter_model.safetensors changes 1 modules of the vision side, which",
        ),
        (
            "LlavaForConditionalGeneration",
            "warning adapter_model.safetensors changes 1 modules of the vision side, and",
        ),
    ],
)
def test_vision_side(tmp_path: Path, base: Path, architecture: str, said: str | None) -> None:
    edit_json(base / "config.json", architectures=[architecture])
    write_tensors(base / MODEL, list_shapes() | {"visual.blocks.0.attn.proj.weight": (8, 8)})
    adapter = write_adapter(tmp_path / "a")
    write_tensors(adapter / LORA, make_pair("model.visual.blocks.0.attn.proj", 8, 8))
    findings = judge(adapter, base)
    assert [finding[: len(said or "")] for finding in findings] == ([said] if said else [])
    assert all("gateway merge" in finding for finding in findings)


@pytest.mark.parametrize("start", ["", "llm."])
def test_a_base_in_parts(tmp_path: Path, start: str) -> None:
    base = write_nvila(tmp_path / "nvila")
    adapter = write_nvila_adapter(tmp_path / "adapter", start)
    assert [finding for finding in judge(adapter, base) if not finding.startswith("note")] == []
    eyes = write_nvila_adapter(tmp_path / "eyes", "vision_tower.vision_tower.vision_model.encoder.", layers="layers")
    (said,) = [finding for finding in judge(eyes, base) if not finding.startswith("note")]
    assert "changes 4 modules of the vision side" in said
    assert said.endswith("train one on the language model alone")


def test_embeddings_of_another_size(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    copy = {"base_model.model.model.embed_tokens.base_layer.weight": (VOCABULARY + 2, HIDDEN)}
    write_tensors(adapter / LORA, copy | make_pair("model.layers.0.self_attn.q_proj", 8, 8))
    (finding,) = judge(adapter, base)
    assert "brings embeddings with 18 rows, the base has 16: merge it" in finding


def test_tokens_that_the_base_has_not(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    write_tokenizer(adapter)
    assert judge(adapter, base) == []
    write_tokenizer(adapter, added={"<end>": 15, "<new>": 16})
    (finding,) = judge(adapter, base)
    assert finding.startswith("warning tokenizer.json of the adapter has tokens that the base does not (<new>)")


def test_name_of_the_base_is_noted_only(tmp_path: Path, base: Path) -> None:
    (finding,) = judge(write_adapter(tmp_path / "a", base_model_name_or_path="maker/other"), base)
    assert finding == "note adapter_config.json names the base other, it is looked at over base"
