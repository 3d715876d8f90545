"""Reads the header of a safetensors file and proves that the file fits it. Reads no weights."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import msgspec

from gateway.checkpoints.files import OpenFile
from gateway.checkpoints.findings import Finding, UnreadableError, error, make_printable

HEADER_LIMIT_BYTES = 100_000_000
"""The longest header that the format allows."""

_LENGTH_BYTES = 8
_MOST_DIMENSIONS = 16
_AGAIN = "copy or download the file again, or save the model again"

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
    "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor. `start` counts from the beginning of its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    size_bytes: int

    @property
    def count(self) -> int:
        """How many values it holds."""
        return prod(self.shape)

    @property
    def is_float(self) -> bool:
        """True for plain floating point, where a shape means what it says."""
        return self.dtype in ("F16", "BF16", "F32", "F64")


def write_shape(shape: tuple[int, ...]) -> str:
    """A shape for people."""
    return " by ".join(f"{size:,}" for size in shape) or "a single number"


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_tensors(file: OpenFile) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises `UnreadableError` if the file is cut off, damaged, or of another format."""
    header_bytes = _read_length(file)
    raw = file.read(header_bytes, _LENGTH_BYTES)
    start = _LENGTH_BYTES + header_bytes
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        parts.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(part, type=_Entry) for name, part in parts.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UnreadableError(_damaged(file.name, "its header is damaged")) from fault
    _require_layout(file, entries, start)
    tensors = {}
    for name, entry in entries.items():
        begin, end = entry.data_offsets
        tensors[name] = Tensor(name, entry.dtype, tuple(entry.shape), file.name, start + begin, end - begin)
    return tensors


def _read_length(file: OpenFile) -> int:
    prefix = file.read(_LENGTH_BYTES + 1, 0)
    if len(prefix) <= _LENGTH_BYTES:
        raise UnreadableError(_cut_off(file.name, f"only {len(prefix)} bytes are there"))
    if prefix.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        message = f"{file.name} is a pickle with the name of a safetensors file"
        raise UnreadableError(error("weights-pickle", file.name, message, "save the model again with save_pretrained"))
    length: int = struct.unpack("<Q", prefix[:_LENGTH_BYTES])[0]
    if length > HEADER_LIMIT_BYTES or prefix[_LENGTH_BYTES:] != b"{":
        raise UnreadableError(_damaged(file.name, "it does not begin like one"))
    if _LENGTH_BYTES + length > file.size_bytes:
        raise UnreadableError(
            _cut_off(file.name, f"its header alone has {length:,} bytes, the file {file.size_bytes:,}")
        )
    return length


def _require_layout(file: OpenFile, entries: Mapping[str, _Entry], start: int) -> None:
    """The format wants every byte after the header to belong to exactly one tensor."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        bits = _BITS.get(entry.dtype)
        if bits is None:
            reason = f"tensor {make_printable(name)} has the unknown type {make_printable(entry.dtype)}"
            raise UnreadableError(_damaged(file.name, reason))
        is_shape = len(entry.shape) <= _MOST_DIMENSIONS and all(size >= 0 for size in entry.shape)
        if not is_shape or (end - begin) * 8 != prod(entry.shape) * bits:
            raise UnreadableError(
                _damaged(file.name, f"the size of tensor {make_printable(name)} does not follow from its shape")
            )
        if begin != position:
            raise UnreadableError(
                _damaged(file.name, f"tensor {make_printable(name)} does not begin where the one before it ends")
            )
        position = end
    expected = start + position
    if file.size_bytes < expected:
        raise UnreadableError(_cut_off(file.name, f"{file.size_bytes:,} of {expected:,} bytes are there"))
    if file.size_bytes > expected:
        raise UnreadableError(
            _damaged(file.name, f"{file.size_bytes - expected:,} bytes at its end belong to no tensor")
        )


def _cut_off(name: str, reason: str) -> Finding:
    return error("weights-cut-off", name, f"{name} is cut off ({reason})", _AGAIN)


def _damaged(name: str, reason: str) -> Finding:
    return error("weights-damaged", name, f"{name} is no sound safetensors file ({reason})", _AGAIN)
