"""The files of one revision onto the disk: several at once, each on from where it stopped, each verified."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from typing import BinaryIO

from gateway.sources.attempts import Attempts, FetchTiming
from gateway.sources.cache import PARTIAL, measure, sync_folder
from gateway.sources.checksums import Checksum, add_up
from gateway.sources.disk import explained, require_room
from gateway.sources.source import FetchCancelled, RemoteFile, Source, SourceFailed, describe_fault
from gateway.sources.threads import start_thread

Told = Callable[[int, int], None]
"""Is told now and then how many bytes are there and how many there will be."""

_PROGRESS_BYTES = 2**20
"""So much more of a file makes up for earlier failures: a line that only trickles comes to an end."""


class Meter:
    """Counts bytes of all files together. Each of `ends` ends the work of all who count."""

    def __init__(self, ends: Sequence[threading.Event]) -> None:
        self._ends = ends
        self._lock = threading.Lock()
        self.done_bytes = 0

    def add(self, count: int) -> None:
        """So many bytes more, or with a negative count fewer. Raises FetchCancelled."""
        self.check()
        with self._lock:
            self.done_bytes += count

    def check(self) -> None:
        """Raise FetchCancelled if nobody wants it any more."""
        if any(end.is_set() for end in self._ends):
            raise FetchCancelled


class Download:
    """Fetches `files` of a source into the folder `staging`; `place` names the source in messages."""

    def __init__(
        self,
        place: str,
        source: Source,
        files: Sequence[RemoteFile],
        staging: Path,
        told: Told,
        cancelled: threading.Event,
        timing: FetchTiming,
    ) -> None:
        self._place = place
        self._source = source
        self._files = files
        self._staging = staging
        self._cancelled = cancelled
        self._timing = timing
        self._ended = threading.Event()  # set for all files when one has failed, or when it is cancelled
        self._total_bytes = sum(file.size_bytes for file in files)
        self._told = told
        self._meter = Meter((cancelled, self._ended))

    def run(self) -> None:
        """Fetch them all. Raises SourceFailed or FetchCancelled; what has come by then is kept for the next time."""
        with explained(self._staging):
            there_bytes = sum(min(self._measure(file), file.size_bytes) for file in self._files)
        require_room(self._total_bytes - there_bytes, self._staging, self._place)
        queue = deque(self._files)
        workers = [
            start_thread(lambda: self._work(queue), "fetch") for _ in range(min(self._timing.workers, len(queue)))
        ]
        try:
            self._wait(workers)
        finally:
            self._ended.set()
            wait(workers)
        for worker in workers:
            # One that was ended because another one failed has nothing to tell.
            if not isinstance(worker.exception(), FetchCancelled):
                worker.result()
        if self._cancelled.is_set():
            raise FetchCancelled

    def _work(self, queue: deque[RemoteFile]) -> None:
        while queue:
            try:
                file = queue.popleft()
            except IndexError:  # another one took the last
                return
            self._meter.check()
            self._fetch(file)

    def _wait(self, futures: "list[Future[None]]") -> None:
        while not self._cancelled.is_set():
            done, left = wait(futures, timeout=self._timing.poll_s, return_when=FIRST_EXCEPTION)
            self._told(self._meter.done_bytes, self._total_bytes)
            if not left or any(future.exception() for future in done):
                return

    def _measure(self, file: RemoteFile) -> int:
        """How much of a file is there, whole or not."""
        for name in (file.name, file.name + PARTIAL):
            if (size_bytes := measure(self._staging / name)) is not None:
                return size_bytes
        return 0

    def _fetch(self, file: RemoteFile) -> None:
        path = self._staging / file.name
        partial = path.with_name(path.name + PARTIAL)
        with explained(self._staging):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_there = measure(path) == file.size_bytes
        if is_there:
            self._meter.add(file.size_bytes)  # it has got its name only when it was right
            return
        found: list[str] = []
        while not self._fetch_once(file, partial, found):
            if len(found) < 2:
                continue
            message = f"{file.name} came twice from {self._place} with other bytes than were announced"
            raise SourceFailed(f"{message}: upload it again, or look for what changes it on the way", is_final=True)
        with explained(self._staging):
            partial.replace(path)
            sync_folder(path.parent)

    def _fetch_once(self, file: RemoteFile, partial: Path, found: list[str]) -> bool:
        """Fetch what is missing of a file and say whether it is right; of one that is not, nothing is left.

        What it adds up to instead is put with what was `found` before.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with explained(self._staging), os.fdopen(os.open(partial, flags, 0o666), "ab") as out:
            self._fill(file, out)
            os.fsync(out.fileno())
        checksum = self._ask_checksum(file)
        with explained(self._staging):
            total = "" if checksum is None else add_up(partial, checksum, self._meter.check)
            # Where parts of an upload end is a guess: what comes twice with the same bytes was guessed wrongly.
            is_alike = checksum is not None and checksum.kind == "md5-parts" and total in found
            if checksum is None or total == checksum.value or is_alike:
                return True
            found.append(total)
            partial.unlink()
        self._meter.add(-file.size_bytes)
        return False

    def _fill(self, file: RemoteFile, out: BinaryIO) -> None:
        attempts = Attempts(self._timing, self._ended)
        if out.tell() > file.size_bytes:
            out.seek(0)
            out.truncate()
        self._meter.add(out.tell())
        counted_bytes = out.tell()

        def take(piece: bytes) -> None:
            if out.tell() + len(piece) > file.size_bytes:
                raise SourceFailed(f"{file.name} in {self._place} goes on past its announced size", is_final=True)
            with explained(self._staging):
                out.write(piece)
            self._meter.add(len(piece))

        while (before := out.tell()) < file.size_bytes:
            failure = SourceFailed(f"{file.name} from {self._place} broke off again and again", is_final=False)
            try:
                self._source.read(file, before, take)
            except SourceFailed as failed:
                failure = failed
            except OSError as fault:  # of the line: those of the disk are explained by now
                failure = SourceFailed(
                    f"{file.name} from {self._place} broke off: {describe_fault(fault)}", is_final=False
                )
            with explained(self._staging):
                out.flush()
            if out.tell() >= counted_bytes + _PROGRESS_BYTES:
                counted_bytes = out.tell()
                attempts.start_over()
            if out.tell() < file.size_bytes:
                attempts.fail(failure)

    def _ask_checksum(self, file: RemoteFile) -> Checksum | None:
        attempts = Attempts(self._timing, self._ended)
        while True:
            try:
                return self._source.find_checksum(file)
            except SourceFailed as failure:
                attempts.fail(failure)
