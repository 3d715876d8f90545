"""Rules about the list of layers that are not packed: the weights must be of the kind that it says.

FP8 (`modules_to_not_convert`, `ignored_layers`) and compressed-tensors (`ignore`). Names of families that an engine
gives other names are compared by their ends, and patterns only if they are plain: a finding is certain.
"""

import re
from collections.abc import Iterator, Mapping

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, make_printable
from gateway.checkpoints.packing import PackedLayer, Packing

_KEYS = {"compressed-tensors": ("ignore",), "fp8": ("ignored_layers", "modules_to_not_convert")}
_FUSED = ("qkv_proj", "gate_up_proj")  # names that stand for several layers
# Others could take for ever to match.
_PLAIN_PATTERN = re.compile(r"(?:[\w^$-]|\\?\.(?!\*)|\.\*){1,200}")
_MOST_STARS = 3
_SAME_SAVE = "copy the weights and config.json of one save"


def judge_ignored(contents: Contents, packing: Packing, layers: Mapping[str, PackedLayer]) -> Iterator[Finding]:
    """Findings about layers that are packed though they are listed, and not packed though they are not."""
    if packing.method not in _KEYS:
        return
    listed = tuple(entry for key in _KEYS[packing.method] for entry in packing.settings.texts(key))
    wrong = [module for module in layers if any(_names(entry, module) for entry in listed)]
    if wrong:
        file, name = layers[wrong[0]].file, make_printable(wrong[0])
        message = f"{file}: {len(wrong)} layers are packed that config.json says are not, first {name}"
        yield error("packing-parts", file, message, _SAME_SAVE)
    elif _packs_all(packing):
        yield from _judge_plain(contents, layers, listed)


def _judge_plain(contents: Contents, layers: Mapping[str, PackedLayer], listed: tuple[str, ...]) -> Iterator[Finding]:
    """Of a layer that is packed in other blocks of the model, one that is not must be listed."""
    kinds = {_find_kind(module) for module in layers}
    for name, tensor in contents.weights.tensors.items():
        module, _, part = name.rpartition(".")
        if part != "weight" or module in layers or len(tensor.shape) != 2 or _find_kind(module) not in kinds:
            continue
        if not any(_may_name(entry, module) for entry in listed):
            message = f"{tensor.file}: {make_printable(module)} is not packed, and config.json does not list it as such"
            yield error("packing-parts", tensor.file, message, _SAME_SAVE)
            return


def _packs_all(packing: Packing) -> bool:
    """True if every layer is to be packed that is not listed."""
    groups = packing.settings.section("config_groups")
    return all(groups.section(name).texts("targets") == ("Linear",) for name in groups)


def _find_kind(module: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", module)


def _names(entry: str, module: str) -> bool:
    """True if an entry means the layer for sure."""
    if not entry.startswith("re:"):
        return entry == module
    return _is_plain(entry) and re.match(entry[3:], module) is not None


def _may_name(entry: str, module: str) -> bool:
    """True if an entry could mean the layer, under whatever name the engine has for it."""
    if entry.startswith("re:"):
        return not _is_plain(entry) or re.search(entry[3:], module) is not None
    parent, _, last = entry.rpartition(".")
    name = parent if last in _FUSED else entry
    numbered = re.search(r"(?:^|\.)(\d+\..*)", name)
    return (numbered[1] if numbered else name.rpartition(".")[2]) in module


def _is_plain(entry: str) -> bool:
    pattern = entry[3:]
    return pattern.count("*") <= _MOST_STARS and _PLAIN_PATTERN.fullmatch(pattern) is not None
