import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from gateway.engines.launcher import adapt_torch
from tests.support.nvila_models import write_nvila


def load(folder: Path) -> Any:
    adapt_torch()  # before Transformers is imported, so not while tests are collected
    import torchvision  # noqa: F401 - what is in use is not adapted a second time

    from gateway.nvila.config import NvilaConfig

    return NvilaConfig.from_pretrained(folder)


def read(folder: Path, **settings: Any) -> Any:
    return load(write_nvila(folder / "model", **settings))


def test_what_a_published_folder_says(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.side, config.fold, config.tokens_per_tile, config.tower_layers) == (56, 3, 4, 3)
    assert (config.image_aspect_ratio, config.min_tiles, config.max_tiles, config.num_video_frames) == (
        "dynamic",
        1,
        6,
        4,
    )
    assert config.get_text_config().vocab_size == 767
    assert config.picture_settings["resample"] == 3
    assert read(tmp_path / "other", fold=2).fold == 2


def test_the_most_tiles_are_a_grid_and_the_whole(tmp_path: Path) -> None:
    assert read(tmp_path / "cut").most_tiles == 7
    assert read(tmp_path / "single", max_tiles=1).most_tiles == 1
    assert read(tmp_path / "resized", image_aspect_ratio="resize").most_tiles == 1


def test_the_parts_own_files_count(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    content = json.loads((folder / "llm" / "config.json").read_text())
    (folder / "llm" / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 7}))
    assert load(folder).text_config.num_hidden_layers == 7
    (folder / "llm" / "config.json").unlink()
    assert load(folder).text_config.num_hidden_layers == 3


def test_it_survives_the_way_to_another_process(tmp_path: Path) -> None:
    config = read(tmp_path)
    for other in (pickle.loads(pickle.dumps(config)), type(config)(**config.to_dict())):
        assert other.text_config.num_hidden_layers == 3
        assert other.fold == 3


def test_layers_may_be_counted_from_the_front(tmp_path: Path) -> None:
    assert read(tmp_path, mm_vision_select_layer=2).tower_layers == 2


def test_texts_around_pictures_are_read_from_json_within_json(tmp_path: Path) -> None:
    encoder = {"_target_": "llava.model.encoders.BasicImageEncoder", "end_tokens": "!"}
    assert read(tmp_path / "a", image_encoder=json.dumps(encoder)).image_encoder["end_tokens"] == "!"
    assert read(tmp_path / "b", image_encoder=encoder).image_encoder["end_tokens"] == "!"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dynamic_s2": True}, "dynamic_s2 encoding"),
        ({"s2": True}, "s2 encoding"),
        ({"ps3": True}, "ps3 encoding"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio pad"),
        ({"image_aspect_ratio": None}, "image_aspect_ratio None"),
        ({"mm_vision_select_feature": "patch"}, "mm_vision_select_feature"),
        ({"fps": 2.0}, "an fps"),
        ({"video_encoder": {"_target_": "llava.model.encoders.TSPVideoEncoder"}}, "an encoder"),
    ],
)
def test_other_members_of_the_family_are_refused(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, **settings)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("llm", "model_type", "llama"),
        ("vision_tower", "model_type", "clip_vision_model"),
        ("mm_projector", "mm_projector_type", "mlp_downsample"),
    ],
)
def test_other_parts_are_refused(tmp_path: Path, part: str, key: str, value: str) -> None:
    path = write_nvila(tmp_path / "model") / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"not one with the .* {value}"):
        load(tmp_path / "model")
