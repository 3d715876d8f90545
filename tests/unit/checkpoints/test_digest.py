import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.checkpoints import digest as module
from gateway.checkpoints.digest import compute_digest
from gateway.checkpoints.files import OpenFile, list_folder
from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint, write_header, write_tensors

WEIGHTS = "model.safetensors"


def of(folder: Path) -> str:
    digest = compute_digest(list_folder(folder))
    assert digest is not None
    return digest


def test_it_is_the_same_wherever_the_checkpoint_lies(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one")
    other = tmp_path / "elsewhere" / "other"
    shutil.copytree(one, other)
    assert of(one) == of(other)
    assert len(of(one)) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_json(folder / "config.json", rms_norm_eps=1e-5),
        lambda folder: (folder / "chat_template.jinja").write_text("other"),
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        lambda folder: (folder / WEIGHTS).rename(folder / "other.safetensors"),
        lambda folder: write_tensors(folder / WEIGHTS, list_shapes(), fill=b"\0\0\0\0"),
        lambda folder: (folder / "modeling_own.py").write_text("pass"),
    ],
)
def test_what_an_engine_reads_changes_it(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = write_checkpoint(tmp_path / "model")
    before = of(folder)
    change(folder)
    assert of(folder) != before


@pytest.mark.parametrize(
    "name", ["README.md", "trainer_state.json", "training_args.bin", "optimizer.pt", ".gitattributes"]
)
def test_what_no_engine_reads_does_not(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "model")
    before = of(folder)
    (folder / name).write_text("x")
    assert of(folder) == before


def write_large(folder: Path, size_bytes: int) -> Path:
    """A file of so many bytes of weights, all of them zero and none of them on the disk."""
    header = {"w": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}
    path = folder / WEIGHTS
    write_header(path, header)
    os.truncate(path, path.stat().st_size + size_bytes)
    return path


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_of_large_files_samples_are_read_from_end_to_end(tmp_path: Path, place: float) -> None:
    folder = write_checkpoint(tmp_path / "model")
    path = write_large(folder, 400 * 2**20)
    before = of(folder)
    with path.open("r+b") as file:  # as much as a tensor or two
        span_bytes = 2**20
        file.seek(int((path.stat().st_size - span_bytes) * place))
        file.write(b"\1" * span_bytes)
    assert of(folder) != before


def test_little_of_much_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_large(folder, 20 * 10**9)
    read = count_reads(monkeypatch)
    of(folder)
    assert sum(read) < 20 * 2**20


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every read from here on."""
    read: list[int] = []
    real = OpenFile.read

    def count(file: OpenFile, size_bytes: int, offset: int) -> bytes:
        data = real(file, size_bytes, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(module.OpenFile, "read", count)
    return read


def test_files_that_are_empty_or_not_for_us_count_by_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    before = of(folder)
    (folder / "notes.txt").touch()
    with_notes = of(folder)
    assert with_notes != before
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert of(folder) != with_notes


def test_names_that_are_no_text_are_survived(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    before = of(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.json")).write_text("{}")
    assert of(folder) != before


def test_many_small_shards_are_sampled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "model")
    for number in range(8):
        write_large(folder, 30 * 2**20).rename(folder / f"model-{number}.safetensors")
    read = count_reads(monkeypatch)
    of(folder)
    assert sum(read) < 30 * 2**20


def test_without_a_file_that_counts_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    assert compute_digest(list_folder(tmp_path)) is None
