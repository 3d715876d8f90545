"""What serving a checkpoint will take, from its configuration and headers alone: weights, cache, tokens of a picture.

What it cannot know, activations and the engine's own buffers, is left to a share of the device's memory.
"""

from dataclasses import dataclass

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.manifest import CONTEXT_KEYS
from gateway.checkpoints.parts import find_fold

USABLE_SHARE = 0.9
"""Of a device's memory, what weights and cache may fill; the rest is the engine's working room."""

_BYTES = {"float32": 4, "float": 4, "float64": 8, "double": 8}
_CACHED = ("full_attention", "attention", "global", "sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True)
class PictureCost:
    """Tokens that one picture takes in the prompt, at least and at most, and the pixels that bound them if they do."""

    least_tokens: int
    most_tokens: int
    least_pixels: int | None = None
    most_pixels: int | None = None


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


def count_picture_tokens(contents: Contents) -> PictureCost | None:
    """What one picture costs; None for a model without pictures, or one whose way of cutting them is not known here."""
    if not contents.is_visual:
        return None
    if contents.is_in_parts:
        return _count_by_grid(contents.config)
    vision = contents.config.section("vision_config")
    settings = contents.preprocessor or contents.processor.section("image_processor")
    if vision.whole("spatial_merge_size") or settings.whole("merge_size"):
        return _count_by_pixels(vision, settings)
    if "InternVL" in " ".join(contents.config.texts("architectures")):
        return _count_by_tiles(contents.config, vision, settings)
    return None


def _count_by_pixels(vision: Fields, settings: Fields) -> PictureCost | None:
    """The Qwen family keeps a picture's proportions and scales it between two numbers of pixels."""
    patch = settings.whole("patch_size") or vision.whole("patch_size")
    merge = settings.whole("merge_size") or vision.whole("spatial_merge_size")
    size = settings.section("size")
    least = _first(settings.whole("min_pixels"), size.whole("min_pixels"), size.whole("shortest_edge"))
    most = _first(settings.whole("max_pixels"), size.whole("max_pixels"), size.whole("longest_edge"))
    if not patch or not merge or patch < 0 or merge < 0 or not least or not most or not 0 < least <= most:
        return None
    per_token = (patch * merge) ** 2
    return PictureCost(max(1, -(-least // per_token)), max(1, most // per_token), least, most)


def _count_by_tiles(config: Fields, vision: Fields, settings: Fields) -> PictureCost | None:
    """InternVL cuts a picture into square tiles, and adds the whole one, small, where there are several."""
    side, patch = _read_side(vision.get("image_size")), _read_side(vision.get("patch_size"))
    ratio = config.number("downsample_ratio")
    if not side or not patch or not ratio or not 0 < ratio <= 1:
        return None
    per_tile = int((side // patch) ** 2 * ratio**2)
    most = _first(settings.whole("max_patches"), config.whole("max_dynamic_patch")) or 12
    has_whole = settings.flag("use_thumbnail") or config.flag("use_thumbnail") or "max_patches" in settings
    tiles = most + (1 if has_whole and most > 1 else 0)
    return PictureCost(per_tile, per_tile * tiles) if per_tile > 0 and 0 < most < 1000 else None


def _count_by_grid(config: Fields) -> PictureCost | None:
    """NVILA cuts a lone picture into a grid of tiles and adds the whole, with line breaks behind each."""
    vision, fold = config.section("vision_tower_cfg"), find_fold(config)
    side, patch = vision.whole("image_size"), vision.whole("patch_size")
    most = config.whole("max_tiles") or 12
    if not side or not patch or not fold or not 0 < patch <= side or not 0 < most < 1000:
        return None
    per_tile = (-(-(side // patch) // fold)) ** 2 + 1
    if config.text("image_aspect_ratio") != "dynamic":
        return PictureCost(per_tile, per_tile)
    return PictureCost(per_tile, (per_tile + 1) * (most + 1 if most > 1 else 1))


def _read_side(value: object) -> int | None:
    """A side in pixels, given as a number or as a pair of them."""
    if isinstance(value, list) and value:
        value = value[0]
    return Fields({"side": value}).whole("side")


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
