import errno
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from gateway.checkpoints import check
from gateway.merging import MergeRefused
from gateway.merging import writer as module
from gateway.merging.arithmetic import decode
from gateway.merging.plan import MergePlan, plan_merge
from gateway.merging.writer import RECORD_FILE, staging, write_merged
from tests.support.safetensors_files import (
    HIDDEN,
    RANK,
    list_shapes,
    write_adapter,
    write_checkpoint,
    write_shards,
    write_tensors,
)

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
K_PROJ = "model.layers.0.self_attn.k_proj.weight"


def make_plan(tmp_path: Path, *, dtype: str = "F32", are_shards: bool = False, fill: bytes | None = None) -> MergePlan:
    base = write_checkpoint(tmp_path / "base")
    write_tensors(base / "model.safetensors", list_shapes(), dtype=dtype)
    if are_shards:
        write_shards(base)
    adapter = write_adapter(tmp_path / "adapter")
    if fill is not None:
        shapes = {f"base_model.model.{Q_PROJ.removesuffix('weight')}lora_A.weight": (RANK, HIDDEN),
                  f"base_model.model.{Q_PROJ.removesuffix('weight')}lora_B.weight": (HIDDEN, RANK)}  # fmt: skip
        write_tensors(adapter / "adapter_model.safetensors", shapes, fill=fill)
    return plan_merge(base, adapter)


def merge(plan: MergePlan, out: Path) -> list[tuple[str, float]]:
    told: list[tuple[str, float]] = []
    with staging(out) as folder:
        write_merged(plan, folder, lambda name, share: told.append((name, share)))
    return told


def read(folder: Path, name: str) -> np.ndarray:
    report_free = check(folder)
    assert report_free.findings == ()
    from gateway.checkpoints.contents import read_contents

    tensor = read_contents(folder).weights.tensors[name]
    raw = (folder / tensor.file).read_bytes()[tensor.start : tensor.start + tensor.size_bytes]
    return decode(raw, tensor.dtype, tensor.shape)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_what_is_written_is_a_sound_checkpoint_with_the_change_in_it(tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out"
    merge(make_plan(tmp_path, dtype=dtype), out)
    # 0.5 and alpha / r = 2 times four products of 0.5 and 0.5
    assert (read(out, Q_PROJ) == 2.5).all()
    assert (read(out, K_PROJ) == 0.5).all()


def test_shards_stay_shards_and_progress_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = merge(make_plan(tmp_path, are_shards=True), out)
    assert [name for name, _ in told] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert told[0][1] == 0 < told[1][1] < 1
    assert (out / "model.safetensors.index.json").read_text() == (
        tmp_path / "base" / "model.safetensors.index.json"
    ).read_text()
    assert (read(out, Q_PROJ) == 2.5).all()


def test_documents_come_along_and_a_record_says_what_was_merged(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path), tmp_path / "out"
    (tmp_path / "base" / "optimizer.pt").write_text("x")
    (tmp_path / "base" / ".hidden").write_text("x")
    merge(plan, out)
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", RECORD_FILE} <= names
    assert not names & {"optimizer.pt", ".hidden", "adapter_config.json"}
    record = json.loads((out / RECORD_FILE).read_text())
    assert record["base"]["digest"] == check(tmp_path / "base").digest
    assert record["adapter"]["digest"] == check(tmp_path / "adapter").digest
    assert record["changed_tensors"] == len(plan.changes)


def test_numbers_are_aligned_as_readers_like_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(make_plan(tmp_path), out)
    (length,) = struct.unpack("<Q", (out / "model.safetensors").read_bytes()[:8])
    assert length % 8 == 0


def test_a_merge_that_diverged_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, fill=struct.pack("<f", 3e38))
    with (
        pytest.raises(MergeRefused, match=f"merging {Q_PROJ} gives NaN, or numbers too large for F32"),
        np.errstate(over="ignore"),
    ):
        merge(plan, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    plan = make_plan(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(number, "no room")

    monkeypatch.setattr(module.shutil, "copyfile", fail)
    with pytest.raises(MergeRefused, match="is full: nothing was written"):
        merge(plan, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(MergeRefused, match="only 1 are free"):
        merge(plan, tmp_path / "out")


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(MergeRefused, match="is there already"):
        merge(plan, out)
    assert (out / "mine").read_text() == "x"
    (out / "mine").unlink()
    merge(plan, out)
    assert check(out).is_servable


def test_two_merges_into_one_name_do_not_touch_each_other(tmp_path: Path) -> None:
    plan, out = make_plan(tmp_path), tmp_path / "out"
    with pytest.raises(MergeRefused, match="cannot be written"), staging(out) as second:
        write_merged(plan, second, lambda *_: None)
        merge(plan, out)
    assert check(out).is_servable, "the first to be ready"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "out"]


@pytest.mark.parametrize("target", ["empty", "gone"])
def test_a_link_is_refused_at_once(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(target)
    with pytest.raises(MergeRefused, match="is there already"), staging(tmp_path / "out"):
        pytest.fail("it was begun")


def test_the_folder_one_stands_in_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with staging(Path()) as folder:
        write_merged(plan, folder, lambda *_: None)
    assert check(tmp_path / "here").is_servable


def test_numbers_too_large_for_the_base_s_type_are_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, dtype="F16", fill=struct.pack("<f", 200.0))
    with pytest.raises(MergeRefused, match="numbers too large for F16"):
        merge(plan, tmp_path / "out")


@pytest.mark.parametrize("folder", ["base", "adapter"])
def test_what_changes_while_it_is_merged_is_refused(tmp_path: Path, folder: str) -> None:
    plan = make_plan(tmp_path)
    (tmp_path / folder / "notes.txt").write_text("new")
    with pytest.raises(MergeRefused, match=f"{folder} changed while it was merged"):
        merge(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MergeRefused, match="cannot be written"), staging(tmp_path / "file" / "out"):
        pass


def test_weights_that_vanish_while_they_are_read_are_told(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    path = tmp_path / "base" / "model.safetensors"
    for size_bytes in (path.stat().st_size - 16, 600):
        os.truncate(path, size_bytes)
        with pytest.raises(MergeRefused, match="became shorter meanwhile"):
            merge(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
