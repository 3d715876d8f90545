import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.findings import Finding
from gateway.checkpoints.rules.vila import judge_vila
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import edit_json, write_checkpoint


def judge(folder: Path) -> list[Finding]:
    return list(judge_vila(read_contents(folder)))


def test_nothing_to_say(tmp_path: Path) -> None:
    assert judge(write_checkpoint(tmp_path / "llama")) == []
    assert judge(write_nvila(tmp_path / "lite")) == []
    assert judge(write_nvila(tmp_path / "small", fold=2, image_aspect_ratio="resize")) == []
    encoder = {"_target_": "llava.model.encoders.BasicImageEncoder", "end_tokens": None}
    assert judge(write_nvila(tmp_path / "other", image_encoder=encoder)) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dynamic_s2": True, "image_aspect_ratio": "dynamic_s2"}, "dynamic S2"),
        ({"s2": True}, "(S2)"),
        ({"ps3": True}, "PS3"),
        ({"image_aspect_ratio": "dynamic_s2"}, "dynamic_s2 of cutting pictures"),
        ({"image_aspect_ratio": None}, "without a name of cutting pictures"),
        ({"mm_vision_select_feature": "patch"}, "mm_vision_select_feature patch"),
        ({"fps": 1.0}, "fps"),
        ({"video_encoder": '{"_target_": "llava.model.encoders.TSPVideoEncoder", "pool_sizes": [[8, 1, 1]]}'}, "TSP"),
        ({"image_encoder": "{"}, "the encoder {"),
    ],
)
def test_other_members_of_the_family(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    found = judge(write_nvila(tmp_path / "model", **settings))
    assert {finding.code for finding in found} == {"vila-kind"}
    assert any(reason in finding.message for finding in found)


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("llm", {"model_type": "llama"}, "the language model llama"),
        ("vision_tower", {"model_type": "internvit"}, "the vision tower internvit"),
        ("mm_projector", {"mm_projector_type": "mlp_downsample_3x3_s2"}, "the projector mlp_downsample_3x3_s2"),
        ("mm_projector", {"mm_projector_type": None}, "the projector without a name"),
    ],
)
def test_other_parts(tmp_path: Path, part: str, changes: dict[str, Any], reason: str) -> None:
    folder = write_nvila(tmp_path / "model")
    edit_json(folder / part / "config.json", **changes)
    (finding,) = judge(folder)
    assert finding.code == "vila-kind"
    assert reason in finding.message


@pytest.mark.parametrize("changes", [{"size": {"height": 64, "width": 56}}, {"size": {}}, {"resample": 2}])
def test_pictures_of_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_nvila(tmp_path / "model")
    edit_json(folder / "vision_tower" / "preprocessor_config.json", **changes)
    assert [finding.code for finding in judge(folder)] == ["vila-pictures"]


def test_a_tokenizer_without_the_marks(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    path = folder / "llm" / "tokenizer.json"
    path.write_text(path.read_text().replace("<vila/video>", "<other>"))
    (finding,) = judge(folder)
    assert finding.code == "vila-tokens"
    assert "<vila/video>" in finding.message


def test_weights_that_the_index_does_not_name(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    language = folder / "llm"
    (language / "model.safetensors").rename(language / "model-00001-of-00001.safetensors")
    tensors = read_contents(folder).weights.tensors
    names = {
        name.removeprefix("llm."): "model-00001-of-00001.safetensors" for name in tensors if name.startswith("llm.")
    }
    (language / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert judge(folder) == []
    shutil.copy(language / "model-00001-of-00001.safetensors", language / "model.safetensors")
    (finding,) = judge(folder)
    assert (finding.code, finding.file) == ("vila-strays", "llm/model.safetensors")


def test_the_class_without_parts(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    edit_json(folder / "config.json", architectures=["LlavaLlamaModel"])
    assert [finding.code for finding in judge(folder)] == ["vila-kind"]
