"""What serving a checkpoint will take, from its configuration and headers alone: weights, cache, tokens of a picture.

What it cannot know, activations and the engine's own buffers, is left to a share of the device's memory.
"""

from dataclasses import dataclass

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.manifest import CONTEXT_KEYS
from gateway.checkpoints.pictures import PictureCost, count_picture_tokens

USABLE_SHARE = 0.9
"""Of a device's memory, what weights and cache may fill; the rest is the engine's working room."""

_BYTES = {"float32": 4, "float": 4, "float64": 8, "double": 8}
_CACHED = ("full_attention", "attention", "global", "sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a checkpoint needs. What does not follow from its configuration is None.

    `cache_bytes_per_token` is the KV cache of one token in all layers; `context_tokens` the longest context that
    training allows.
    """

    weights_bytes: int
    cache_bytes_per_token: int | None
    context_tokens: int | None
    picture: PictureCost | None

    def fit_context(self, device_bytes: int) -> int | None:
        """The longest context, in tokens, for which there is room on a device; 0 if the weights alone do not fit."""
        if self.cache_bytes_per_token is None or self.context_tokens is None:
            return None
        room_bytes = max(0, int(device_bytes * USABLE_SHARE) - self.weights_bytes)
        if not self.cache_bytes_per_token:  # no layer keeps more, the longer the context is
            return self.context_tokens if room_bytes else 0
        return min(self.context_tokens, room_bytes // self.cache_bytes_per_token)


def plan_memory(contents: Contents) -> MemoryPlan | None:
    """What a full checkpoint needs; None for anything else, and where its weights could not be read."""
    if contents.kind != "checkpoint" or not contents.weights.is_whole:
        return None
    text = contents.text
    context = next((value for key in CONTEXT_KEYS if (value := text.whole(key)) is not None and value > 0), None)
    return MemoryPlan(
        contents.weights.size_bytes, _count_cache_bytes(contents.config, text), context, count_picture_tokens(contents)
    )


def _count_cache_bytes(config: Fields, text: Fields) -> int | None:
    layers = text.whole("num_hidden_layers")
    if layers is None or not 0 < layers < 10_000:
        return None
    kinds = text.texts("layer_types")
    if len(kinds) == layers:  # others keep a state of fixed size, however long the context is
        layers = sum(kind in _CACHED for kind in kinds)
    said = next((name for part in (text, config) for key in ("dtype", "torch_dtype") if (name := part.text(key))), "")
    number_bytes = _BYTES.get(said.removeprefix("torch."), 2)
    compressed = text.whole("kv_lora_rank")
    if compressed:  # multi-head latent attention keeps one compressed vector a layer, and the rotated part
        return max(0, layers * (compressed + (text.whole("qk_rope_head_dim") or 0)) * number_bytes)
    heads, hidden = text.whole("num_attention_heads"), text.whole("hidden_size")
    head = text.whole("head_dim") or (hidden // heads if heads and hidden and heads > 0 else None)
    keys = text.whole("num_key_value_heads") or heads
    if not head or not keys or head < 0 or keys < 0:
        return None
    return layers * 2 * keys * head * number_bytes
