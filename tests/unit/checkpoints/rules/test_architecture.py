from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.architecture import judge_architecture
from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint, write_tensors


def judge(folder: Path, **changes: object) -> list[tuple[str, str]]:
    edit_json(write_checkpoint(folder) / "config.json", **changes)
    return [(finding.severity, finding.code) for finding in judge_architecture(read_contents(folder))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architectures": ["Qwen3ForSequenceClassification"]},
        {"architectures": ["Unknown", "LlamaForCausalLM"]},
        {"dtype": "torch.bfloat16", "torch_dtype": "half"},
        {"dtype": 5},
        {"auto_map": {"AutoModel": "m.M"}},
        {"max_position_embeddings": None},
    ],
)
def test_nothing_to_say(tmp_path: Path, changes: dict[str, object]) -> None:
    assert judge(tmp_path, **changes) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architectures": []}, ("warning", "architecture-missing")),
        ({"architectures": [], "model_type": None}, ("error", "architecture-missing")),
        ({"architectures": {"a": 1}}, ("error", "architecture-missing")),
        ({"architectures": ["Mine"]}, ("error", "architecture-unknown")),
        (
            {"architectures": ["NVILAForConditionalGeneration"], "auto_map": {"A": "b"}},
            ("error", "architecture-unknown"),
        ),
        ({"architectures": ["Mine"], "auto_map": {"A": "b"}}, ("error", "own-code")),
        ({"model_type": 7}, ("error", "model-type-missing")),
        ({"vocab_size": True}, ("error", "config-value")),
        ({"text_config": {"hidden_size": -1}}, ("error", "config-value")),
    ],
)
def test_what_is_said(tmp_path: Path, changes: dict[str, object], expected: tuple[str, str]) -> None:
    assert expected in judge(tmp_path, **changes)


def test_weights_in_double_precision_are_noted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    write_tensors(folder / "model.safetensors", {"a": (1,)} | list_shapes(), dtype="F32")
    write_tensors(folder / "more.safetensors", {"b": (1,)}, dtype="F64", fill=b"\0" * 8)
    assert [finding.code for finding in judge_architecture(read_contents(folder))] == ["dtype-wide"]
