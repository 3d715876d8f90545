"""What object stores have in common: a folder is a beginning of names, and its revision follows from what is in it."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from gateway.sources.selection import is_wanted
from gateway.sources.source import Listing, RemoteFile

MOST_OBJECTS = 20_000
"""As many objects are listed at most; no folder of a checkpoint comes near it."""


def list_objects(prefix: str, found: Iterable[RemoteFile]) -> Listing:
    """The listing of a folder, from objects by their full names.

    Its revision is another one as soon as an object that is wanted comes, goes or changes.
    """
    files = [
        replace(file, name=file.name.removeprefix(prefix))
        for file in found
        if not file.name.endswith("/")  # consoles make such objects to show empty folders
    ]
    state = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        if is_wanted(file.name):
            state.update(f"{file.name}\0{file.size_bytes}\0{file.tag}\n".encode())
    return Listing(state.hexdigest()[:40], tuple(files))
