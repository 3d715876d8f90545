"""What those who started a gateway see of it, and the folder its processes share."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.engines.supervisor import Supervisor
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running gateway. Ports are the real ones, also where 0 was asked for."""

    engines: Supervisor
    public_url: str
    admin_url: str


OnUp = Callable[[Gateway], Coroutine[Any, Any, None]]
"""What runs beside a gateway once both ports answer."""


@contextlib.contextmanager
def runtime_dir(settings: Settings) -> Iterator[Path]:
    """The folder for sockets, private to this user; a folder of our own making is removed at the end."""
    if settings.engines.runtime_dir is not None:
        settings.engines.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield settings.engines.runtime_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
