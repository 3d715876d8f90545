from pathlib import Path

from gateway.checkpoints.manifest import inspect
from tests.support.safetensors_files import (
    HIDDEN,
    LAYERS,
    RANK,
    VOCABULARY,
    edit_json,
    list_shapes,
    write_adapter,
    write_checkpoint,
    write_shards,
    write_tensors,
)


def test_facts_of_a_checkpoint(tmp_path: Path) -> None:
    manifest = inspect(write_shards(write_checkpoint(tmp_path / "a", is_visual=True)))
    parameters = sum(rows * (shape[1] if shape[1:] else 1) for shape in list_shapes().values() for rows in shape[:1])
    assert manifest.architectures == ("Qwen2_5_VLForConditionalGeneration",)
    assert (manifest.kind, manifest.task, manifest.model_type) == ("checkpoint", "generate", "qwen2_5_vl")
    assert (manifest.is_visual, manifest.is_video) == (True, True)
    assert (manifest.layers, manifest.hidden_size, manifest.vocabulary_size) == (LAYERS, HIDDEN, VOCABULARY)
    assert manifest.parameters == parameters
    assert manifest.size_bytes == manifest.bytes_by_dtype["F32"] == 4 * parameters
    assert manifest.weight_files == 2
    assert manifest.context_tokens == 128
    assert manifest.is_tied is False
    assert (manifest.tokenizer, manifest.tokenizer_size) == ("BPE", VOCABULARY)
    assert manifest.chat_template == "chat_template.jinja"
    assert manifest.generation_defaults == {"temperature": 0.7}
    assert manifest.adapter is None
    assert manifest.findings == ()


def test_facts_of_an_adapter(tmp_path: Path) -> None:
    manifest = inspect(write_adapter(tmp_path / "a", use_dora=True, modules_to_save=["lm_head"]))
    assert manifest.kind == "adapter"
    facts = manifest.adapter
    assert facts is not None
    assert (facts.type, facts.rank, facts.alpha, facts.is_dora) == ("LORA", RANK, 8, True)
    assert facts.target_modules == ("o_proj", "q_proj")
    assert facts.modules_to_save == ("lm_head",)
    assert facts.base_name == "/elsewhere/base"
    assert not facts.has_vision_parts


def test_adapter_on_the_vision_side(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    shapes = {f"base_model.model.model.visual.blocks.0.attn.qkv.lora_{half}.weight": (RANK, RANK) for half in "AB"}
    write_tensors(folder / "adapter_model.safetensors", shapes)
    facts = inspect(folder).adapter
    assert facts is not None
    assert facts.has_vision_parts


def test_packed_weights_have_no_parameter_count(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    edit_json(folder / "config.json", quantization_config={"quant_method": "awq"})
    manifest = inspect(folder)
    assert manifest.quantization == "awq"
    assert manifest.parameters is None


def test_tied_if_either_part_says_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", is_visual=True)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    assert inspect(folder).is_tied is True


def test_what_is_broken_is_told_and_not_raised(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "config.json").write_text("{")
    manifest = inspect(folder)
    assert manifest.architectures == ()
    assert [finding.code for finding in manifest.findings] == ["json-broken"]
    assert inspect(tmp_path / "gone").kind == "unknown"
