"""The cache on disk: a folder for each source, in it one for each revision, which has its name when it is whole.

hf/org--name-0123456789ab/
  lock                  held by the process that fetches
  known.json            which revision a branch, or no branch, meant when it was last asked for
  REVISION.json         what belongs to the revision, and what its files are
  REVISION/             whole and verified
  REVISION.WHAT.partial/   on its way, for the branch, or whatever else was asked for
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.settings.addresses import SourceAddress
from gateway.sources.disk import explained
from gateway.sources.source import FetchCancelled, RemoteFile, SourceFailed

PARTIAL = ".partial"
"""Ends the name of what is not whole."""

_LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Known:
    """The revision that an address meant, and when it was asked for, in seconds since the epoch."""

    revision: str
    asked_at: float


class Entry:
    """One source in the cache. Every method may raise SourceFailed for what the disk does not let it do."""

    def __init__(self, folder: Path, address: SourceAddress) -> None:
        self.folder = folder
        self._address = address
        self._asked = hashlib.sha256((address.revision or "").encode()).hexdigest()[:8]

    def find(self, revision: str) -> Path | None:
        """The folder of a revision, if it is there and whole."""
        folder = self.folder / revision
        with explained(self.folder):
            files = _read_json(self.folder / f"{revision}.json").get("files")
            is_whole = isinstance(files, dict) and all(measure(folder / name) == size for name, size in files.items())
        return folder if is_whole else None

    def recall(self) -> Known | None:
        """What the address meant when it was last asked for."""
        with explained(self.folder):
            known = _read_json(self.folder / "known.json").get(self._address.revision or "")
        match known:
            case {"revision": str(revision), "asked_at": float(asked_at)}:
                return Known(revision, asked_at)
        return None

    def remember(self, revision: str) -> None:
        """What the address means now. Of two who write at once, the last one's is kept."""
        with explained(self.folder):
            path = self.folder / "known.json"
            now = {"revision": revision, "asked_at": time.time()}
            _write_json(path, _read_json(path) | {self._address.revision or "": now})

    @contextlib.contextmanager
    def lock(self, cancelled: threading.Event) -> Iterator[None]:
        """Be the only one, of all threads and processes, that fetches this source. Raises FetchCancelled."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while not _try_lock(descriptor):
                if cancelled.wait(_LOCK_POLL_S):
                    raise FetchCancelled
            yield
        finally:
            os.close(descriptor)

    def prepare(self, revision: str) -> Path:
        """The folder that a revision is fetched into, with what is there of it already. Called under the lock."""
        staging = self._find_staging(revision)
        with explained(self.folder):
            for left in self.folder.glob(f"*.{self._asked}{PARTIAL}"):
                if left != staging:  # of a revision that the address does not mean any more
                    shutil.rmtree(left, ignore_errors=True)
            staging.mkdir(exist_ok=True)
        return staging

    def reuse(self, revision: str, files: Sequence[RemoteFile]) -> None:
        """Let the revision share with earlier ones the files that are the same. Called under the lock, after `prepare`.

        A disk that has no links is no fault: then they are fetched.
        """
        staging = self._find_staging(revision)
        with contextlib.suppress(OSError):
            for earlier, marks in list(self._list_whole()):
                for file in files:
                    place = staging / file.name
                    if marks.get(file.name) == _mark(file) and measure(place) is None:
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.hardlink_to(earlier / file.name)

    def _list_whole(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The folders of all revisions that are whole, with what is known of their files."""
        for record in self.folder.glob("*.json"):
            marks = _read_json(record).get("marks")
            if isinstance(marks, dict) and (folder := self.find(record.stem)) is not None:
                yield folder, marks

    def publish(self, revision: str, files: Sequence[RemoteFile]) -> Path:
        """Give what was fetched its name, in one step. Called under the lock. SourceFailed if it is not whole."""
        staging, folder = self._find_staging(revision), self.folder / revision
        with explained(self.folder):
            _remove_strangers(staging, {file.name for file in files})
            record = {
                "address": str(self._address),
                "fetched_at": time.time(),
                "files": {file.name: file.size_bytes for file in files},
                "marks": {file.name: _mark(file) for file in files},
            }
            _write_json(self.folder / f"{revision}.json", record)
            if folder.exists():  # not whole, or it would not have been fetched
                shutil.rmtree(folder)
            staging.rename(folder)
            sync_folder(self.folder)
        found = self.find(revision)
        if found is None:
            raise SourceFailed(f"{folder} was changed while it was fetched: find out by whom", is_final=False)
        return found

    def _find_staging(self, revision: str) -> Path:
        return self.folder / f"{revision}.{self._asked}{PARTIAL}"


class Cache:
    """The cache folder. Touches nothing until something is fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, address: SourceAddress) -> Entry:
        """The place of a source: of the same repository or bucket and folder, whatever the revision."""
        whole = f"{address.place}/{address.path}".rstrip("/")
        readable = re.sub(r"[^A-Za-z0-9._-]", "-", whole.replace("/", "--"))[-80:].lstrip("-.")
        digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
        return Entry(self.folder / address.kind / f"{readable}-{digest}", address)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def measure(path: Path) -> int | None:
    """The size of a file in bytes, None if there is none: a link is not followed. Raises OSError."""
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def _mark(file: RemoteFile) -> list[object]:
    """What is the same for the same contents only."""
    seen = (file.checksum.kind, file.checksum.value) if file.checksum is not None else ("tag", file.tag)
    return [file.size_bytes, *seen]


def _remove_strangers(staging: Path, names: set[str]) -> None:
    """Take away what an earlier attempt left there that does not belong to the revision."""
    for path in list(staging.rglob("*")):
        if not path.is_dir() and str(path.relative_to(staging)) not in names:
            path.unlink()


def _read_json(path: Path) -> dict[str, Any]:
    """A document of our own; empty where there is none, or none that can be read."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    with partial.open("w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
