"""Rules that look into a few kilobytes of weights: NaN and infinity, and a head that nobody will use."""

import sys
from array import array
from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.files import Folder
from gateway.checkpoints.findings import Finding, UnreadableError, error, make_printable, warning
from gateway.checkpoints.manifest import find_tied
from gateway.checkpoints.rules.shapes import find_embedding
from gateway.checkpoints.safetensors import Tensor
from gateway.checkpoints.weights import Weights

_MOST_TENSORS = 24
_SAMPLE_BYTES = 4096

# A number is NaN or infinite exactly if all bits of its exponent are set.
_EXPONENTS = {
    "BF16": ("H", 0x7F80),
    "F16": ("H", 0x7C00),
    "F32": ("I", 0x7F80_0000),
    "F64": ("Q", 0x7FF0_0000_0000_0000),
}


def judge_samples(folder: Folder, weights: Weights) -> Iterator[Finding]:
    """A finding for each file in whose samples such a number was met."""
    chosen: dict[str, list[Tensor]] = {}
    for tensor in _choose(weights):
        chosen.setdefault(tensor.file, []).append(tensor)
    for name, tensors in chosen.items():
        try:
            with folder.open(name) as file:
                bad = next((t for t in tensors if _has_bad(t, file.read(_count_bytes(t), t.start))), None)
        except UnreadableError as fault:
            yield fault.finding
            continue
        if bad is not None:
            message = f"{name}: {make_printable(bad.name)} holds NaN or infinity; training has diverged or saving broke"
            yield error("weights-not-finite", name, message, "take an earlier checkpoint of the training")


def judge_tied_head(contents: Contents) -> Iterator[Finding]:
    """A finding if the weights hold an output head of their own that config.json tells the engine to leave aside."""
    tensors = contents.weights.tensors
    head = next((tensor for name, tensor in tensors.items() if f".{name}".endswith(".lm_head.weight")), None)
    embedding = find_embedding(tensors)
    if head is None or embedding is None or not find_tied(contents):
        return
    if (head.dtype, head.shape) == (embedding.dtype, embedding.shape) and _is_same(contents.folder, head, embedding):
        return
    message = f"{head.file} has an lm_head.weight other than the embeddings, but config.json says that they are tied"
    mend = "set tie_word_embeddings to false if training changed the head; the engine leaves it aside as it is"
    yield warning("head-unused", head.file, message, mend)


def _is_same(folder: Folder, one: Tensor, other: Tensor) -> bool:
    try:
        with folder.open(one.file) as first, folder.open(other.file) as second:
            return first.read(_count_bytes(one), one.start) == second.read(_count_bytes(other), other.start)
    except UnreadableError:
        return True


def _choose(weights: Weights) -> list[Tensor]:
    # Buffers such as masks hold infinity on purpose; they are never called weight.
    usable = [t for t in weights.tensors.values() if t.dtype in _EXPONENTS and t.size_bytes and _is_parameter(t)]
    usable.sort(key=lambda tensor: tensor.name)
    step = max(1, -(-len(usable) // _MOST_TENSORS))
    return usable[::step]


def _is_parameter(tensor: Tensor) -> bool:
    return tensor.name.endswith(".weight") or tensor.name == "weight"


def _count_bytes(tensor: Tensor) -> int:
    return min(tensor.size_bytes, _SAMPLE_BYTES)


def _has_bad(tensor: Tensor, raw: bytes) -> bool:
    code, mask = _EXPONENTS[tensor.dtype]
    numbers = array(code)
    numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return any(number & mask == mask for number in numbers)
