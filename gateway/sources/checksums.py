"""Checksums by which the stores of this world tell what a file should be, computed over a file on disk."""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Checksum:
    """`value` in lower-case hexadecimal digits.

    `part_bytes` is the length of the parts of an `md5-parts`, which is a guess: only that of the first is known.
    """

    kind: str
    value: str
    part_bytes: int = 0


class _Sum(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    def __init__(self) -> None:
        import google_crc32c  # comes with google-cloud-storage, which alone asks for it

        self._extend = google_crc32c.extend
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._extend(self._value, data)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _PartsMd5:
    """The MD5 of the MD5s of all parts, as S3 tags what was uploaded in parts."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._left_bytes = part_bytes
        self._part = hashlib.md5(usedforsecurity=False)
        self._digests: list[bytes] = []

    def update(self, data: bytes, /) -> None:
        rest = memoryview(data)
        while rest:
            self._part.update(rest[: self._left_bytes])
            taken = min(self._left_bytes, len(rest))
            self._left_bytes -= taken
            rest = rest[taken:]
            if not self._left_bytes:
                self._close_part()

    def _close_part(self) -> None:
        self._digests.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._left_bytes = self._part_bytes

    def hexdigest(self) -> str:
        if self._left_bytes < self._part_bytes:
            self._close_part()
        return hashlib.md5(b"".join(self._digests), usedforsecurity=False).hexdigest()


_KINDS: dict[str, Callable[[Checksum, int], _Sum]] = {
    "sha256": lambda checksum, size: hashlib.sha256(),
    "sha1": lambda checksum, size: hashlib.sha1(usedforsecurity=False),
    "md5": lambda checksum, size: hashlib.md5(usedforsecurity=False),
    # Git counts a file's length in front of it among its bytes.
    "git": lambda checksum, size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
    "crc32": lambda checksum, size: _Crc32(),
    "crc32c": lambda checksum, size: _Crc32c(),
    "md5-parts": lambda checksum, size: _PartsMd5(checksum.part_bytes),
}


def add_up(path: Path, checksum: Checksum, note: Callable[[], None] = lambda: None) -> str:
    """What the file on disk adds up to by the checksum's kind. `note` is called now and then. Raises OSError."""
    with path.open("rb") as file:
        total = _KINDS[checksum.kind](checksum, path.stat().st_size)
        while piece := file.read(_PIECE_BYTES):
            total.update(piece)
            note()
    return total.hexdigest()
