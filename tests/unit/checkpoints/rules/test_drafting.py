import json
from pathlib import Path

import pytest

from gateway.checkpoints import Drafting, Finding, Hardware, check
from tests.support.safetensors_files import (
    VOCABULARY,
    edit_json,
    list_shapes,
    write_checkpoint,
    write_tensors,
    write_tokenizer,
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_checkpoint(tmp_path / "draft"), write_checkpoint(tmp_path / "base")


def check_draft(draft: Path, base: Path, *, trusts_code: bool = False) -> Finding | None:
    """What is wrong with the draft, if anything is."""
    return find(base, Drafting(draft=draft), trusts_code=trusts_code)


def find(
    base: Path, drafting: Drafting, *, trusts_code: bool = False, hardware: Hardware | None = None
) -> Finding | None:
    """The one error of a sound checkpoint that is to guess ahead so."""
    errors = [
        one
        for one in check(base, drafting=drafting, trusts_code=trusts_code, hardware=hardware).findings
        if one.severity == "error"
    ]
    assert len(errors) <= 1
    return errors[0] if errors else None


def test_a_smaller_model_of_the_same_words_is_a_draft(pair: tuple[Path, Path]) -> None:
    write_tensors(pair[0] / "model.safetensors", list_shapes(layers=1))
    edit_json(pair[0] / "config.json", num_hidden_layers=1)
    assert check_draft(*pair) is None


def test_a_draft_head_needs_neither_words_nor_embeddings(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    (draft / "tokenizer.json").unlink()
    (draft / "tokenizer_config.json").unlink()
    edit_json(draft / "config.json", architectures=["Eagle3LlamaForCausalLM"], num_hidden_layers=1)
    write_tensors(draft / "model.safetensors", {"midlayer.mlp.up_proj.weight": (16, 8), "fc.weight": (8, 24)})
    assert check_draft(draft, base) is None


def test_another_vocabulary_is_refused(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    write_tensors(draft / "model.safetensors", list_shapes(rows=VOCABULARY + 8))
    edit_json(draft / "config.json", vocab_size=VOCABULARY + 8)
    fault = check_draft(draft, base)
    assert fault is not None
    assert fault.code == "draft-misfit"
    assert "the draft draft has 24 tokens in its config.json, the model 16" in str(fault)
    assert "ngram" in fault.mend


def test_the_same_numbers_for_other_words_are_refused(pair: tuple[Path, Path]) -> None:
    write_tokenizer(pair[0], trained=VOCABULARY - 2)
    fault = check_draft(*pair)
    assert fault is not None
    assert fault.code == "draft-misfit"
    assert "under the same numbers" in fault.message


def test_other_words_are_fine_where_the_engine_translates(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    write_tensors(draft / "model.safetensors", list_shapes(rows=VOCABULARY + 8))
    edit_json(draft / "config.json", vocab_size=VOCABULARY + 8)
    assert find(base, Drafting("draft_model", draft, may_have_other_words=True)) is None
    (draft / "model.safetensors").unlink()
    fault = find(base, Drafting("draft_model", draft, may_have_other_words=True))
    assert fault is not None
    assert fault.code == "draft-unusable"


def test_a_head_of_fewer_words_is_a_draft(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    edit_json(draft / "config.json", architectures=["LlamaForCausalLMEagle3"], draft_vocab_size=10)
    write_tensors(draft / "model.safetensors", list_shapes() | {"lm_head.weight": (10, 8)})
    assert check_draft(draft, base) is None


def test_the_same_words_written_otherwise_are_the_same(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    assert check_draft(*pair) is None


def test_code_of_a_draft_is_to_be_trusted(pair: tuple[Path, Path]) -> None:
    edit_json(pair[0] / "config.json", model_type="mine", auto_map={"AutoConfig": "m.M"})
    assert "trust-remote-code" in str(check_draft(*pair))
    assert check_draft(*pair, trusts_code=True) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_draft_is_refused(pair: tuple[Path, Path], name: str) -> None:
    (pair[0] / name).unlink()
    fault = check_draft(*pair)
    assert fault is not None
    assert fault.code == "draft-unusable"
    assert f"cannot be used: {name} is missing" in fault.message


def test_layers_of_a_head_are_its_own_affair(pair: tuple[Path, Path]) -> None:
    draft, base = pair
    edit_json(draft / "config.json", architectures=["MedusaModel"], model_type="medusa", num_hidden_layers=1)
    write_tensors(draft / "model.safetensors", {f"blocks.{n}.layers.{n}.weight": (8, 8) for n in range(3)})
    assert check_draft(draft, base) is None


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "mrope_section": [1, 2, 1]}}},
        {"xdrope_section": [1, 2, 1]},
    ],
)
def test_a_draft_with_positions_of_pictures_is_refused(pair: tuple[Path, Path], rope: dict[str, object]) -> None:
    draft, base = pair
    edit_json(draft / "config.json", **rope)
    fault = find(base, Drafting("draft_model", draft))
    assert fault is not None
    assert fault.code == "draft-rope"
    assert "M-RoPE" in str(fault)
    assert find(base, Drafting("eagle", draft)) is None, "only a whole model as draft is refused for it"
    assert find(draft, Drafting("draft_model", base)) is None, "what it helps along may see"


@pytest.mark.parametrize("name", ["mtp.layers.0.self_attn.q_proj.weight", "model.layers.2.self_attn.q_proj.weight"])
def test_mtp_needs_layers_of_its_own(tmp_path: Path, name: str) -> None:
    base = write_checkpoint(tmp_path / "base")
    fault = find(base, Drafting("mtp"))
    assert fault is not None
    assert fault.code == "method-layers"
    assert find(base, Drafting("mtp", write_checkpoint(tmp_path / "draft"))) is None
    write_tensors(base / "model.safetensors", list_shapes() | {name: (8, 8)})
    codes = {one.code for one in check(base, drafting=Drafting("mtp")).findings}
    assert "method-layers" not in codes


def test_suffix_needs_its_package(pair: tuple[Path, Path]) -> None:
    assert find(pair[1], Drafting("suffix")) is None
    fault = find(pair[1], Drafting("suffix", has_suffix_package=False))
    assert fault is not None
    assert (fault.code, fault.mend) == (
        "method-package",
        "pip install arctic-inference==0.1.1, or use the method ngram",
    )


CPU, GPU = Hardware("cpu"), Hardware("cuda")


@pytest.mark.parametrize(("hardware", "code"), [(CPU, "method-device"), (GPU, None), (None, None)])
def test_what_dies_on_a_cpu_is_refused_there(
    pair: tuple[Path, Path], hardware: Hardware | None, code: str | None
) -> None:
    fault = find(pair[1], Drafting("ngram_gpu"), hardware=hardware)
    assert (fault and fault.code) == code
    assert find(pair[1], Drafting("ngram"), hardware=hardware) is None


def test_mtp_of_linear_attention_on_a_cpu_does_without_cached_prompts(pair: tuple[Path, Path]) -> None:
    base = pair[1]
    edit_json(base / "config.json", layer_types=["linear_attention", "full_attention"])
    fault = find(base, Drafting("mtp", pair[0]), hardware=CPU)
    assert fault is not None
    assert (fault.code, fault.mend) == ("method-cache", "set engine_args {enable-prefix-caching: false}")
    assert find(base, Drafting("mtp", pair[0], is_cached=False), hardware=CPU) is None
    assert find(base, Drafting("mtp", pair[0]), hardware=GPU) is None


def test_a_folder_that_is_not_there_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    fault = check_draft(tmp_path / "gone", pair[1])
    assert "does not exist" in str(fault)
