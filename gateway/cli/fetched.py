"""What is given to a command as a folder, or as the address of one: fetched, with its progress on a terminal."""

import os
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gateway.checkpoints.findings import make_printable
from gateway.settings import SettingsError, is_address, load, parse_address


class NoFolder(Exception):
    """There is no folder to work with; the message is for people. `code` is the exit code that says so."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def find_folder(given: str, cache_dir: str | None = None) -> Path:
    """The folder itself; of an address the one in the cache, by the settings or `cache_dir`. Raises NoFolder."""
    if not is_address(given):
        return Path(given)
    # Late, since most folders are folders.
    from gateway.sources import SourceFailed, open_source
    from gateway.sources.attempts import FetchTiming
    from gateway.sources.cache import Cache
    from gateway.sources.fetching import fetch

    try:
        address = parse_address(given)
        folder = load(None, {"cache.dir": cache_dir}, os.environ).cache.folder
    except ValueError as error:
        raise NoFolder(f"an address {error}", 2) from error
    except SettingsError as error:
        raise NoFolder(f"the settings can't be used:\n{error}", 2) from error
    with _make_progress() as progress:
        task = progress.add_task(make_printable(str(address)), total=None)

        def tell(done_bytes: int, total_bytes: int) -> None:
            progress.update(task, completed=done_bytes, total=total_bytes)

        cancelled = threading.Event()
        try:
            fetched = fetch(address, Cache(folder), open_source, tell, cancelled, FetchTiming())
        except SourceFailed as failure:
            raise NoFolder(make_printable(str(failure), None), 1) from failure
        finally:
            cancelled.set()
    if fetched.note is not None:
        print(make_printable(fetched.note, None), file=sys.stderr)
    return fetched.folder


def _make_progress() -> Progress:
    # On standard error: what a command finds goes to programs too.
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
