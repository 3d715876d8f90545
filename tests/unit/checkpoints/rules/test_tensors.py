from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.findings import Finding
from gateway.checkpoints.rules.tensors import judge_tensors
from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint, write_tensors

Shapes = dict[str, tuple[int, ...]]
K_PROJ = "model.layers.1.self_attn.k_proj.weight"


def judge(folder: Path, shapes: Shapes, *, dtype: str = "F32", **changes: Any) -> list[Finding]:
    write_checkpoint(folder)
    edit_json(folder / "config.json", **changes)
    write_tensors(folder / "model.safetensors", shapes, dtype=dtype)
    return list(judge_tensors(read_contents(folder)))


def without(*names: str) -> Shapes:
    return {name: shape for name, shape in list_shapes().items() if name not in names}


@pytest.mark.parametrize(
    ("shapes", "changes"),
    [
        (list_shapes(), {}),
        ({name.replace("model.", "model.language_model."): shape for name, shape in list_shapes().items()}, {}),
        (list_shapes() | {"model.layers.0.self_attn.rotary_emb.inv_freq": (2,)}, {}),
        (list_shapes() | {"score.weight": (2, 8)}, {}),
        (list_shapes() | {"model.layers.2.enorm.weight": (8,)}, {"num_nextn_predict_layers": 1}),
        (without(K_PROJ), {"model_type": "helium"}),
        (without(K_PROJ), {"quantization_config": {"quant_method": "awq"}}),
        (without(K_PROJ), {"auto_map": {"AutoModel": "m.M"}}),
        (without("lm_head.weight"), {"architectures": ["LlamaForSequenceClassification"]}),
        (without("lm_head.weight", K_PROJ), {"architectures": ["LlamaForCausalLMEagle3"]}),
        (without(K_PROJ, "lm_head.weight") | {K_PROJ: (8, 8)}, {"tie_word_embeddings": True}),
    ],
)
def test_no_false_alarm(tmp_path: Path, shapes: Shapes, changes: dict[str, Any]) -> None:
    assert judge(tmp_path, shapes, **changes) == []


@pytest.mark.parametrize("name", ["params.json", "hf_quant_config.json"])
def test_other_forms_are_left_alone(tmp_path: Path, name: str) -> None:
    judge(tmp_path, without(K_PROJ))
    (tmp_path / name).write_text("{}")
    if name == "params.json":
        (tmp_path / "model.safetensors").rename(tmp_path / "consolidated.safetensors")
    assert list(judge_tensors(read_contents(tmp_path))) == []


def test_two_parts_with_layers_of_one_name_are_left_alone(tmp_path: Path) -> None:
    shapes = without(K_PROJ) | {"model.vision_model.layers.0.mlp.up_proj.weight": (3, 3)}
    assert judge(tmp_path, shapes) == []


@pytest.mark.parametrize(
    ("shapes", "changes", "code", "said"),
    [
        (
            without(K_PROJ),
            {},
            "tensors-missing",
            "1 tensors that config.json asks for are missing (layers.1.self_attn.k",
        ),
        (list_shapes() | {K_PROJ: (8, 4)}, {}, "tensor-shape", f"{K_PROJ} is 8 by 4, config.json makes it 8 by 8"),
        (list_shapes() | {"model.norm.weight": ()}, {}, "tensor-shape", "is a single number, config.json makes it 8"),
        (list_shapes(), {"num_key_value_heads": 1}, "tensor-shape", "is 8 by 8, config.json makes it 4 by 8"),
        (list_shapes(), {"attention_bias": True}, "tensors-missing", "8 tensors"),
        (list_shapes() | {"model.layers.0.mlp.w.weight": (1,)}, {}, "tensors-extra", "no place in the model"),
    ],
)
def test_what_does_not_fit_is_an_error(
    tmp_path: Path, shapes: Shapes, changes: dict[str, Any], code: str, said: str
) -> None:
    [finding] = judge(tmp_path, shapes, **changes)
    assert (finding.severity, finding.code) == ("error", code)
    assert said in finding.message


def test_a_bias_that_the_engine_would_leave_out_is_warned_of(tmp_path: Path) -> None:
    [finding] = judge(tmp_path, list_shapes() | {"model.layers.0.self_attn.q_proj.bias": (8,)})
    assert (finding.severity, finding.code) == ("warning", "tensors-extra")


def test_numbers_that_are_no_floating_point_are_an_error(tmp_path: Path) -> None:
    [finding] = judge(tmp_path, list_shapes(), dtype="I8")
    assert (finding.severity, finding.code) == ("error", "tensor-dtype")
    assert "stored as I8" in finding.message
