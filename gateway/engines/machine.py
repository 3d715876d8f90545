"""What this machine gives an engine: processor cores and memory, the limits of its container included."""

import os
from dataclasses import dataclass
from pathlib import Path

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """Cores this process may use and memory it may fill."""

    cores: int
    memory_bytes: int

    @classmethod
    def here(cls) -> "Machine":
        """The machine, or container, that this process runs on."""
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limits = [limit for path in _MEMORY_LIMITS if (limit := _read_limit(path)) is not None]
        return cls(cores=_usable_cores(), memory_bytes=min([physical, *limits]))


def _usable_cores() -> int:
    # Not on every system; where it is, it honours a pinned container.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
