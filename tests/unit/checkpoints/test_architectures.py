"""The shipped names against the engine that is installed. After an engine update: bring architectures.json up to date."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.checkpoints.architectures import find_unserved, load_registry

REGISTRY = load_registry()


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("LlamaForCausalLM", "generate"),
        ("Qwen2_5_VLForConditionalGeneration", "generate"),
        ("Qwen3VLForConditionalGeneration", "generate"),
        ("InternVLChatModel", "generate"),
        ("HeliumForCausalLM", "generate"),
        ("Qwen3ForSequenceClassification", "pool"),
        ("BertModel", "pool"),
        ("Eagle3LlamaForCausalLM", "draft"),
        ("LlavaLlamaModel", "generate"),
        ("Nothing", None),
        ("", None),
    ],
)
def test_task(name: str, task: str | None) -> None:
    assert REGISTRY.find_task(name) == task


def test_nearest_names() -> None:
    assert REGISTRY.find_nearest("Qwen2_5VLForConditionalGeneration")[0] == "Qwen2_5_VLForConditionalGeneration"
    assert REGISTRY.find_nearest("x" * 10_000) == []


@pytest.mark.parametrize(
    ("names", "model_type"), [(("NVILALiteModel",), None), (("VILAForCausalLM",), None), ((), "nvila")]
)
def test_families_that_are_not_served(names: tuple[str, ...], model_type: str | None) -> None:
    assert find_unserved(names, model_type) == "VILA and NVILA models in this form"
    assert find_unserved(("LlavaForConditionalGeneration",), "llava") is None
    assert find_unserved(("LlavaLlamaModel",), "llava_llama") is None


def test_model_types() -> None:
    assert REGISTRY.has_model_type("qwen2")
    assert REGISTRY.has_model_type("llava_llama")
    assert not REGISTRY.has_model_type("vila")
    assert not REGISTRY.has_model_type(None)


def test_ways_to_pack_and_to_reason_are_those_of_the_installed_engine() -> None:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("no engine is installed")
    root = Path(spec.origin).parent
    packings = (root / "model_executor" / "layers" / "quantization" / "__init__.py").read_text()
    parsers = (root / "reasoning" / "__init__.py").read_text()
    listed = packings.partition("QuantizationMethods = Literal[")[2].partition("]")[0]
    assert set(re.findall(r'"(.+?)"', listed)) == REGISTRY.packings
    assert set(re.findall(r'^    "(.+?)": \(', parsers, re.MULTILINE)) == REGISTRY.reasoning_parsers


def test_names_are_those_of_the_installed_engine() -> None:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("no engine is installed")
    source = (Path(spec.origin).parent / "model_executor" / "models" / "registry.py").read_text()
    named = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            named[node.targets[0].id] = set(keys)
    left_out = ("_VLLM_MODELS", "_PREVIOUSLY_SUPPORTED_MODELS", "_OOT_SUPPORTED_MODELS")
    registered = set().union(*(names for table, names in named.items() if table not in left_out))
    assert registered == REGISTRY.generating | REGISTRY.pooling | REGISTRY.drafts
    assert named["_PREVIOUSLY_SUPPORTED_MODELS"] - REGISTRY.by_transformers == REGISTRY.removed.keys()
