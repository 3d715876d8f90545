"""Which tensors a model of a known family has, with their shapes, worked out from its configuration alone.

Names are core names (`matrices.find_core`), the same whatever release saved the model. Shapes are as Transformers
stores them: a linear layer's weight is outputs by inputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.parts import PROJECTOR, TOWER, find_fold

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
    head: dict[str, Shape] = {"lm_head.weight": (language.vocabulary, language.hidden)}
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
    optional = {} if is_tied is False else dict(head)
    tower, fold = _Siglip.read(config.section(f"{TOWER}_cfg")), find_fold(config)
    if tower is not None and fold is not None:
        required |= dict(tower.list_tensors()) | dict(_draw_projector(fold, tower.hidden, language.hidden))
        optional |= dict(tower.list_end())
        complete += [f"{TOWER}.", f"{PROJECTOR}."]
    return Blueprint(required, optional, tuple(complete))


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


@dataclass(frozen=True, slots=True)
class _Siglip:
    """The sizes of a SigLIP tower, as checkpoints in parts have one."""

    hidden: int
    layers: int
    inner: int
    side: int
    patch: int

    @classmethod
    def read(cls, tower: Fields) -> "_Siglip | None":
        """The sizes from a configuration, None where one is missing."""
        hidden, layers, inner = (tower.whole(key) for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
        side, patch = tower.whole("image_size"), tower.whole("patch_size")
        if not hidden or not layers or not inner or not side or not patch or patch < 0 or layers > _MOST_LAYERS:
            return None
        return cls(hidden, layers, inner, side, patch)

    def list_tensors(self) -> Iterator[tuple[str, Shape]]:
        start = f"{TOWER}.embeddings"
        yield f"{start}.patch_embedding.weight", (self.hidden, 3, self.patch, self.patch)
        yield f"{start}.patch_embedding.bias", (self.hidden,)
        yield f"{start}.position_embedding.weight", ((self.side // self.patch) ** 2, self.hidden)
        for number in range(self.layers):
            layer = f"{TOWER}.encoder.layers.{number}"
            yield from _list_norm(f"{layer}.layer_norm1", self.hidden)
            yield from _list_norm(f"{layer}.layer_norm2", self.hidden)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield from _list_linear(f"{layer}.self_attn.{name}", self.hidden, self.hidden)
            yield from self._list_mlp(f"{layer}.mlp")

    def list_end(self) -> Iterator[tuple[str, Shape]]:
        """What some saves have behind the layers, and nobody reads: features are taken before it."""
        yield from _list_norm(f"{TOWER}.post_layernorm", self.hidden)
        yield f"{TOWER}.head.probe", (1, 1, self.hidden)
        yield f"{TOWER}.head.attention.in_proj_weight", (3 * self.hidden, self.hidden)
        yield f"{TOWER}.head.attention.in_proj_bias", (3 * self.hidden,)
        yield from _list_linear(f"{TOWER}.head.attention.out_proj", self.hidden, self.hidden)
        yield from _list_norm(f"{TOWER}.head.layernorm", self.hidden)
        yield from self._list_mlp(f"{TOWER}.head.mlp")

    def _list_mlp(self, name: str) -> Iterator[tuple[str, Shape]]:
        yield from _list_linear(f"{name}.fc1", self.inner, self.hidden)
        yield from _list_linear(f"{name}.fc2", self.hidden, self.inner)


def _draw_projector(fold: int, vision: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    """NVILA's projector; the numbers are places in its list of layers, of which some have no weights."""
    folded, start = vision * fold * fold, f"{PROJECTOR}.layers"
    yield from _list_norm(f"{start}.1", folded)
    if fold == 2:
        yield from _list_linear(f"{start}.2", hidden, folded)
        yield from _list_linear(f"{start}.4", hidden, hidden)
        return
    yield from _list_linear(f"{start}.2", 3 * vision, folded)
    yield from _list_norm(f"{start}.4", 3 * vision)
    yield from _list_linear(f"{start}.5", hidden, 3 * vision)
    yield from _list_linear(f"{start}.7", hidden, hidden)


def _list_linear(name: str, outputs: int, inputs: int, *, has_bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if has_bias:
        yield f"{name}.bias", (outputs,)


def _list_norm(name: str, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
