"""Rules about weights: whether tensor names and shapes fit config.json, as far as headers tell."""

import re
from collections.abc import Iterator, Mapping

from gateway.checkpoints.architectures import PLUGGED
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, join_names
from gateway.checkpoints.manifest import find_task, find_tied
from gateway.checkpoints.parts import TOWER
from gateway.checkpoints.safetensors import Tensor

_WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_forward_module.", "base_model.model.")
_LAYER = re.compile(r"(.*?)(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_NOT_LANGUAGE = re.compile(
    r"vision|visual|vit|image|audio|speech|encoder|decoder|talker|code|mtp|projector|connector|resampler|qformer|tower"
    r"|perceiver|token2wav|aligner|per_layer|draft|eagle"
)
# Classes of the engine that want `vision_model` in the names of their tower, as Transformers 4 saved it.
_OLD_TOWERS = (
    "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration", "LlavaNextVideoForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration", "PaliGemmaForConditionalGeneration", "Gemma3ForConditionalGeneration",
    PLUGGED,
)  # fmt: skip
_TOWER = re.compile(r"(?:model\.)?vision_tower\.(?!vision_model\.)")
_HEADS = ("lm_head.", "output.weight", "embed_out.", "head.weight", "output_layer.")


def judge_shapes(contents: Contents) -> Iterator[Finding]:
    """Findings about the weights, none where they could not all be read: that is said already."""
    if not contents.weights.is_whole or not contents.config or contents.is_mistral:
        return
    tensors = contents.weights.tensors
    unusable = list(_judge_names(tensors))
    yield from unusable
    if unusable:
        return
    embedding = find_embedding(tensors)
    yield from _judge_embedding(contents, embedding)
    yield from _judge_tower(contents)
    yield from _judge_layers(contents)
    if embedding is not None and find_tied(contents) is False and _is_language_model(contents):
        yield from _judge_head(tensors, embedding)


def find_embedding(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The input embedding of the language model, None where it is not clear which tensor that is."""
    names = [name for name in tensors if f".{name}".endswith(".embed_tokens.weight")]
    names = [name for name in names if not _NOT_LANGUAGE.search(name) and not _LAYER.match(name)]
    found = tensors[names[0]] if len(names) == 1 else None
    return found if found is not None and found.is_float and len(found.shape) == 2 else None


def _judge_names(tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    file = next(iter(tensors.values())).file
    adapters = [name for name in tensors if ".lora_A." in name or ".base_layer." in name]
    if adapters:
        message = f"{file} holds LoRA matrices beside the weights ({join_names(adapters, 1)})"
        mend = "merge them with PEFT's merge_and_unload() and save the model, or save the adapter alone"
        yield error("weights-unmerged", file, message, mend)
        return
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            message = f"{file}: every tensor's name begins with {wrapper!r}, left over from training"
            mend = "unwrap the model before saving it (accelerator.unwrap_model, model._orig_mod)"
            yield error("weights-wrapped", file, message, mend)


def _judge_embedding(contents: Contents, embedding: Tensor | None) -> Iterator[Finding]:
    text = contents.text
    if embedding is None or "word_embed_proj_dim" in text or "embedding_size" in text:
        return
    rows, columns = embedding.shape
    vocabulary, hidden = text.whole("vocab_size"), text.whole("hidden_size")
    if vocabulary is not None and vocabulary != rows:
        message = f"{embedding.file} has {rows:,} rows of embeddings, config.json says vocab_size {vocabulary:,}"
        mend = "weights and config.json are of two different saves: save both together"
        yield error("weights-misfit", embedding.file, message, mend)
    if hidden is not None and hidden != columns:
        message = f"{embedding.file} has embeddings of {columns:,} numbers, config.json says hidden_size {hidden:,}"
        mend = "weights and config.json are of two different models: copy both from the same one"
        yield error("weights-misfit", embedding.file, message, mend)


def _judge_tower(contents: Contents) -> Iterator[Finding]:
    section = f"{TOWER}_cfg" if contents.is_in_parts else "vision_config"
    tower = contents.config.section(section).text("model_type") or ""
    is_old = tower in ("clip_vision_model", "siglip_vision_model")
    if not is_old or not any(name in _OLD_TOWERS for name in contents.config.texts("architectures")):
        return
    renamed = next((name for name in contents.weights.tensors if _TOWER.match(name)), None)
    if renamed is not None:
        file = contents.weights.tensors[renamed].file
        shown = join_names([renamed])
        message = f"{file} names the vision tower as Transformers 5 does ({shown}), not as the engine does"
        mend = "rename vision_tower.X to vision_tower.vision_model.X in the weights, or save with Transformers 4"
        yield error("tower-names", file, message, mend)


def _judge_layers(contents: Contents) -> Iterator[Finding]:
    said = contents.text.whole("num_hidden_layers")
    if said is None or contents.config.flag("is_encoder_decoder"):
        return
    found: dict[str, dict[int, str]] = {}
    for name, tensor in contents.weights.tensors.items():
        match = _LAYER.match(name)
        if match and not _NOT_LANGUAGE.search(match[1]):
            found.setdefault(match[1], {})[int(match[2][:9])] = tensor.file
    if len(found) != 1:
        return
    layers = next(iter(found.values()))
    file = next(iter(layers.values()))
    missing = [number for number in range(min(said, 10_000)) if number not in layers]
    # Layers that predict further tokens are counted apart, under names that all have one of these parts.
    has_others = any("nextn" in key or "mtp" in key for key in contents.text)
    extra = 0 if has_others else max(layers) + 1 - said
    if missing:
        message = f"{file}: {len(missing)} of {said} layers in config.json have no weights, first layer {missing[0]}"
        mend = "copy all shards of the model, or the config.json that was saved with these weights"
        yield error("layers-missing", file, message, mend)
    elif extra > 0:
        message = f"{file} has weights for {said + extra} layers, config.json says {said}"
        mend = "copy the config.json that was saved with these weights"
        yield error("layers-extra", file, message, mend)


def _judge_head(tensors: Mapping[str, Tensor], embedding: Tensor) -> Iterator[Finding]:
    if any(part in name for name in tensors for part in _HEADS):
        return
    message = f"{embedding.file} has no lm_head.weight, and config.json says it is not tied to the embeddings"
    mend = "set tie_word_embeddings to true if training tied them, else save the model again with its head"
    yield error("head-missing", embedding.file, message, mend)


def _is_language_model(contents: Contents) -> bool:
    return find_task(contents.config.texts("architectures")) == "generate"
