"""What engines run on, as far as it decides which packed weights they can load."""

from dataclasses import dataclass
from typing import Literal

HardwareKind = Literal["cpu", "cuda"]
"""Kinds that the gateway starts engines on."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A GPU or a processor. What a processor can do is None for a GPU, and for a processor of another kind than x86."""

    kind: HardwareKind
    has_avx512: bool | None = None
    has_amx: bool | None = None
