from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.memory import USABLE_SHARE, MemoryPlan, plan_memory
from tests.support.packed_files import FP8, GPTQ, INT8, write_packed
from tests.support.safetensors_files import edit_json, write_adapter, write_checkpoint

DEMO = Path(__file__).parents[3] / "gateway" / "demo" / "shapes-v2"


def plan(folder: Path, **changes: Any) -> MemoryPlan:
    write_checkpoint(folder)
    edit_json(folder / "config.json", **changes)
    made = plan_memory(read_contents(folder))
    assert made is not None
    return made


def test_weights_and_cache_follow_from_the_configuration(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.weights_bytes == read_contents(tmp_path).weights.size_bytes
    assert made.cache_bytes_per_token == 2 * 2 * 2 * 4 * 4, "two layers, keys and values, two heads of four float32"
    assert (made.context_tokens, made.picture) == (128, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dtype": "bfloat16"}, 64),
        ({"dtype": None, "torch_dtype": "torch.float16"}, 64),
        ({"dtype": None}, 64),
        ({"num_key_value_heads": 1}, 64),
        ({"head_dim": 16}, 512),
        ({"layer_types": ["linear_attention", "full_attention"]}, 64),
        ({"layer_types": ["linear_attention", "linear_attention"]}, 0),
        ({"layer_types": ["full_attention"]}, 128),
        ({"kv_lora_rank": 10, "qk_rope_head_dim": 6, "dtype": "bfloat16"}, 64),
        ({"num_attention_heads": None}, None),
        ({"num_hidden_layers": None}, None),
    ],
)
def test_the_cache_of_one_token(tmp_path: Path, changes: dict[str, Any], expected: int | None) -> None:
    assert plan(tmp_path, **changes).cache_bytes_per_token == expected


def test_of_a_real_model_it_is_what_its_engine_says() -> None:
    made = plan_memory(read_contents(DEMO))
    assert made is not None
    assert made.cache_bytes_per_token == 4 * 2 * 4 * 32 * 2
    assert made.picture is not None
    assert (made.picture.least_tokens, made.picture.most_tokens) == (10, 16)


def test_a_context_fits_where_weights_and_cache_do() -> None:
    made = MemoryPlan(weights_bytes=900, cache_bytes_per_token=10, context_tokens=50, picture=None)
    assert made.fit_context(10_000) == 50, "no longer than training allows"
    assert made.fit_context(1_200) == (int(1_200 * USABLE_SHARE) - 900) // 10
    assert made.fit_context(1_000) == made.fit_context(5) == 0
    assert MemoryPlan(900, None, 50, None).fit_context(10_000) is None


def test_without_a_cache_the_context_fits_where_the_weights_do(tmp_path: Path) -> None:
    for changes in ({"layer_types": ["linear_attention"] * 2}, {"kv_lora_rank": -64, "qk_rope_head_dim": 64}):
        made = plan(tmp_path, **changes)
        assert made.cache_bytes_per_token == 0
        assert (made.fit_context(10**9), made.fit_context(10)) == (128, 0)


def test_there_is_no_plan_for_anything_but_a_whole_checkpoint(tmp_path: Path) -> None:
    assert plan_memory(read_contents(write_adapter(tmp_path / "adapter"))) is None
    assert plan_memory(read_contents(tmp_path / "gone")) is None


@pytest.mark.parametrize("settings", [GPTQ, INT8, FP8])
def test_packed_weights_count_as_they_are_stored(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_packed(tmp_path, settings)
    made = plan_memory(read_contents(folder))
    assert made is not None
    header = (folder / "model.safetensors").stat().st_size - made.weights_bytes
    assert 0 < header < 12_000
    assert made.cache_bytes_per_token == 2 * 2 * 8 * 4, "the cache is not packed"
