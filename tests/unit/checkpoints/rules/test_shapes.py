from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.rules.shapes import find_embedding, judge_shapes
from gateway.checkpoints.safetensors import Tensor
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import HIDDEN, VOCABULARY, edit_json, list_shapes, write_checkpoint, write_tensors

Shapes = dict[str, tuple[int, ...]]


def judge(folder: Path, shapes: Shapes, **changes: object) -> list[str]:
    write_checkpoint(folder)
    edit_json(folder / "config.json", **changes)
    write_tensors(folder / "model.safetensors", shapes)
    return [finding.code for finding in judge_shapes(read_contents(folder))]


def rename(old: str, new: str) -> Shapes:
    return {name.replace(old, new): shape for name, shape in list_shapes().items()}


TOWER: Shapes = {"vision_tower.layers.7.fc.weight": (4, 4)}


@pytest.mark.parametrize(
    ("shapes", "changes"),
    [
        (list_shapes(), {}),
        (rename("model.", "model.language_model."), {}),
        (list_shapes() | TOWER, {}),
        (list_shapes() | {"visual.blocks.9.fc.weight": (4, 4)}, {}),
        (list_shapes() | {"talker.model.embed_tokens.weight": (3, 3)}, {}),
        (list_shapes() | {"model.layers.2.embed_tokens.weight": (VOCABULARY, HIDDEN)}, {"num_nextn_predict_layers": 1}),
        ({name: s for name, s in list_shapes().items() if "lm_head" not in name}, {"tie_word_embeddings": True}),
        ({name: s for name, s in list_shapes().items() if "lm_head" not in name}, {"tie_word_embeddings": None}),
        (rename("model.embed_tokens", "transformer.wte"), {"vocab_size": 999}),
        (list_shapes(), {"hidden_size": 999, "word_embed_proj_dim": HIDDEN}),
        (list_shapes(), {"num_hidden_layers": 9, "is_encoder_decoder": True}),
    ],
)
def test_no_false_alarm(tmp_path: Path, shapes: Shapes, changes: dict[str, object]) -> None:
    assert judge(tmp_path, shapes, **changes) == []


@pytest.mark.parametrize(
    ("shapes", "changes", "expected"),
    [
        (list_shapes(rows=VOCABULARY + 1), {}, "weights-misfit"),
        (list_shapes(hidden=4), {}, "weights-misfit"),
        (list_shapes(layers=1), {}, "layers-missing"),
        (list_shapes(layers=3), {}, "layers-extra"),
        ({f"module.{name}": shape for name, shape in list_shapes().items()}, {}, "weights-wrapped"),
        (list_shapes() | {"x.base_layer.weight": (1, 1)}, {}, "weights-unmerged"),
    ],
)
def test_misfits(tmp_path: Path, shapes: Shapes, changes: dict[str, object], expected: str) -> None:
    assert judge(tmp_path, shapes, **changes) == [expected]


@pytest.mark.parametrize(
    ("prefix", "tower", "expected"),
    [
        ("vision_tower.", "siglip_vision_model", ["tower-names"]),
        ("model.vision_tower.", "clip_vision_model", ["tower-names"]),
        ("vision_tower.vision_model.", "siglip_vision_model", []),
        ("vision_tower.", "pixtral", []),
    ],
)
def test_tower_as_the_engine_names_it(tmp_path: Path, prefix: str, tower: str, expected: list[str]) -> None:
    shapes = list_shapes() | {f"{prefix}embeddings.weight": (4, 4)}
    vision, names = {"model_type": tower}, ["Gemma3ForConditionalGeneration"]
    assert judge(tmp_path, shapes, architectures=names, vision_config=vision) == expected


def test_the_tower_of_a_checkpoint_in_parts_has_the_names_of_the_published_one(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    assert [finding.code for finding in judge_shapes(read_contents(folder))] == []
    path = folder / "vision_tower" / "model.safetensors"
    renamed = {name.removeprefix("vision_model."): tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, metadata={"format": "pt"})
    assert [finding.code for finding in judge_shapes(read_contents(folder))] == ["tower-names"]


def test_embedding_is_found_only_where_it_is_clear() -> None:
    def find(*names: str, dtype: str = "BF16") -> str | None:
        found = find_embedding({name: Tensor(name, dtype, (4, 2), "f", 0, 16) for name in names})
        return found and found.name

    assert find("embed_tokens.weight") == "embed_tokens.weight"
    assert find("model.embed_tokens.weight", "model.vision.embed_tokens.weight") == "model.embed_tokens.weight"
    assert find("a.embed_tokens.weight", "b.embed_tokens.weight") is None
    assert find("model.embed_tokens.weight", dtype="U8") is None
    assert find("model.norm.weight") is None
