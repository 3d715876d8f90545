from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.processors import judge_processors
from tests.support.safetensors_files import edit_json, write_checkpoint, write_json

FILE = "preprocessor_config.json"


def judge(folder: Path) -> list[str]:
    return [f"{finding.severity} {finding.message}" for finding in judge_processors(read_contents(folder))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, is_visual=True)


def test_present(folder: Path) -> None:
    assert judge(folder) == []


def test_missing(folder: Path) -> None:
    (folder / FILE).unlink()
    assert judge(folder) == [f"error {FILE} is missing, and the model takes pictures"]


def test_newer_form(folder: Path) -> None:
    (folder / FILE).rename(folder / "processor_config.json")
    assert judge(folder) == [f"error {FILE} is missing, and processor_config.json has no image_processor in it"]
    write_json(folder / "processor_config.json", {"image_processor": {"patch_size": 14}, "video_processor": {}})
    assert judge(folder) == []


def test_pictures_alone_are_not_enough_where_videos_are_taken_too(folder: Path) -> None:
    (folder / FILE).unlink()
    write_json(folder / "processor_config.json", {"image_processor": {"patch_size": 14}})
    assert judge(folder) == [
        "error video_preprocessor_config.json is missing, and processor_config.json has no video_processor in it"
    ]
    write_json(folder / "video_preprocessor_config.json", {"patch_size": 14})
    assert judge(folder) == []
    (folder / "video_preprocessor_config.json").unlink()
    edit_json(folder / "config.json", architectures=["LlavaForConditionalGeneration"])
    assert judge(folder) == []


def test_broken_newer_form_is_said_once(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / "processor_config.json").write_text("{")
    assert judge(folder) == []
    assert [finding.code for finding in read_contents(folder).findings] == ["json-broken"]


def test_own_code_may_do_without(folder: Path) -> None:
    (folder / FILE).unlink()
    edit_json(folder / "config.json", auto_map={"AutoModel": "m.M"})
    assert judge(folder) == [f"warning {FILE} is missing, and the model takes pictures"]


def test_text_model(tmp_path: Path) -> None:
    assert judge(write_checkpoint(tmp_path)) == []
