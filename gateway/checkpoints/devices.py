"""What engines run on, as far as it decides which packed weights they can load."""

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "cuda"]
"""Kinds of device that the gateway starts engines on."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device. What a processor can do is None for a GPU, and for a processor of another kind than x86."""

    kind: DeviceKind
    has_avx512: bool | None = None
    has_amx: bool | None = None
