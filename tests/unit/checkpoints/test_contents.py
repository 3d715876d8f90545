from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from tests.support.safetensors_files import edit_json, write_adapter, write_checkpoint, write_json, write_tensors


def test_kinds(tmp_path: Path) -> None:
    assert read_contents(write_checkpoint(tmp_path / "a")).kind == "checkpoint"
    assert read_contents(write_adapter(tmp_path / "b")).kind == "adapter"
    write_checkpoint(tmp_path / "run" / "checkpoint-5")
    assert read_contents(tmp_path / "run").kind == "run"
    assert read_contents(tmp_path).kind == "unknown"


def test_finished_run_is_a_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    write_checkpoint(folder / "checkpoint-5")
    assert read_contents(folder).kind == "checkpoint"


def test_run_that_has_only_its_configuration_saved(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint-5")
    write_json(tmp_path / "config.json", {})
    assert read_contents(tmp_path).kind == "run"


def test_run_of_an_adapter_training_names_the_newest(tmp_path: Path) -> None:
    for step in (90, 100, 20):
        write_adapter(tmp_path / f"checkpoint-{step}")
    (finding,) = read_contents(tmp_path).findings
    assert finding.mend.endswith("@newest, which is checkpoint-100")


def test_adapter_settings_beside_whole_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    write_json(folder / "adapter_config.json", {})
    assert read_contents(folder).kind == "checkpoint"


def test_adapter_without_settings(tmp_path: Path) -> None:
    write_tensors(tmp_path / "adapter_model.safetensors", {"a.lora_A.weight": (1, 1)})
    assert read_contents(tmp_path).kind == "adapter"


@pytest.mark.parametrize("key", ["text_config", "llm_config", "language_config"])
def test_text_section(tmp_path: Path, key: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    edit_json(folder / "config.json", **{key: {"vocab_size": 77}})
    assert read_contents(folder).text.whole("vocab_size") == 77


@pytest.mark.parametrize(
    ("changes", "is_visual"),
    [
        ({}, False),
        ({"vision_config": {"depth": 1}}, True),
        ({"thinker_config": {"vision_config": {"depth": 1}}}, True),
        ({"mm_vision_tower": "clip"}, True),
        ({"vision_config": None}, False),
        ({"vision_config": 5}, False),
    ],
)
def test_visual(tmp_path: Path, changes: dict[str, object], is_visual: bool) -> None:
    folder = write_checkpoint(tmp_path / "a")
    edit_json(folder / "config.json", **changes)
    assert read_contents(folder).is_visual is is_visual


def test_mistral_form(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "config.json").rename(folder / "params.json")
    assert read_contents(folder).is_mistral
