"""What a source of checkpoints is: a listing of files, and their bytes from any place on. Values and the protocol."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.sources.checksums import Checksum

Sink = Callable[[bytes], None]
"""Takes the next bytes of a file; raises to end the reading."""


class SourceFailed(Exception):
    """Files cannot be had; the message is a sentence for people. `is_final` if trying again cannot help."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


class NotAsked(SourceFailed):
    """The other side is not to be asked: final, but what was fetched before may be used."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_final=True)


def describe_fault(fault: BaseException) -> str:
    """A library's fault in its own words, by its kind alone where it has none, or an address: it may hold a login."""
    said = str(fault)
    return type(fault).__name__ if not said or "://" in said else said


def hide_login(url: str) -> str:
    """An address as people may see it, without the user and password in it."""
    return re.sub(r"//[^/?#]*@", "//", url)


class FetchCancelled(Exception):
    """Whoever asked for it does not want it any more."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file elsewhere: its `name` within the folder, as the other side gives it, so it may be any text.

    `tag` tells these contents from others of the same name.
    """

    name: str
    size_bytes: int
    tag: str
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder elsewhere. What has the same `revision` has the same files, for ever."""

    revision: str
    files: tuple[RemoteFile, ...]


class Source(Protocol):
    """One folder elsewhere. Calls block; several may run at once, from threads of their own.

    Each raises SourceFailed, and nothing else of its own.
    """

    def list_files(self) -> Listing:
        """Ask what is there now."""

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        """Hand the bytes of a file from `offset` on to the sink, to the end or as far as they come."""

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        """What the bytes of a file must add up to, None where the other side does not say."""
