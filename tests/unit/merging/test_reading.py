import shutil
from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.merging import MergeRefused
from gateway.merging.reading import read_digest, read_floats, read_pieces
from tests.support.safetensors_files import HIDDEN, VOCABULARY, write_checkpoint

NAME = "lm_head.weight"


def test_a_tensor_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    contents = read_contents(write_checkpoint(tmp_path))
    tensor = contents.weights.tensors[NAME]
    pieces = list(read_pieces(contents, tensor, piece_bytes=100))
    assert [len(piece) for piece in pieces] == [100] * 5 + [12]
    numbers = read_floats(contents, tensor)
    assert numbers.shape == (VOCABULARY, HIDDEN)
    assert (numbers == 0.5).all()


def test_files_that_are_gone_or_shorter_are_refused(tmp_path: Path) -> None:
    contents = read_contents(write_checkpoint(tmp_path))
    tensor = contents.weights.tensors[NAME]
    (tmp_path / tensor.file).write_bytes(b"x" * 40)
    with pytest.raises(MergeRefused, match="became shorter"):
        read_floats(contents, tensor)
    (tmp_path / tensor.file).unlink()
    with pytest.raises(MergeRefused, match="is missing"):
        read_floats(contents, tensor)


def test_the_digest_is_that_of_now(tmp_path: Path) -> None:
    contents = read_contents(write_checkpoint(tmp_path / "model"))
    before = read_digest(contents)
    (tmp_path / "model" / "notes.txt").write_text("new")
    assert read_digest(contents) != before
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(MergeRefused, match="does not exist"):
        read_digest(contents)
