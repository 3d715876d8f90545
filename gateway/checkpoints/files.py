"""Reading inside one folder: bounded, never following a name out of it, never opening what is no plain file.

Owns the listing of the folder and what is odd about its files. Writes nothing.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.checkpoints.findings import Finding, UnreadableError, error, warning

DOCUMENT_LIMIT_BYTES = 16 * 2**20
"""The longest configuration file that is read."""

_POINTER_START = b"version https://git-lfs"
_POINTER_LIMIT_BYTES = 1024
_MOST_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder. `size_bytes` is that of the file a link leads to; None where there is no plain file."""

    name: str
    is_folder: bool
    size_bytes: int | None
    is_link: bool


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it was when it was listed."""

    path: Path
    entries: Mapping[str, Entry]

    def has(self, name: str) -> bool:
        """True if `name` is there and is no folder, readable or not."""
        entry = self.entries.get(name)
        return entry is not None and not entry.is_folder

    def find(self, pattern: str) -> list[str]:
        """Names of files that match a regular expression as a whole, sorted."""
        matches = re.compile(pattern).fullmatch
        return sorted(name for name, entry in self.entries.items() if not entry.is_folder and matches(name))

    def find_folders(self, pattern: str) -> list[str]:
        """Names of subfolders that match a regular expression as a whole, sorted."""
        matches = re.compile(pattern).fullmatch
        return sorted(name for name, entry in self.entries.items() if entry.is_folder and matches(name))

    def measure(self, name: str) -> int:
        """The size of a file in bytes, 0 where it has none."""
        entry = self.entries.get(name)
        return entry.size_bytes or 0 if entry else 0

    def read(self, name: str, limit_bytes: int = DOCUMENT_LIMIT_BYTES) -> bytes:
        """All bytes of a file. Raises `UnreadableError` for what is missing, too long, empty, or no plain file."""
        if self.has(name) and self.measure(name) > limit_bytes:
            message = f"{name} has {self.measure(name):,} bytes, more than such a file can have ({limit_bytes:,})"
            raise UnreadableError(error("file-too-long", name, message, "replace it by the file that training wrote"))
        with self.open(name) as file:
            return file.read(limit_bytes, 0)

    def open(self, name: str) -> "OpenFile":
        """Open a plain file of this folder for reading. Raises `UnreadableError`; never waits for a pipe."""
        if not self.has(name):
            raise UnreadableError(
                error("file-missing", name, f"{name} is missing", "copy it from where the training wrote")
            )
        path = self.path / name
        try:
            _require_plain(name, path.stat().st_mode)
            # O_NONBLOCK: the name may have become a pipe since it was looked at.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as fault:
            raise UnreadableError(_explain(name, fault)) from fault
        file = OpenFile(name, descriptor)
        try:
            _require_plain(name, os.fstat(descriptor).st_mode)
            _require_content(name, file)
        except UnreadableError:
            file.close()
            raise
        return file

    def read_json(self, name: str, limit_bytes: int = DOCUMENT_LIMIT_BYTES) -> dict[str, object]:
        """The JSON object in a file. Raises `UnreadableError` with line and column where it is broken."""
        raw = self.read(name, limit_bytes)
        mend = "replace it by the file that training wrote"
        try:
            data: object = json.loads(raw.decode("utf-8-sig"))
        except UnicodeDecodeError as fault:
            finding = error("json-broken", name, f"{name} is not UTF-8 text (byte {fault.start})", mend)
            raise UnreadableError(finding) from fault
        except json.JSONDecodeError as fault:
            place = f"line {fault.lineno}, column {fault.colno}"
            raise UnreadableError(
                error("json-broken", name, f"{name} is no JSON ({fault.msg}, {place})", mend)
            ) from fault
        except (RecursionError, ValueError) as fault:
            # ValueError: an integer of more digits than Python converts.
            finding = error("json-broken", name, f"{name} holds values no configuration has, nested or long", mend)
            raise UnreadableError(finding) from fault
        if not isinstance(data, dict):
            raise UnreadableError(error("json-broken", name, f"{name} holds no JSON object", mend))
        return data


class OpenFile:
    """A plain file that is read at given places. A context manager."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.size_bytes = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def read(self, count: int, offset: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end of the file. Raises `UnreadableError`."""
        parts: list[bytes] = []
        try:
            while count > 0 and (part := os.pread(self._descriptor, min(count, 2**30), offset)):
                parts.append(part)
                count -= len(part)
                offset += len(part)
        except OSError as fault:
            raise UnreadableError(_explain(self.name, fault)) from fault
        return b"".join(parts)


def list_folder(path: Path) -> Folder:
    """List a folder. Raises `UnreadableError` where there is none, or none that can be read."""
    mend = "check the path; give the folder that holds config.json"
    try:
        if not path.exists():
            raise UnreadableError(error("folder-missing", "", f"{path} does not exist", mend))
        if not path.is_dir():
            raise UnreadableError(error("folder-missing", "", f"{path} is a file, not a folder", mend))
        with os.scandir(path) as found:
            entries = {}
            for entry in found:
                entries[entry.name] = _look_at(entry)
                if len(entries) > _MOST_ENTRIES:
                    finding = error("folder-unknown", "", f"{path} holds more than {_MOST_ENTRIES:,} files", mend)
                    raise UnreadableError(finding)
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else str(fault)
        mend = "give the user who runs the gateway the right to read and enter it"
        raise UnreadableError(error("folder-unreadable", "", f"{path} cannot be read ({reason})", mend)) from fault
    if not entries:
        raise UnreadableError(
            error("folder-empty", "", f"{path} is empty", "copy the checkpoint there, or check the path")
        )
    return Folder(path, entries)


def find_odd_links(folder: Folder) -> Iterator[Finding]:
    """Links that lead nowhere or out of the folder. A Hugging Face cache links into its own blobs: that is fine."""
    root = folder.path.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    for name, entry in sorted(folder.entries.items()):
        if not entry.is_link:
            continue
        try:
            target = (folder.path / name).resolve()
            is_lost = not target.exists()
        except (OSError, RuntimeError):
            target, is_lost = root, True
        if is_lost:
            message = f"{name} is a link that leads nowhere"
            yield error("link-broken", name, message, "copy the file itself into the folder, or download it again")
        elif not any(target.is_relative_to(home) for home in homes):
            message = f"{name} is a link out of the folder, to {target}"
            yield warning("link-outside", name, message, "copy the file in, so that the folder is whole (cp -L)")


def _look_at(entry: "os.DirEntry[str]") -> Entry:
    try:
        facts = entry.stat()
    except OSError:
        return Entry(entry.name, is_folder=False, size_bytes=None, is_link=entry.is_symlink())
    is_plain = stat.S_ISREG(facts.st_mode)
    size_bytes = facts.st_size if is_plain else None
    return Entry(entry.name, stat.S_ISDIR(facts.st_mode), size_bytes, entry.is_symlink())


def _require_plain(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        message = f"{name} is no plain file but a pipe, a socket or a device"
        raise UnreadableError(error("file-unreadable", name, message, "replace it by the file that training wrote"))


def _require_content(name: str, file: OpenFile) -> None:
    if file.size_bytes == 0:
        raise UnreadableError(error("file-empty", name, f"{name} is empty", "copy or download the file again"))
    if file.size_bytes <= _POINTER_LIMIT_BYTES and file.read(len(_POINTER_START), 0) == _POINTER_START:
        message = f"{name} is a Git LFS pointer, not the file itself"
        raise UnreadableError(error("lfs-pointer", name, message, "run `git lfs pull` in the repository it came from"))


def _explain(name: str, fault: OSError) -> Finding:
    if isinstance(fault, FileNotFoundError):
        return _miss(name)
    mend = "give the user who runs the gateway the right to read it"
    return error("file-unreadable", name, f"{name} cannot be read ({fault.strerror})", mend)


def _miss(name: str) -> Finding:
    return error("file-missing", name, f"{name} is missing", "copy it from where the training wrote it")
