import struct
from pathlib import Path

import pytest

from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.files import list_folder
from gateway.checkpoints.rules.samples import judge_samples, judge_tied_head
from gateway.checkpoints.weights import read_weights
from tests.support.safetensors_files import edit_json, list_shapes, write_checkpoint, write_tensors


def judge(folder: Path) -> list[str]:
    listed = list_folder(folder)
    return [finding.message for finding in judge_samples(listed, read_weights(listed))]


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [
        ("F32", struct.pack("<f", float("nan"))), ("F32", struct.pack("<f", float("-inf"))), ("BF16", b"\xc0\x7f"),
        ("BF16", b"\x80\xff"), ("F16", b"\x00\x7c"), ("F64", struct.pack("<d", float("inf"))),
    ],
)  # fmt: skip
def test_not_finite(tmp_path: Path, dtype: str, raw: bytes) -> None:
    write_tensors(tmp_path / "w.safetensors", {"a.weight": (3,)}, dtype=dtype, fill=raw)
    (message,) = judge(tmp_path)
    assert message.startswith("w.safetensors: a.weight holds NaN or infinity")


@pytest.mark.parametrize(
    ("dtype", "raw"), [("F32", b"\xff\xff\x7f\x7f"), ("BF16", b"\x7f\x7f"), ("F16", b"\xff\x7b"), ("I8", b"\xff")]
)
def test_largest_finite_numbers(tmp_path: Path, dtype: str, raw: bytes) -> None:
    write_tensors(tmp_path / "w.safetensors", {"a.weight": (3,)}, dtype=dtype, fill=raw)
    assert judge(tmp_path) == []


def test_masks_may_hold_infinity(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"attn.mask": (3,)}, fill=struct.pack("<f", float("-inf")))
    assert judge(tmp_path) == []


def test_little_is_read_of_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "w.safetensors", {f"{number}.weight": (3000,) for number in range(100)})
    listed = list_folder(tmp_path)
    weights = read_weights(listed)
    counts: list[int] = []
    monkeypatch.setattr("gateway.checkpoints.files.OpenFile.read", lambda _, count, __: counts.append(count) or b"")
    assert list(judge_samples(listed, weights)) == []
    assert 10 < len(counts) < 30
    assert sum(counts) < 110_000


def test_head_of_its_own_under_a_tied_configuration(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    assert list(judge_tied_head(read_contents(folder))) == []
    edit_json(folder / "config.json", tie_word_embeddings=True)
    assert list(judge_tied_head(read_contents(folder))) == []
    head = {"lm_head.weight": list_shapes()["lm_head.weight"]}
    rest = {name: shape for name, shape in list_shapes().items() if name not in head}
    write_tensors(folder / "model.safetensors", rest)
    write_tensors(folder / "head.safetensors", head, fill=b"\0\0\0\1")
    (finding,) = judge_tied_head(read_contents(folder))
    assert (finding.severity, finding.code, finding.file) == ("warning", "head-unused", "head.safetensors")
    assert "tie_word_embeddings" in finding.mend
