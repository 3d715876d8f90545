from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.adapter import judge_adapter
from tests.support.safetensors_files import RANK, write_adapter, write_tensors

P = "base_model.model.model.layers.0.self_attn.q_proj"
PAIR: dict[str, tuple[int, ...]] = {f"{P}.lora_A.weight": (RANK, 8), f"{P}.lora_B.weight": (8, RANK)}


def judge(folder: Path) -> list[str]:
    return [f"{finding.severity} {finding}" for finding in judge_adapter(read_contents(folder))]


@pytest.mark.parametrize(
    "config",
    [
        {}, {"target_modules": ".*q_proj"}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}, {"use_dora": False},
        {"r": 99, "rank_pattern": {"q_proj": RANK}}, {"modules_to_save": ["score"]}, {"modules_to_save": None},
    ],
)  # fmt: skip
def test_sound(tmp_path: Path, config: dict[str, object]) -> None:
    assert judge(write_adapter(tmp_path, **config)) == []


@pytest.mark.parametrize(
    ("config", "said", "mend"),
    [
        ({"peft_type": "IA3"}, "peft_type is IA3", "merge_and_unload"),
        ({"peft_type": None}, "peft_type is missing", "merge_and_unload"),
        ({"use_dora": True}, "DoRA", "gateway merge"),
        ({"lora_bias": True}, "lora_bias", "gateway merge"),
        ({"bias": "all"}, "biases", "gateway merge"),
        ({"layer_replication": [[0, 1]]}, "repeated layers", "merge_and_unload"),
        ({"trainable_token_indices": [3]}, "single trained tokens", "merge_and_unload"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base's own weights", "path_initial_model"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "lm_head, embed_tokens", "gateway merge"),
        ({"r": 1024}, "rank 1024 is more than", "gateway merge"),
        ({"r": 0}, "r, the rank, is no positive number", "copy adapter_config.json"),
        ({"r": "8"}, "r, the rank, is no positive number", "copy adapter_config.json"),
        ({"lora_alpha": None}, "lora_alpha is no number", "copy adapter_config.json"),
        ({"target_modules": None}, "target_modules is missing", "copy adapter_config.json"),
        ({"r": RANK * 2}, f"has rank {RANK}, adapter_config.json says r = {RANK * 2}", "same save"),
    ],
)
def test_settings_that_cannot_be_mounted(tmp_path: Path, config: dict[str, object], said: str, mend: str) -> None:
    (finding,) = judge(write_adapter(tmp_path, **config))
    assert finding.startswith("error adapter_")
    assert said in finding
    assert mend in finding


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (PAIR | {f"{P}.lora_magnitude_vector": (8,)}, "error adapter_model.safetensors holds tensors that are no LoRA"),
        ({f"{P}.lora_A.weight": (RANK, 8)}, "error adapter_model.safetensors: only one of the two matrices of"),
        ({"base_model.model.score.weight": (2, 8)}, "error adapter_model.safetensors holds no LoRA matrices"),
        (
            PAIR | {"base_model.model.lm_head.base_layer.weight": (9, 8)},
            "note adapter_model.safetensors holds a copy of",
        ),
    ],
)
def test_tensors(tmp_path: Path, shapes: dict[str, tuple[int, ...]], said: str) -> None:
    write_tensors(write_adapter(tmp_path) / "adapter_model.safetensors", shapes)
    (finding,) = judge(tmp_path)
    assert finding.startswith(said)


def test_layers_trained_whole_beside_it(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    (folder / "non_lora_trainables.bin").write_bytes(b"x" * 500)  # a pickle of nothing
    assert judge(folder) == []
    (folder / "non_lora_trainables.bin").write_bytes(b"x" * 5000)
    assert [finding.partition(":")[0] for finding in judge(folder)] == [
        "error non_lora_trainables.bin holds layers that were trained whole, which are not mounted at run time"
    ]


def test_settings_missing(tmp_path: Path) -> None:
    (write_adapter(tmp_path) / "adapter_config.json").unlink()
    assert judge(tmp_path) == [
        "error adapter_config.json is missing: save the adapter again with PEFT's save_pretrained"
    ]
