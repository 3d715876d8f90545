"""Finds the weights of a folder: which files the engine will load, and every tensor in them by name.

Follows the engine's own choice: `consolidated*.safetensors` before the rest, an index before the listing.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import msgspec

from gateway.checkpoints.files import Folder
from gateway.checkpoints.findings import Finding, UnreadableError, error, join_names, make_printable, warning
from gateway.checkpoints.safetensors import Tensor, read_tensors

INDEX = "model.safetensors.index.json"
_CONSOLIDATED_INDEX = "consolidated.safetensors.index.json"
_INDEX_LIMIT_BYTES = 64 * 2**20
_SHARD = re.compile(r"(.+)-(\d{5,})-of-(\d{5,})\.safetensors")
_PICKLES = r"(pytorch_model|model|adapter_model|consolidated)[^/]*\.(bin|pt|pth|ckpt)"
_TRAINING_PARTS = r"(global_step\d+|pytorch_model_fsdp_\d+|\.metadata|.*\.distcp|.*_model_states\.pt)"


@dataclass(frozen=True, slots=True)
class Weights:
    """Every tensor the engine will see, and what was wrong on the way to it. No tensor twice."""

    files: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True if every file could be read, so that what is not among the tensors is missing."""
        return bool(self.tensors) and not any(finding.severity == "error" for finding in self.findings)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    def count_by_dtype(self) -> dict[str, tuple[int, int]]:
        """For each type of number, most bytes first: how many values, how many bytes."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.dtype] += tensor.count
            sizes[tensor.dtype] += tensor.size_bytes
        return {dtype: (counts[dtype], size) for dtype, size in sizes.most_common()}


def read_weights(folder: Folder) -> Weights:
    """Read the headers of a full checkpoint's weights. Never raises; what is wrong is among the findings."""
    consolidated = folder.find(r"consolidated.*\.safetensors")
    files = consolidated or folder.find(r".*\.safetensors")
    index = _CONSOLIDATED_INDEX if consolidated else INDEX
    if folder.has(index):
        try:
            placed = _read_index(folder, index)
        except UnreadableError as fault:
            return Weights(findings=(fault.finding,))
        return _read_indexed(folder, index, placed)
    files = [name for name in files if name != "adapter_model.safetensors"]
    if not files:
        return Weights(findings=(_explain_missing(folder),))
    return _read_files(folder, files, list(_find_lost_shards(files)))


def read_adapter_weights(folder: Folder) -> Weights:
    """Read the header of an adapter's weights, as `read_weights` does."""
    name = "adapter_model.safetensors"
    if folder.has(name):
        return _read_files(folder, [name], [])
    pickles = folder.find(r"adapter_model\.(bin|pt)")
    if pickles:
        message = f"{name} is missing, and the pickle {pickles[0]} is not loaded, since a pickle can run any code"
        mend = "load the adapter with PEFT and save it again with save_pretrained(..., safe_serialization=True)"
        return Weights(findings=(error("weights-pickle", pickles[0], message, mend),))
    mend = "save the adapter again with PEFT's save_pretrained"
    return Weights(findings=(error("weights-missing", name, f"{name} is missing", mend),))


def _read_files(folder: Folder, files: list[str], findings: list[Finding]) -> Weights:
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            with folder.open(name) as file:
                found = read_tensors(file)
        except UnreadableError as fault:
            findings.append(fault.finding)
            continue
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            message = f"{name} holds tensors that {tensors[twice[0]].file} holds too ({join_names(twice)})"
            mend = "keep one set of weights in the folder"
            findings.append(warning("weights-twice", name, message, mend))
        tensors.update(found)
    if not tensors and not findings:
        mend = "save the model again with save_pretrained"
        findings.append(error("weights-missing", files[0], f"{files[0]} holds no tensors", mend))
    return Weights(tuple(files), tensors, tuple(findings))


def _read_index(folder: Folder, index: str) -> dict[str, str]:
    class Index(msgspec.Struct):
        weight_map: dict[str, str]

    mend = "save the model again with save_pretrained, or copy the index again"
    raw = folder.read(index, _INDEX_LIMIT_BYTES)
    try:
        placed = msgspec.json.decode(raw, type=Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        message = f"{index} is no index of weights ({fault})"
        raise UnreadableError(error("index-broken", index, message, mend)) from fault
    for file in sorted(set(placed.values())):
        if PurePosixPath(file).name != file or "\\" in file or "\0" in file:
            message = f"{index} names a file outside the folder, {make_printable(file)!r}"
            raise UnreadableError(
                error("index-escapes", index, message, "do not serve it before you know where it is from")
            )
    if not placed:
        raise UnreadableError(error("index-broken", index, f"{index} names no tensors", mend))
    return placed


def _read_indexed(folder: Folder, index: str, placed: Mapping[str, str]) -> Weights:
    names = sorted(set(placed.values()))
    lost = [name for name in names if not folder.has(name)]
    findings = []
    if lost:
        message = f"{index} names {len(lost)} of {len(names)} files that are not there ({join_names(lost)})"
        findings.append(error("shards-missing", index, message, "copy or download the missing files"))
    weights = _read_files(folder, [name for name in names if name not in lost], findings)
    if not weights.is_whole:
        return weights
    missing = [name for name, file in placed.items() if (t := weights.tensors.get(name)) is None or t.file != file]
    extra = [name for name in weights.tensors if name not in placed]
    found = list(_compare_index(index, placed, missing, extra))
    return Weights(weights.files, weights.tensors, (*weights.findings, *found))


def _compare_index(index: str, placed: Mapping[str, str], missing: list[str], extra: list[str]) -> Iterator[Finding]:
    mend = "the index and the shards are from two different saves: copy both from the same one"
    if missing:
        message = (
            f"{index} places {len(missing)} tensors where they are not, "
            f"first {make_printable(missing[0])} in {placed[missing[0]]}"
        )
        yield error("index-mismatch", index, message, mend)
    elif extra:
        message = f"{index} does not name {len(extra)} tensors that the shards hold ({join_names(extra)})"
        yield warning("index-mismatch", index, message, mend)


def _find_lost_shards(files: list[str]) -> Iterator[Finding]:
    shards = [match for name in files if (match := _SHARD.fullmatch(name))]
    for stem, total in sorted({(match[1], match[3]) for match in shards}):
        present = {int(match[2]) for match in shards if (match[1], match[3]) == (stem, total)}
        if len(present) < int(total):
            message = f"{stem}-*.safetensors: {len(present)} of {int(total)} shards are there"
            mend = f"copy or download the missing shards, and {stem}.safetensors.index.json"
            yield error("shards-missing", f"{stem}-*.safetensors", message, mend)


def _explain_missing(folder: Folder) -> Finding:
    parts = [*folder.find_folders(_TRAINING_PARTS), *folder.find(_TRAINING_PARTS)]
    if parts:
        message = f"model.safetensors is missing; {parts[0]} is a trainer's state in pieces"
        mend = "put it together with the trainer's own tool (zero_to_fp32.py, accelerate merge-weights) and save it"
        return error("weights-in-pieces", parts[0], message, mend)
    pickles = folder.find(_PICKLES)
    if pickles:
        message = f"model.safetensors is missing, and the pickle {pickles[0]} is not loaded: a pickle can run any code"
        mend = "load it with from_pretrained where you trust it, and save_pretrained(..., safe_serialization=True)"
        return error("weights-pickle", pickles[0], message, mend)
    others = folder.find(r".*\.(gguf|h5|msgpack|onnx|nemo|tflite)")
    mend = "save the model with save_pretrained, which writes safetensors"
    if others:
        message = f"model.safetensors is missing; weights of the kind of {others[0]} are not served"
        return error("weights-missing", others[0], message, mend)
    return error("weights-missing", "model.safetensors", "model.safetensors is missing", mend)
