from pathlib import Path

from gateway.checkpoints.files import list_folder
from gateway.checkpoints.weights import read_adapter_weights, read_weights
from tests.support.safetensors_files import list_shapes, write_adapter, write_checkpoint, write_shards, write_tensors


def test_one_file_and_shards_are_the_same_tensors(tmp_path: Path) -> None:
    one = read_weights(list_folder(write_checkpoint(tmp_path / "a")))
    many = read_weights(list_folder(write_shards(write_checkpoint(tmp_path / "b"))))
    assert one.is_whole
    assert many.is_whole
    assert one.tensors.keys() == many.tensors.keys() == list_shapes().keys()
    assert (len(one.files), len(many.files)) == (1, 2)
    assert one.size_bytes == many.size_bytes


def test_files_that_an_index_leaves_out_are_not_read(tmp_path: Path) -> None:
    folder = write_shards(write_checkpoint(tmp_path / "a"))
    (folder / "old.safetensors").write_bytes(b"broken")
    assert read_weights(list_folder(folder)).findings == ()


def test_consolidated_weights_come_first(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    write_tensors(folder / "consolidated.safetensors", {"tok_embeddings.weight": (2, 2)})
    assert read_weights(list_folder(folder)).files == ("consolidated.safetensors",)


def test_numbers_by_type(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": (4,)}, dtype="BF16")
    write_tensors(tmp_path / "b.safetensors", {"b": (100,)}, dtype="F32")
    weights = read_weights(list_folder(tmp_path))
    assert list(weights.count_by_dtype().items()) == [("F32", (100, 400)), ("BF16", (4, 8))]


def test_adapter_weights(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    assert read_adapter_weights(list_folder(folder)).is_whole
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    weights = read_adapter_weights(list_folder(folder))
    assert [finding.code for finding in weights.findings] == ["weights-pickle"]
    assert "safe_serialization=True" in weights.findings[0].mend
    (folder / "adapter_model.bin").unlink()
    assert [finding.code for finding in read_adapter_weights(list_folder(folder)).findings] == ["weights-missing"]
