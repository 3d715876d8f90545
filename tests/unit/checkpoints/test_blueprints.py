import json
from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.blueprints import Blueprint, draw_blueprint
from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.matrices import find_core
from tests.support.nvila_models import write_nvila

ROOT = Path(__file__).parents[3]
SIZES = {
    "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 2, "intermediate_size": 12, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def draw(model_type: str, *, is_tied: bool | None = False, **more: Any) -> Blueprint:
    config = Fields({"model_type": model_type, **SIZES, **more})
    return draw_blueprint(config, config, is_tied=is_tied)


def attention(blueprint: Blueprint) -> dict[str, tuple[int, ...]]:
    start = "layers.1.self_attn."
    return {core.removeprefix(start): shape for core, shape in blueprint.required.items() if core.startswith(start)}


def test_a_llama_has_no_biases_unless_it_says_so() -> None:
    assert attention(draw("llama")) == {
        "q_proj.weight": (8, 8), "k_proj.weight": (4, 8), "v_proj.weight": (4, 8), "o_proj.weight": (8, 8)
    }  # fmt: skip
    with_biases = draw("llama", attention_bias=True, mlp_bias=True)
    assert {"q_proj.bias", "o_proj.bias"} <= attention(with_biases).keys()
    assert with_biases.required["layers.0.mlp.down_proj.bias"] == (8,)


def test_a_qwen2_has_biases_on_its_way_in_only() -> None:
    assert {name for name in attention(draw("qwen2")) if name.endswith("bias")} == {
        "q_proj.bias", "k_proj.bias", "v_proj.bias"
    }  # fmt: skip


def test_a_qwen3_has_norms_and_heads_of_their_own_size() -> None:
    found = attention(draw("qwen3", head_dim=6))
    assert found["q_proj.weight"] == (24, 8)
    assert found["k_proj.weight"] == (12, 8)
    assert found["q_norm.weight"] == found["k_norm.weight"] == (6,)
    assert not any(name.endswith("bias") for name in found)
    assert attention(draw("qwen3"))["q_norm.weight"] == (128,)


def test_a_head_is_asked_for_only_where_it_cannot_be_tied() -> None:
    assert draw("llama").required["lm_head.weight"] == (16, 8)
    for is_tied in (True, None):
        blueprint = draw("llama", is_tied=is_tied)
        assert "lm_head.weight" not in blueprint.required
        assert blueprint.optional == {"lm_head.weight": (16, 8)}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("gemma3", {}), ("", {}), ("llama", {"hidden_size": None}), ("llama", {"num_hidden_layers": 10**9}),
        ("llama", {"intermediate_size": "many"}), ("mistral", {"num_key_value_heads": None}),
    ],
)  # fmt: skip
def test_of_another_family_or_without_sizes_nothing_is_asked(model_type: str, changes: dict[str, Any]) -> None:
    assert draw(model_type, **changes) == Blueprint()
    assert not Blueprint().covers("layers.0.anything")


@pytest.mark.parametrize("name", ["shapes-v1", "shapes-v2"])
def test_the_demo_s_checkpoints_are_as_drawn(name: str) -> None:
    contents = read_contents(ROOT / "gateway" / "demo" / name)
    blueprint = draw_blueprint(contents.config, contents.text, is_tied=True)
    found = {find_core(tensor.name): tensor.shape for tensor in contents.weights.tensors.values()}
    assert found == dict(blueprint.required)
    assert any(core.startswith("visual.") for core in blueprint.required)


def test_a_list_without_end_makes_no_more_parts_than_layers() -> None:
    vision = {"hidden_size": 4, "depth": 2, "intermediate_size": 8, "patch_size": 2, "out_hidden_size": 8,
              "num_position_embeddings": 4, "deepstack_visual_indexes": [0] * 300_000}  # fmt: skip
    config = Fields(
        {"model_type": "qwen3_vl", "text_config": SIZES | {"model_type": "qwen3_vl_text"}, "vision_config": vision}
    )
    assert len(draw_blueprint(config, config.section("text_config"), is_tied=None).required) < 100


def test_every_tensor_of_a_part_that_is_drawn_is_covered() -> None:
    config = json.loads((ROOT / "gateway" / "demo" / "shapes-v2" / "config.json").read_text())
    with_tower = draw_blueprint(Fields(config), Fields(config["text_config"]), is_tied=True)
    assert with_tower.covers("visual.blocks.0.attn.other")
    assert with_tower.covers("layers.0.other")
    assert not with_tower.covers("score.weight")
    del config["vision_config"]["out_hidden_size"]
    without = draw_blueprint(Fields(config), Fields(config["text_config"]), is_tied=True)
    assert not without.covers("visual.blocks.0.attn.other")


@pytest.mark.parametrize("fold", [2, 3])
def test_a_checkpoint_in_parts_is_as_drawn(tmp_path: Path, fold: int) -> None:
    contents = read_contents(write_nvila(tmp_path / "model", fold=fold))
    blueprint = draw_blueprint(contents.config, contents.text, is_tied=False)
    found = {find_core(tensor.name): tensor.shape for tensor in contents.weights.tensors.values()}
    assert found == {**blueprint.required, **blueprint.optional}
    assert all(".head." in core or ".post_layernorm." in core for core in blueprint.optional)
    assert blueprint.covers("vision_tower.other")
    assert blueprint.covers("mm_projector.layers.9.weight")
