"""Rules about single tensors: each that the configuration asks for is there, and of its shape; none too many."""

from collections.abc import Iterator, Mapping

from gateway.checkpoints.blueprints import Blueprint, Shape, draw_blueprint
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, join_names, make_printable, warning
from gateway.checkpoints.manifest import find_quantization, find_task, find_tied
from gateway.checkpoints.matrices import find_core
from gateway.checkpoints.packing import list_unpacked
from gateway.checkpoints.safetensors import Tensor, write_shape

_COMPUTED = (".rotary_emb.inv_freq", ".masked_bias")  # older saves have them; nobody reads them
_SAME_SAVE = "weights and config.json are of two different saves: copy both from the same one"


def judge_tensors(contents: Contents) -> Iterator[Finding]:
    """Findings about the tensors of a family whose blueprint is known, stored as plain numbers or packed plainly."""
    config = contents.config
    has_own_names = contents.is_mistral or "auto_map" in config
    task = find_task(config.texts("architectures"))
    if not contents.weights.is_whole or not config or has_own_names or task == "draft":
        return
    tensors = list_unpacked(contents)
    if tensors is None:
        return
    # A model that answers with vectors or scores needs no head for words.
    is_tied = find_tied(contents) if task == "generate" else None
    blueprint = draw_blueprint(config, contents.text, is_tied=is_tied)
    # GPTQ's tools give every layer a bias, which the engine leaves out where the model has none.
    has_spare_biases = find_quantization(contents) == "gptq"
    found: dict[str, Tensor] = {}
    for tensor in tensors.values():
        core = find_core(tensor.name)
        if core in found and (core in blueprint.required or blueprint.covers(core)):
            return  # two parts of the model have layers of the same name: which is meant is not clear
        if not (has_spare_biases and core.endswith(".bias") and core not in blueprint.required):
            found[core] = tensor
    known = {**blueprint.optional, **blueprint.required}
    yield from _judge_missing(contents, blueprint, found)
    yield from _judge_shapes(known, found)
    # Layers that predict further tokens come behind the others, and are no part of the blueprint.
    if not any("nextn" in key or "mtp" in key for key in contents.text):
        yield from _judge_extra(blueprint, known, found)


def _judge_missing(contents: Contents, blueprint: Blueprint, found: Mapping[str, Tensor]) -> Iterator[Finding]:
    missing = [core for core in blueprint.required if core not in found]
    if missing:
        files = contents.weights.files
        name = files[0] if len(files) == 1 else "*.safetensors"
        message = f"{name}: {len(missing)} tensors that config.json asks for are missing ({join_names(missing)})"
        mend = "copy all shards of the model, or the config.json that was saved with these weights"
        yield error("tensors-missing", name, message, mend)


def _judge_shapes(known: Mapping[str, Shape], found: Mapping[str, Tensor]) -> Iterator[Finding]:
    pairs = [(found[core], shape) for core, shape in known.items() if core in found]
    wrong = next(((tensor, shape) for tensor, shape in pairs if tensor.shape != shape), None)
    if wrong is not None:
        tensor, shape = wrong
        name = make_printable(tensor.name)
        message = f"{tensor.file}: {name} is {write_shape(tensor.shape)}, config.json makes it {write_shape(shape)}"
        yield error("tensor-shape", tensor.file, message, _SAME_SAVE)
    packed = next((tensor for tensor, _ in pairs if not tensor.is_float), None)
    if packed is not None:
        name, dtype = make_printable(packed.name), packed.dtype
        message = f"{packed.file}: {name} is stored as {dtype}, and config.json has no quantization_config for it"
        mend = "copy quantization_config from where the model was packed, or save it as bfloat16 or float32"
        yield error("tensor-dtype", packed.file, message, mend)


def _judge_extra(blueprint: Blueprint, known: Mapping[str, Shape], found: Mapping[str, Tensor]) -> Iterator[Finding]:
    extra = [
        tensor
        for core, tensor in found.items()
        if core not in known and blueprint.covers(core) and not tensor.name.endswith(_COMPUTED)
    ]
    for are_biases, grade in ((False, error), (True, warning)):
        named = [tensor for tensor in extra if tensor.name.endswith(".bias") == are_biases]
        if named:
            names = join_names([tensor.name for tensor in named])
            message = f"{named[0].file}: {len(named)} tensors have no place in the model of config.json ({names})"
            # The engine stops at an unknown weight, and leaves an unknown bias out without a word.
            yield grade("tensors-extra", named[0].file, message, _SAME_SAVE)
