"""Which tensors a model of a known family has, with their shapes, worked out from its configuration alone.

Names are core names (`matrices.find_core`), the same whatever release saved the model. Shapes are as Transformers
stores them: a linear layer's weight is outputs by inputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.checkpoints.fields import Fields

Shape = tuple[int, ...]

_MOST_LAYERS = 1000


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The tensors that must be there, those that may be, and the beginnings of names about which it says all."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    complete: tuple[str, ...] = ()

    def covers(self, core: str) -> bool:
        """True if a tensor of this name would have to be among those listed."""
        return core.startswith(self.complete)


def draw_blueprint(config: Fields, text: Fields, *, is_tied: bool | None) -> Blueprint:
    """What the model must consist of; empty for a family that is not known here, or where a size is missing."""
    kind = text.text("model_type") or config.text("model_type") or ""
    language = _Language.read(text, kind)
    if language is None:
        return Blueprint()
    required = dict(language.list_tensors())
    head = {"lm_head.weight": (language.vocabulary, language.hidden)}
    if is_tied is False:
        required |= head
    complete = ["layers.", "norm."]
    draw_vision = {"qwen2_5_vl": _draw_qwen2_5_vision, "qwen3_vl": _draw_qwen3_vision}.get(
        config.text("model_type") or ""
    )
    vision = dict(draw_vision(config.section("vision_config"))) if draw_vision is not None else {}
    if vision:
        required |= vision
        complete.append("visual.")
    return Blueprint(required, {} if is_tied is False else head, tuple(complete))


@dataclass(frozen=True, slots=True)
class _Language:
    """The sizes of a decoder of the Llama kind."""

    hidden: int
    vocabulary: int
    layers: int
    inner: int
    queries: int
    keys: int
    head: int
    has_qkv_bias: bool
    has_out_bias: bool
    has_mlp_bias: bool
    has_head_norms: bool

    @classmethod
    def read(cls, text: Fields, kind: str) -> "_Language | None":
        """The sizes from a configuration, None for another kind of model."""
        is_qwen2 = kind in ("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text")
        is_qwen3 = kind in ("qwen3", "qwen3_vl_text")
        if not is_qwen2 and not is_qwen3 and kind not in ("llama", "mistral"):
            return None
        hidden, vocabulary = text.whole("hidden_size"), text.whole("vocab_size")
        layers, inner = text.whole("num_hidden_layers"), text.whole("intermediate_size")
        heads = text.whole("num_attention_heads")
        if not hidden or not vocabulary or not layers or not inner or not heads or layers > _MOST_LAYERS:
            return None
        if kind == "mistral" and not text.whole("num_key_value_heads"):
            return None  # its class has a number of its own for what is left out
        head = text.whole("head_dim") or (128 if is_qwen3 else hidden // heads)
        has_bias = text.flag("attention_bias") or False
        return cls(
            hidden, vocabulary, layers, inner, heads * head, (text.whole("num_key_value_heads") or heads) * head, head,
            has_qkv_bias=is_qwen2 or has_bias,
            has_out_bias=has_bias and not is_qwen2,
            has_mlp_bias=text.flag("mlp_bias") or False,
            has_head_norms=is_qwen3,
        )  # fmt: skip

    def list_tensors(self) -> Iterator[tuple[str, Shape]]:
        yield "embed_tokens.weight", (self.vocabulary, self.hidden)
        yield "norm.weight", (self.hidden,)
        for number in range(self.layers):
            layer = f"layers.{number}"
            yield f"{layer}.input_layernorm.weight", (self.hidden,)
            yield f"{layer}.post_attention_layernorm.weight", (self.hidden,)
            for name, outputs in (("q_proj", self.queries), ("k_proj", self.keys), ("v_proj", self.keys)):
                yield from _list_linear(f"{layer}.self_attn.{name}", outputs, self.hidden, has_bias=self.has_qkv_bias)
            yield from _list_linear(f"{layer}.self_attn.o_proj", self.hidden, self.queries, has_bias=self.has_out_bias)
            if self.has_head_norms:
                yield f"{layer}.self_attn.q_norm.weight", (self.head,)
                yield f"{layer}.self_attn.k_norm.weight", (self.head,)
            for name in ("gate_proj", "up_proj"):
                yield from _list_linear(f"{layer}.mlp.{name}", self.inner, self.hidden, has_bias=self.has_mlp_bias)
            yield from _list_linear(f"{layer}.mlp.down_proj", self.hidden, self.inner, has_bias=self.has_mlp_bias)


def _draw_qwen2_5_vision(vision: Fields) -> Iterator[tuple[str, Shape]]:
    hidden, depth, inner = vision.whole("hidden_size"), vision.whole("depth"), vision.whole("intermediate_size")
    patch, out = vision.whole("patch_size"), vision.whole("out_hidden_size")
    if not hidden or not depth or not inner or not patch or not out or depth > _MOST_LAYERS:
        return
    channels = vision.whole("in_channels") or vision.whole("in_chans") or 3
    frames, merged = vision.whole("temporal_patch_size") or 2, hidden * (vision.whole("spatial_merge_size") or 2) ** 2
    yield "visual.patch_embed.proj.weight", (hidden, channels, frames, patch, patch)
    for number in range(depth):
        block = f"visual.blocks.{number}"
        yield f"{block}.norm1.weight", (hidden,)
        yield f"{block}.norm2.weight", (hidden,)
        yield from _list_linear(f"{block}.attn.qkv", 3 * hidden, hidden)
        yield from _list_linear(f"{block}.attn.proj", hidden, hidden)
        yield from _list_linear(f"{block}.mlp.gate_proj", inner, hidden)
        yield from _list_linear(f"{block}.mlp.up_proj", inner, hidden)
        yield from _list_linear(f"{block}.mlp.down_proj", hidden, inner)
    yield "visual.merger.ln_q.weight", (hidden,)
    yield from _list_linear("visual.merger.mlp.0", merged, merged)
    yield from _list_linear("visual.merger.mlp.2", out, merged)


def _draw_qwen3_vision(vision: Fields) -> Iterator[tuple[str, Shape]]:
    hidden, depth, inner = vision.whole("hidden_size"), vision.whole("depth"), vision.whole("intermediate_size")
    patch, out = vision.whole("patch_size"), vision.whole("out_hidden_size")
    places = vision.whole("num_position_embeddings")
    if not hidden or not depth or not inner or not patch or not out or not places or depth > _MOST_LAYERS:
        return
    channels = vision.whole("in_channels") or 3
    frames, merged = vision.whole("temporal_patch_size") or 2, hidden * (vision.whole("spatial_merge_size") or 2) ** 2
    yield "visual.patch_embed.proj.weight", (hidden, channels, frames, patch, patch)
    yield "visual.patch_embed.proj.bias", (hidden,)
    yield "visual.pos_embed.weight", (places, hidden)
    for number in range(depth):
        block = f"visual.blocks.{number}"
        yield from _list_norm(f"{block}.norm1", hidden)
        yield from _list_norm(f"{block}.norm2", hidden)
        yield from _list_linear(f"{block}.attn.qkv", 3 * hidden, hidden)
        yield from _list_linear(f"{block}.attn.proj", hidden, hidden)
        yield from _list_linear(f"{block}.mlp.linear_fc1", inner, hidden)
        yield from _list_linear(f"{block}.mlp.linear_fc2", hidden, inner)
    taps = vision.get("deepstack_visual_indexes")
    count = min(len(taps), depth) if isinstance(taps, list) else 0
    mergers = [f"visual.deepstack_merger_list.{number}" for number in range(count)]
    for merger, norm in (("visual.merger", hidden), *((name, merged) for name in mergers)):
        yield from _list_norm(f"{merger}.norm", norm)
        yield from _list_linear(f"{merger}.linear_fc1", merged, merged)
        yield from _list_linear(f"{merger}.linear_fc2", out, merged)


def _list_linear(name: str, outputs: int, inputs: int, *, has_bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if has_bias:
        yield f"{name}.bias", (outputs,)


def _list_norm(name: str, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
