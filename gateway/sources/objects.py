"""What object stores have in common: a folder is a beginning of names, and its revision follows from what is in it."""

import hashlib
from collections.abc import Iterable

from gateway.sources.checksums import Checksum
from gateway.sources.source import Listing, RemoteFile

MOST_OBJECTS = 20_000
"""As many objects are listed at most; no folder of a checkpoint comes near it."""


def list_objects(
    prefix: str, found: Iterable[tuple[str, int, str]], checksums: dict[str, Checksum] | None = None
) -> Listing:
    """The listing of a folder, from full names, sizes in bytes and tags; `checksums` by full names.

    Its revision is another one as soon as an object comes, goes or changes.
    """
    known = checksums or {}
    files = [
        RemoteFile(name.removeprefix(prefix), size_bytes, tag, known.get(name))
        for name, size_bytes, tag in found
        if not name.endswith("/")  # consoles make such objects to show empty folders
    ]
    state = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        state.update(f"{file.name}\0{file.size_bytes}\0{file.tag}\n".encode())
    return Listing(state.hexdigest()[:40], tuple(files))
