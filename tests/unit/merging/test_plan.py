from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.merging import MergeRefused
from gateway.merging.arithmetic import Addition, LowRank, Replacement
from gateway.merging.plan import plan_merge
from tests.support.nvila_models import write_nvila, write_nvila_adapter
from tests.support.safetensors_files import (
    HIDDEN,
    LAYERS,
    RANK,
    VOCABULARY,
    edit_json,
    list_shapes,
    write_adapter,
    write_checkpoint,
    write_tensors,
)  # fmt: skip

Shapes = dict[str, tuple[int, ...]]
PREFIX = "base_model.model."
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def adapter(folder: Path, shapes: Shapes | None = None, dtype: str = "F32", **config: Any) -> Path:
    write_adapter(folder, **config)
    if shapes is not None:
        named = {f"{PREFIX}{name}": shape for name, shape in shapes.items()}
        write_tensors(folder / "adapter_model.safetensors", named, dtype=dtype)
    return folder


def pair(module: str, outputs: int = HIDDEN, inputs: int = HIDDEN, rank: int = RANK) -> Shapes:
    return {f"{module}.lora_A.weight": (rank, inputs), f"{module}.lora_B.weight": (outputs, rank)}


def give_biases(base: Path) -> None:
    biases = {f"model.layers.{n}.self_attn.{p}_proj.bias": (HIDDEN,) for n in range(LAYERS) for p in "qkvo"}
    edit_json(base / "config.json", attention_bias=True)
    write_tensors(base / "model.safetensors", list_shapes() | biases)


def test_each_pair_of_matrices_changes_one_tensor(tmp_path: Path, base: Path) -> None:
    plan = plan_merge(base, adapter(tmp_path / "a"))
    assert set(plan.changes) == {
        f"model.layers.{layer}.self_attn.{name}.weight" for layer in range(LAYERS) for name in ("q_proj", "o_proj")
    }
    change = plan.changes[f"{Q_PROJ}.weight"]
    assert isinstance(change, LowRank)
    assert (change.scale, change.magnitude, change.is_transposed) == (8 / RANK, None, False)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 8 / RANK**0.5),
        ({"alpha_pattern": {"q_proj": 2}}, 2 / RANK),
        ({"alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 2, "q_proj": 5}}, 2 / RANK),
        ({"alpha_pattern": {"proj": 2}}, 8 / RANK),
        ({"alpha_pattern": {r"layers\.[0-9]+\.self_attn\.q_proj": 2}}, 2 / RANK),
        ({"r": 99, "rank_pattern": {"q_proj": RANK, "o_proj": RANK}}, 8 / RANK),
    ],
)
def test_scales_follow_the_settings(tmp_path: Path, base: Path, config: dict[str, Any], scale: float) -> None:
    change = plan_merge(base, adapter(tmp_path / "a", **config)).changes[f"{Q_PROJ}.weight"]
    assert isinstance(change, LowRank)
    assert change.scale == pytest.approx(scale)


def test_names_of_another_save_find_their_tensors(tmp_path: Path, base: Path) -> None:
    renamed = {name.replace("model.", "model.language_model.", 1): shape for name, shape in pair(Q_PROJ).items()}
    assert set(plan_merge(base, adapter(tmp_path / "a", renamed)).changes) == {f"{Q_PROJ}.weight"}


@pytest.mark.parametrize("name", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_dora_brings_magnitudes(tmp_path: Path, base: Path, name: str) -> None:
    shapes = pair(Q_PROJ) | {f"{Q_PROJ}.{name}": (HIDDEN,)}
    change = plan_merge(base, adapter(tmp_path / "a", shapes, use_dora=True)).changes[f"{Q_PROJ}.weight"]
    assert isinstance(change, LowRank)
    assert change.magnitude is not None
    assert change.magnitude.tolist() == [0.5] * HIDDEN


def test_embeddings_are_stored_the_other_way_round(tmp_path: Path, base: Path) -> None:
    module = "model.embed_tokens"
    shapes: Shapes = {
        f"{module}.lora_embedding_A": (RANK, VOCABULARY), f"{module}.lora_embedding_B": (HIDDEN, RANK)
    }  # fmt: skip
    change = plan_merge(base, adapter(tmp_path / "a", shapes)).changes[f"{module}.weight"]
    assert isinstance(change, LowRank)
    assert change.is_transposed


def test_layers_that_were_trained_whole_and_biases_are_worked_in(tmp_path: Path, base: Path) -> None:
    give_biases(base)
    shapes = pair(Q_PROJ) | {
        "lm_head.weight": (VOCABULARY, HIDDEN),
        f"{Q_PROJ}.lora_B.bias": (HIDDEN,),
        "model.layers.1.self_attn.v_proj.bias": (HIDDEN,),
        "model.layers.1.self_attn.k_proj.base_layer.bias": (HIDDEN,),
    }
    config = {"modules_to_save": ["lm_head"], "lora_bias": True, "bias": "lora_only"}
    changes = plan_merge(base, adapter(tmp_path / "a", shapes, **config)).changes
    assert {name: type(change) for name, change in changes.items()} == {
        f"{Q_PROJ}.weight": LowRank, f"{Q_PROJ}.bias": Addition, "lm_head.weight": Replacement,
        "model.layers.1.self_attn.v_proj.bias": Replacement, "model.layers.1.self_attn.k_proj.bias": Replacement,
    }  # fmt: skip


def test_copies_of_the_base_s_embeddings_change_nothing(tmp_path: Path, base: Path) -> None:
    shapes = pair(Q_PROJ) | {"model.embed_tokens.base_layer.weight": (VOCABULARY, HIDDEN)}
    assert set(plan_merge(base, adapter(tmp_path / "a", shapes)).changes) == {f"{Q_PROJ}.weight"}


@pytest.mark.parametrize(
    ("shapes", "config", "said"),
    [
        (None, {"peft_type": "IA3"}, "peft_type is not LORA"),
        (None, {"alora_invocation_tokens": [1]}, "activated LoRA"),
        (None, {"layer_replication": [[0, 1]]}, "repeated layers"),
        (None, {"target_parameters": ["experts.w"]}, "experts"),
        (None, {"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
        (None, {"use_dora": True}, "of two different saves"),
        (None, {"r": 2}, "has rank 4, adapter_config.json says"),
        (None, {"rank_pattern": {"(": 4}}, "the pattern ( is none"),
        (None, {"alpha_pattern": {"([a-z0-9_.]+)+!": 4}}, "is too involved"),
        (None, {"alpha_pattern": {".*.*.*.*.*.*x$": 4}}, "is too involved"),
        (None, {"init_lora_weights": "lora_ga"}, "has changed the base's own weights too"),
        (None, {"init_lora_weights": "something_new"}, "has changed the base's own weights too"),
        (pair("model.layers.9.self_attn.q_proj"), {}, "not in the base"),
        (pair(Q_PROJ, outputs=4), {}, "give the base that it was trained on"),
        (pair(Q_PROJ) | {f"{Q_PROJ}.lora_B.bias": (HIDDEN,)}, {"lora_bias": True}, "where the base has none"),
        (
            pair(Q_PROJ) | {"lm_head.weight": (VOCABULARY + 1, HIDDEN)},
            {"modules_to_save": ["lm_head"]},
            "another shape",
        ),
        (pair(Q_PROJ) | {"score.weight": (1, HIDDEN)}, {"modules_to_save": ["score"]}, "which the base has not"),
        ({f"{Q_PROJ}.lora_A.weight": (RANK, HIDDEN)}, {}, "only one of the two matrices"),
        ({f"{Q_PROJ}.lora_A.weight": (RANK, HIDDEN)}, {"use_dora": True}, "one of the two matrices"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, base: Path, shapes: Shapes | None, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(MergeRefused) as caught:
        plan_merge(base, adapter(tmp_path / "a", shapes, **config))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda base: (base / "config.json").unlink(), "the base: config.json is missing"),
        (lambda base: edit_json(base / "config.json", quantization_config={"quant_method": "awq"}), "packed (awq)"),
        (lambda base: write_tensors(base / "model.safetensors", list_shapes(), dtype="I8"), "stored as I8"),
    ],
)
def test_a_base_that_cannot_be_merged_into_is_refused(
    tmp_path: Path, base: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(base)
    with pytest.raises(MergeRefused) as caught:
        plan_merge(base, adapter(tmp_path / "a"))
    assert said in str(caught.value)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, HIDDEN)])
def test_a_bias_of_another_shape_is_refused(tmp_path: Path, base: Path, shape: tuple[int, ...]) -> None:
    give_biases(base)
    shapes = pair(Q_PROJ) | {f"{Q_PROJ}.lora_B.bias": shape}
    with pytest.raises(MergeRefused, match="has another shape than the base"):
        plan_merge(base, adapter(tmp_path / "a", shapes, lora_bias=True))


def test_one_tensor_is_not_changed_in_two_ways(tmp_path: Path, base: Path) -> None:
    give_biases(base)
    shapes = pair(Q_PROJ) | {f"{Q_PROJ}.lora_B.bias": (HIDDEN,), f"{Q_PROJ}.base_layer.bias": (HIDDEN,)}
    with pytest.raises(MergeRefused, match="in two ways at once"):
        plan_merge(base, adapter(tmp_path / "a", shapes, lora_bias=True, bias="all"))


def test_a_head_that_the_engine_leaves_aside_is_not_merged_into(tmp_path: Path, base: Path) -> None:
    edit_json(base / "config.json", tie_word_embeddings=True)
    shapes = pair("lm_head", outputs=VOCABULARY)
    with pytest.raises(MergeRefused, match="input and output in one"):
        plan_merge(base, adapter(tmp_path / "a", shapes))


def test_of_a_run_the_folders_are_chosen_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "checkpoint-5")
    plan = plan_merge(tmp_path / "run@newest", adapter(tmp_path / "a"))
    assert plan.base.path == tmp_path / "run" / "checkpoint-5"
    with pytest.raises(MergeRefused, match="does not exist"):
        plan_merge(tmp_path / "gone@newest", adapter(tmp_path / "a"))


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_input_and_output_in_one_tensor_are_not_changed_for_one_of_them(
    tmp_path: Path, base: Path, module: str
) -> None:
    edit_json(base / "config.json", tie_word_embeddings=True)
    write_tensors(
        base / "model.safetensors", {name: shape for name, shape in list_shapes().items() if name != "lm_head.weight"}
    )
    shapes = pair(Q_PROJ) | {f"{module}.weight": (VOCABULARY, HIDDEN)}
    with pytest.raises(MergeRefused, match=r"input and output in one|which the base has not"):
        plan_merge(base, adapter(tmp_path / "a", shapes, modules_to_save=[module]))


def test_an_adapter_in_place_of_a_base_is_refused(tmp_path: Path, base: Path) -> None:
    one = adapter(tmp_path / "a")
    with pytest.raises(MergeRefused, match="is a LoRA adapter"):
        plan_merge(one, one)
    with pytest.raises(MergeRefused, match="full checkpoint, not an adapter"):
        plan_merge(base, base)


def test_a_base_in_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MergeRefused, match="lies in parts"):
        plan_merge(write_nvila(tmp_path / "base"), write_nvila_adapter(tmp_path / "adapter", "llm."))
