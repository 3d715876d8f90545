"""Writes a merged checkpoint, one tensor in memory at a time. What is not whole never has the name it is to have."""

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.files import OpenFile
from gateway.checkpoints.findings import UnreadableError
from gateway.checkpoints.safetensors import Tensor
from gateway.merging.arithmetic import decode, encode, is_finite
from gateway.merging.plan import MergePlan, MergeRefused

RECORD_FILE = "gateway_merge.json"
"""Says in a merged checkpoint what it was made of."""

_PIECE_BYTES = 8 * 2**20
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

Told = Callable[[str, float], None]
"""Told the name of a file and the share of all weights that is written, from 0 to 1."""


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all went well, and is gone otherwise. Raises MergeRefused."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MergeRefused(f"{out} is there already: name a folder that is not, or remove it")
    folder = out.with_name(f".{out.name}.partial")
    if folder.exists():  # of a merge that was killed
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        yield folder
        _sync(folder)
        if out.exists():
            out.rmdir()
        folder.rename(out)
        _sync(out.parent)
    except OSError as fault:
        raise MergeRefused(_explain(fault, out)) from fault
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_merged(plan: MergePlan, folder: Path, told: Told) -> None:
    """Write the merged checkpoint into `folder`, an empty one. Raises MergeRefused and OSError."""
    total_bytes = plan.base.weights.size_bytes
    needed_bytes = total_bytes + sum(
        plan.base.folder.measure(name) for name in plan.base.folder.entries if not name.endswith(_WEIGHTS)
    )
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise MergeRefused(
            f"the merged checkpoint needs {needed_bytes:,} bytes, and only {free_bytes:,} are free there"
        )
    written_bytes = 0
    for name in plan.base.weights.files:
        told(name, written_bytes / total_bytes)
        written_bytes += _write_file(plan, name, folder / name)
    _copy_documents(plan.base, folder)
    record = {
        "base": {"path": str(plan.base.path), "digest": plan.base_report.digest},
        "adapter": {"path": str(plan.adapter.path), "digest": plan.adapter_report.digest},
        "changed_tensors": len(plan.changes),
    }
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")


def _write_file(plan: MergePlan, name: str, path: Path) -> int:
    tensors = sorted((t for t in plan.base.weights.tensors.values() if t.file == name), key=lambda tensor: tensor.start)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        offsets = [position, position + tensor.size_bytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        position += tensor.size_bytes
    raw = msgspec.json.encode(header)
    raw += b" " * (-len(raw) % 8)  # as the format's own writer does, so that numbers are aligned
    with path.open("xb") as out:
        out.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors:
            _write_tensor(plan, tensor, out)
        out.flush()
        os.fsync(out.fileno())
    return position


def _write_tensor(plan: MergePlan, tensor: Tensor, out: BinaryIO) -> None:
    change = plan.changes.get(tensor.name)
    try:
        with plan.base.folder.open(tensor.file) as file:
            if change is None:
                out.writelines(_read_pieces(file, tensor))
                return
            raw = file.read(tensor.size_bytes, tensor.start)
    except UnreadableError as unreadable:
        raise MergeRefused(f"the base: {unreadable.finding}") from unreadable
    merged = change.apply(decode(raw, tensor.dtype, tensor.shape))
    if not is_finite(merged):
        raise MergeRefused(f"merging {tensor.name} gives NaN or infinity: the adapter's training has diverged")
    stored = encode(merged, tensor.dtype)
    if len(stored) != tensor.size_bytes:
        raise MergeRefused(f"merging {tensor.name} gave {len(stored):,} bytes in place of {tensor.size_bytes:,}")
    out.write(stored)


def _read_pieces(file: OpenFile, tensor: Tensor) -> Iterator[bytes]:
    for start in range(0, tensor.size_bytes, _PIECE_BYTES):
        yield file.read(min(_PIECE_BYTES, tensor.size_bytes - start), tensor.start + start)


def _copy_documents(base: Contents, folder: Path) -> None:
    for name in base.folder.find(r"[^.].*"):
        if not name.endswith(_WEIGHTS) and base.folder.measure(name):
            shutil.copyfile(base.path / name, folder / name)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(fault: OSError, out: Path) -> str:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that {out} is on is full: nothing was written; make room and merge again"
    return f"{out} cannot be written ({fault.strerror}): nothing was left there"
