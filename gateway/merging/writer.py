"""Writes a merged checkpoint, one tensor in memory at a time. What is not whole never has the name it is to have."""

import errno
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.safetensors import Tensor
from gateway.merging import MergeRefused
from gateway.merging.arithmetic import decode, encode, is_finite
from gateway.merging.plan import MergePlan
from gateway.merging.reading import read_digest, read_floats, read_pieces

RECORD_FILE = "gateway_merge.json"
"""Says in a merged checkpoint what it was made of."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

Told = Callable[[str, float], None]
"""Told the name of a file and the share of all weights that is written, from 0 to 1."""


def require_new(out: Path) -> None:
    """Raise MergeRefused where something is in the place of `out` that is no empty folder, or nobody may look."""
    place = _find_place(out)
    try:
        is_taken = place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir())))
    except OSError as fault:
        raise MergeRefused(_explain(fault, place)) from fault
    if is_taken:
        raise MergeRefused(f"{place} is there already: name a folder that is not, or remove it")


def _find_place(out: Path) -> Path:
    return Path(os.path.abspath(out))  # noqa: PTH100 - resolve would follow the link that is refused here


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all went well, and is gone otherwise. Raises MergeRefused."""
    require_new(out)
    out = _find_place(out)
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        folder.chmod(0o755)
        yield folder
        _sync(folder)
        folder.rename(out)  # takes the place of an empty folder, and of nothing else
        folder = None
        _sync(out.parent)
    except OSError as fault:
        raise MergeRefused(_explain(fault, out)) from fault
    finally:
        if folder is not None:
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
    for contents, report in ((plan.base, plan.base_report), (plan.adapter, plan.adapter_report)):
        if read_digest(contents) != report.digest:
            raise MergeRefused(f"{contents.path} changed while it was merged: merge it again when nobody writes to it")
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
    if change is None:
        out.writelines(read_pieces(plan.base, tensor))
        return
    with np.errstate(over="ignore", invalid="ignore"):
        stored = encode(change.apply(read_floats(plan.base, tensor)), tensor.dtype)
    if len(stored) != tensor.size_bytes:
        raise MergeRefused(f"merging {tensor.name} gave {len(stored):,} bytes in place of {tensor.size_bytes:,}")
    if not is_finite(decode(stored, tensor.dtype, tensor.shape)):
        reason = f"NaN, or numbers too large for {tensor.dtype}"
        raise MergeRefused(f"merging {tensor.name} gives {reason}: the training has diverged, or the scale is wrong")
    out.write(stored)


def _copy_documents(base: Contents, folder: Path) -> None:
    for name in base.folder.find(r"[^.].*"):
        if not name.endswith(_WEIGHTS) and base.folder.measure(name):
            shutil.copyfile(base.path / name, folder / name)
            _sync(folder / name)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(fault: OSError, out: Path) -> str:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that {out} is on is full: nothing was written; make room and merge again"
    return f"{out} cannot be written ({fault.strerror}): nothing was left there"
