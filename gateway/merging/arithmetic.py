"""The numbers of a merge: what an adapter does to one tensor, in float32, and tensors to bytes and back.

Formulas: LoRA, W + s·B·A (Hu et al. 2021, arXiv:2106.09685), s = alpha / r, or alpha / sqrt(r) where rank is stabilised
(Kalajdzievski 2023, arXiv:2312.03732). DoRA, m · (W + s·B·A) / ‖W + s·B·A‖, norms over each output's inputs (Liu et al.
2024, arXiv:2402.09353).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_NATIVE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8")}
_BFLOAT_BITS = np.dtype("<u2")

NUMBER_TYPES = ("BF16", *_NATIVE)
"""Types of numbers that a merge can read and write."""


class Change(Protocol):
    """What happens to one tensor of the base."""

    def apply(self, weight: Floats) -> Floats:
        """The tensor as it is merged, of the same shape. `weight` may be written to."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """`a` is rank by inputs, `b` outputs by rank; `magnitude`, one number an output, makes it DoRA.

    `is_transposed` where the base stores inputs by outputs, as embeddings and GPT-2's layers do.
    """

    a: Floats
    b: Floats
    scale: float
    magnitude: Floats | None = None
    is_transposed: bool = False

    def apply(self, weight: Floats) -> Floats:
        """See `Change`."""
        plain = weight.T if self.is_transposed else weight
        merged = plain + self.scale * (self.b @ self.a)
        if self.magnitude is not None:
            norms = np.linalg.norm(merged, axis=1)
            merged *= (self.magnitude / norms)[:, None]
        return merged.T if self.is_transposed else merged


@dataclass(frozen=True, slots=True)
class Addition:
    """A bias of the adapter's, scaled, on top of the base's."""

    addend: Floats
    scale: float

    def apply(self, weight: Floats) -> Floats:
        """See `Change`."""
        weight += self.scale * self.addend
        return weight


@dataclass(frozen=True, slots=True)
class Replacement:
    """A tensor that was trained as a whole."""

    value: Floats

    def apply(self, weight: Floats) -> Floats:
        """See `Change`."""
        return self.value.reshape(weight.shape)


def decode(raw: bytes, dtype: str, shape: tuple[int, ...]) -> Floats:
    """The numbers of a stored tensor; a copy. `dtype` is one of NUMBER_TYPES."""
    if dtype == "BF16":
        bits = np.frombuffer(raw, _BFLOAT_BITS).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    values: Floats = np.frombuffer(raw, _NATIVE[dtype]).astype(np.float32)
    return values.reshape(shape)


def encode(values: Floats, dtype: str) -> bytes:
    """The bytes of a tensor as it is stored, each number rounded to the nearest, ties to even."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        return rounded.astype(_BFLOAT_BITS).tobytes()
    stored: NDArray[Any] = values.astype(_NATIVE[dtype])
    return stored.tobytes()


def is_finite(values: Floats) -> bool:
    """True if there is neither NaN nor infinity in it."""
    return bool(np.isfinite(values).all())
