"""What can go wrong with the disk of the cache, in words."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from gateway.sources.source import SourceFailed

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turns what the disk under `folder` refuses into SourceFailed. A full disk may have room again later."""
    try:
        yield
    except OSError as fault:
        raise _explain(fault, folder) from fault


def require_room(needed_bytes: int, folder: Path, what: str) -> None:
    """Raise SourceFailed if less is free under `folder`."""
    with explained(folder):
        free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        message = f"{what} needs {show_size(needed_bytes)} in {folder}, where {show_size(free_bytes)} are free"
        raise SourceFailed(f"{message}: make room, or set cache.dir to a larger disk", is_final=False)


def show_size(size_bytes: int) -> str:
    """A size as people read it."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _explain(fault: OSError, folder: Path) -> SourceFailed:
    if fault.errno in _NO_ROOM:
        return SourceFailed(
            f"the disk of {folder} is full: make room, or set cache.dir to a larger disk", is_final=False
        )
    if fault.errno == errno.EFBIG:
        message = f"files in {folder} may not grow as large as this one: raise the limit (ulimit -f), or set cache.dir"
        return SourceFailed(message, is_final=True)
    reason = fault.strerror or str(fault)
    message = f"the cache {folder} cannot be used ({reason}): give the user who runs the gateway the right to write it"
    return SourceFailed(f"{message}, or set cache.dir (GATEWAY_CACHE_DIR)", is_final=True)
