import json
import struct
from pathlib import Path

import pytest

from gateway.checkpoints.files import list_folder
from gateway.checkpoints.findings import UnreadableError
from gateway.checkpoints.safetensors import Tensor, read_tensors
from tests.support.safetensors_files import write_header, write_tensors


def read(folder: Path) -> dict[str, Tensor]:
    with list_folder(folder).open("w.safetensors") as file:
        return read_tensors(file)


def test_tensors_by_name(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "w.safetensors", {"a": (2, 3), "b": (), "c": (0, 4)}, dtype="BF16")
    tensors = read(tmp_path)
    assert [(t.name, t.dtype, t.shape, t.count, t.size_bytes) for t in tensors.values()] == [
        ("a", "BF16", (2, 3), 6, 12), ("b", "BF16", (), 1, 2), ("c", "BF16", (0, 4), 0, 0),
    ]  # fmt: skip
    assert path.read_bytes()[tensors["b"].start :] == b"\x00\x3f"
    assert tensors["a"].is_float


def entry(shape: list[int], offsets: list[int], dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": entry([4], [0, 3])}, "size of tensor a does not follow from its shape"),
        ({"a": entry([2], [0, 2]), "b": entry([2], [3, 5])}, "tensor b does not begin where the one before it ends"),
        ({"a": entry([2], [0, 2]), "b": entry([2], [1, 3])}, "tensor b does not begin"),
        ({"a": entry([2], [1, 3])}, "tensor a does not begin"),
        ({"a": entry([2], [-2, 0])}, "tensor a does not begin"),
        ({"a": entry([-2], [0, -2])}, "size of tensor a"),
        ({"a": entry([1] * 99, [0, 1])}, "size of tensor a"),
        ({"a": entry([2], [0, 2], "U9")}, "unknown type U9"),
        ({"a": {"dtype": "U8"}}, "header is damaged"),
        ({"a": entry([2**70], [0, 2])}, "header is damaged|size of tensor a"),
        ({"a": 5}, "header is damaged"),
        (b"{" + b'"a":[' * 5000, "header is damaged"),
        (b'{"a": "\xff"}', "header is damaged"),
        (b"[]", "does not begin like one"),
        ({"a": entry([9], [0, 9])}, r"is cut off \(\d+ of \d+ bytes are there\)"),
        ({"a": entry([4], [0, 4])}, "1 bytes at its end belong to no tensor"),
    ],
)
def test_header_that_does_not_fit(tmp_path: Path, header: object, said: str) -> None:
    write_header(tmp_path / "w.safetensors", header, b"12345")
    with pytest.raises(UnreadableError, match=said):
        read(tmp_path)


def test_half_bytes_are_counted(tmp_path: Path) -> None:
    header = json.dumps({"a": entry([2, 8], [0, 8], "F4")}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"8" * 8)
    assert read(tmp_path)["a"].count == 16
