"""A checkpoint's digest: tells two checkpoints apart, and the same one again, wherever it lies. Reads a few megabytes.

Everything the engine reads counts: documents whole, weights by size, header and samples from end to end. So another
save of a training has another digest; a single number changed by hand in gigabytes may be missed.
"""

import hashlib
import os
from collections.abc import Iterator

from gateway.checkpoints.files import Folder, OpenFile
from gateway.checkpoints.findings import UnreadableError

_READ_WHOLE_BYTES = 32 * 2**20
_SAMPLE_BYTES = 16 * 1024
_SAMPLES = 1024  # for all files together
_HEAD_BYTES = 8 * 2**20
# What the engine reads; a trainer's own state and papers beside the model are left out.
_COUNTED = r"[^.].*\.(safetensors|json|jinja|txt|model|spm|tiktoken|py)"
_LEFT_OUT = r"(trainer_state|training_args|all_results|train_results|eval_results|README|requirements).*"


def compute_digest(folder: Folder) -> str | None:
    """The digest as 64 hexadecimal digits (SHA-256); None where no file counts."""
    left_out = set(folder.find(_LEFT_OUT))
    names = [name for name in folder.find(_COUNTED) if name not in left_out]
    total_bytes = sum(map(folder.measure, names))
    state = hashlib.sha256()
    for name in names:
        state.update(os.fsencode(name) + b"\0%d\0" % folder.measure(name))
        try:
            with folder.open(name) as file:
                for piece in _read_pieces(file, total_bytes):
                    state.update(piece)
        except UnreadableError:
            continue  # empty, or not for us: its name and size count
    return state.hexdigest() if names else None


def _read_pieces(file: OpenFile, total_bytes: int) -> Iterator[bytes]:
    size_bytes = file.size_bytes
    is_weights = file.name.endswith(".safetensors")
    if size_bytes <= _READ_WHOLE_BYTES and not (is_weights and total_bytes > _READ_WHOLE_BYTES):
        yield file.read(size_bytes, 0)
        return
    header_bytes = 8 + int.from_bytes(file.read(8, 0), "little")
    yield file.read(min(header_bytes, _HEAD_BYTES), 0)
    count = max(2, _SAMPLES * size_bytes // max(total_bytes, 1))
    for number in range(count):
        yield file.read(_SAMPLE_BYTES, max(0, size_bytes - _SAMPLE_BYTES) * number // (count - 1))
