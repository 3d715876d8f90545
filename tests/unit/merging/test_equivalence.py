"""Real models of a few kilobytes, merged by us and mounted by PEFT."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.engines.launcher import adapt_torch
from gateway.merging import MergeRefused, equivalence
from gateway.merging.arithmetic import LowRank
from gateway.merging.equivalence import CheckUnavailable, Equivalence, verify
from gateway.merging.plan import MergePlan, plan_merge
from gateway.merging.writer import staging, write_merged
from tests.support.tiny_adapters import write_random_adapter

DEMO = Path(__file__).parents[3] / "gateway" / "demo"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random float32 numbers with the demo's tokenizer."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    adapt_torch()
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, initializer_range=0.3, bos_token_id=0, eos_token_id=1,
        attention_bias=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(DEMO / "shapes-v2").save_pretrained(folder)
    return folder


def merge(base: Path, adapter: Path, out: Path) -> Equivalence:
    plan = plan_merge(base, adapter)
    with staging(out) as folder:
        write_merged(plan, folder, lambda *_: None)
        return verify(plan, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "alpha_pattern": {"q_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {"use_dora": True},
        {"target_modules": ["embed_tokens", "o_proj"]},
        {"modules_to_save": ["lm_head", "norm"]},
        {"lora_bias": True, "target_modules": ["k_proj"]},
        {"bias": "lora_only", "target_modules": ["k_proj"]},
    ],
    ids=["lora", "patterns", "dora", "embeddings", "whole layers", "lora bias", "trained biases"],
)
def test_merged_answers_as_mounted(tmp_path: Path, base: Path, settings: dict[str, Any]) -> None:
    adapter = write_random_adapter(base, tmp_path / "adapter", **settings)
    found = merge(base, adapter, tmp_path / "out")
    assert found.difference < 1e-4
    assert found.rounded_texts == 0, "float32 is stored as it is"
    assert found.prompts == len(equivalence.PROMPTS)


def test_the_demo_s_adapter_on_pictures(tmp_path: Path) -> None:
    found = merge(DEMO / "shapes-v2", DEMO / "shapes-v2-mirror", tmp_path / "out")
    assert found.prompts == len(equivalence.PROMPTS) + 1, "one with a picture"
    assert found.difference < 1e-4 < found.rounded_difference < 0.1, "stored in bfloat16"


def test_a_merge_that_is_not_right_is_refused_and_leaves_nothing(tmp_path: Path, base: Path) -> None:
    plan = plan_merge(base, write_random_adapter(base, tmp_path / "adapter"))
    name = "model.layers.0.self_attn.q_proj.weight"
    change = plan.changes[name]
    assert isinstance(change, LowRank)
    wrong = LowRank(change.a, change.b, change.scale * 1.1)
    bent = MergePlan(plan.base, plan.adapter, plan.base_report, plan.adapter_report, {**plan.changes, name: wrong})
    with pytest.raises(MergeRefused, match="do not agree"), staging(tmp_path / "out") as folder:
        write_merged(bent, folder, lambda *_: None)
        verify(bent, folder)
    assert not (tmp_path / "out").exists()


def test_weights_that_were_written_wrong_are_seen(tmp_path: Path, base: Path) -> None:
    plan = plan_merge(base, write_random_adapter(base, tmp_path / "adapter"))
    out = tmp_path / "out"
    out.mkdir()
    write_merged(plan, out, lambda *_: None)
    path = out / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4 : len(raw) // 2] = bytes(len(raw) // 2 - len(raw) // 4)
    path.write_bytes(raw)
    with pytest.raises(MergeRefused, match="do not agree"):
        verify(plan, out)


def test_what_is_no_number_does_not_agree() -> None:
    import torch

    one, other = (equivalence._Answers([torch.tensor([1.0, value])], [[1]]) for value in (2.0, float("nan")))
    assert equivalence._measure(one, one) == 0
    assert equivalence._measure(one, other) == equivalence._measure(other, one) == float("inf")


def test_without_the_packages_it_says_which(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_merge(base, write_random_adapter(base, tmp_path / "adapter"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CheckUnavailable, match=r"needs peft.*nim-gateway\[merge\].*--no-verify"):
        verify(plan, tmp_path)


def test_a_model_that_transformers_cannot_run_is_told(tmp_path: Path, base: Path) -> None:
    plan = plan_merge(base, write_random_adapter(base, tmp_path / "adapter"))
    with pytest.raises(CheckUnavailable, match="the check could not be run"):
        verify(plan, tmp_path / "gone")
