from pathlib import Path

import pytest

from gateway.checkpoints import check
from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.parts import find_fold, is_in_parts
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import edit_json


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvila(tmp_path_factory.mktemp("nvila") / "model")


def codes(folder: Path) -> list[tuple[str, str]]:
    return [(finding.code, finding.file) for finding in check(folder).findings if finding.severity == "error"]


def test_parts_are_read_as_one_checkpoint(whole: Path) -> None:
    contents: Contents = read_contents(whole)
    assert contents.is_in_parts
    assert contents.is_visual
    assert contents.findings == ()
    assert {name.partition(".")[0] for name in contents.weights.tensors} == {"llm", "vision_tower", "mm_projector"}
    tensor = contents.weights.tensors["mm_projector.layers.1.weight"]
    assert tensor.file == "mm_projector/model.safetensors"
    assert contents.weights.files == tuple(
        f"{part}/model.safetensors" for part in ("llm", "vision_tower", "mm_projector")
    )
    assert contents.tokenizer.file == "llm/tokenizer.json"
    assert contents.templates.file == "llm/tokenizer_config.json"
    assert contents.generation.get("eos_token_id") == [759, 757]
    assert contents.preprocessor.whole("resample") == 3


def test_nothing_is_wrong_with_it(whole: Path) -> None:
    report = check(whole)
    assert report.findings == ()
    assert report.is_servable
    assert report.manifest.task == "generate"
    assert report.manifest.context_tokens == 2048


def test_a_parts_own_document_counts(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    edit_json(folder / "llm" / "config.json", vocab_size=700)
    assert read_contents(folder).text.whole("vocab_size") == 700


def test_the_digest_is_over_all_parts(tmp_path: Path) -> None:
    one, other = write_nvila(tmp_path / "a"), write_nvila(tmp_path / "b")
    assert check(one).digest == check(other).digest
    path = other / "vision_tower" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert check(one).digest != check(other).digest


@pytest.mark.parametrize("part", ["llm", "vision_tower", "mm_projector"])
def test_a_part_that_is_not_there(tmp_path: Path, part: str) -> None:
    folder = write_nvila(tmp_path / "model")
    (folder / part).rename(tmp_path / "away")
    assert ("part-missing", f"{part}/") in codes(folder)


def test_what_is_wrong_in_a_part_is_told_with_its_folder(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    (folder / "mm_projector" / "model.safetensors").write_bytes(b"")
    (folder / "llm" / "tokenizer.json").write_text("{")
    (folder / "vision_tower" / "config.json").write_text("[]")
    found = codes(folder)
    assert ("file-empty", "mm_projector/model.safetensors") in found
    assert ("tokenizer-broken", "llm/tokenizer.json") in found
    assert ("json-broken", "vision_tower/config.json") in found


def test_every_tensor_is_held_against_the_parts(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    edit_json(folder / "vision_tower" / "config.json", intermediate_size=96)
    assert ("tensor-shape", "vision_tower/model.safetensors") in codes(folder)
    edit_json(folder / "vision_tower" / "config.json", intermediate_size=80, num_hidden_layers=5)
    assert [code for code, _ in codes(folder)] == ["tensors-missing"]
    edit_json(folder / "vision_tower" / "config.json", num_hidden_layers=4)
    edit_json(folder / "mm_projector" / "config.json", mm_projector_type="mlp_downsample_2x2_fix")
    assert {code for code, _ in codes(folder)} == {"tensors-extra", "tensor-shape"}


def test_pictures_need_their_settings(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    (folder / "vision_tower" / "preprocessor_config.json").unlink()
    assert codes(folder) == [("processor-missing", "vision_tower/preprocessor_config.json")]


def test_words_need_a_tokenizer(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model")
    (folder / "llm" / "tokenizer.json").unlink()
    assert codes(folder) == [("tokenizer-missing", "llm/tokenizer.json")]


def test_marks_of_pictures_need_no_row(tmp_path: Path) -> None:
    assert check(write_nvila(tmp_path / "model", first_mark=770)).findings == ()


def test_the_way_of_folding() -> None:
    assert is_in_parts(Fields({"llm_cfg": {}}))
    assert not is_in_parts(Fields({"text_config": {}}))
    assert find_fold(Fields({"mm_projector_cfg": {"mm_projector_type": "mlp_downsample_3x3_fix"}})) == 3
    assert find_fold(Fields({"mm_projector_cfg": {"mm_projector_type": "linear"}})) is None
