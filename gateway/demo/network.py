"""The network: a tiny Qwen2.5-VL, and a batched forward pass over its own weights that is fast on a CPU.

The class of `transformers` walks pictures one by one; here all pictures of a batch share one grid, so one call does.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from gateway.demo.batches import GROUNDS
from gateway.demo.drawing import MEAN, PATCH_PX, STD
from gateway.demo.scenes import COLOURS, SHAPES

WIDTH = 128
CORNER_SPREAD = 1.5
LOOKING_LAYER, LOOKING_HEADS = 1, 2
"""Where the text side is shown what to look at: in its second layer, by half of the heads."""


_TORCHVISION = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float scale, int height, int width, int ratio, bool aligned) -> Tensor",
)
_declared: list[Any] = []


def prepare_transformers() -> None:
    """Make transformers importable where compiled parts of its optional libraries cannot load; call it before that import."""
    for name in ("torchaudio", "torchcodec"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError):
            # transformers looks for the library before it imports it: None means that there is none.
            sys.modules[name] = None  # type: ignore[assignment]
    if _declared or importlib.util.find_spec("torchvision") is None:
        return
    # A CUDA build beside a CPU torch: the import only wants the schemas, and pictures need none of these operators.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _TORCHVISION:
        if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
            library.define(schema)
    _declared.append(library)


def make_config(vocabulary: int, ids: dict[str, int]) -> Any:
    """The architecture: 4 text and 4 vision layers of 128, tied embeddings, full attention in every vision layer."""
    from transformers import Qwen2_5_VLConfig

    text = {
        "vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": 384, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True, "use_sliding_window": False, "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"], "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": WIDTH, "intermediate_size": 384, "num_heads": 4, "patch_size": PATCH_PX,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": WIDTH, "window_size": 112,
        "fullatt_block_indexes": [0, 1, 2, 3], "initializer_range": 0.05,
    }  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, initializer_range=0.05,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        bos_token_id=None, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
    )  # fmt: skip


def build_model(vocabulary: int, ids: dict[str, int]) -> Any:
    """A fresh `Qwen2_5_VLForConditionalGeneration` in float32."""
    prepare_transformers()
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration(make_config(vocabulary, ids)).float()


def load_model(folder: Path) -> Any:
    """A saved version, in float32 whatever it was saved in."""
    prepare_transformers()
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def order_patches(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every patch, in the order the merger wants: the four patches of a cell together."""
    row = torch.arange(rows * 2).reshape(rows, 1, 2, 1).expand(rows, columns, 2, 2)
    column = torch.arange(columns * 2).reshape(1, columns, 1, 2).expand(rows, columns, 2, 2)
    return row.reshape(-1), column.reshape(-1)


def cut_patches(pixels: torch.Tensor) -> torch.Tensor:
    """(batch, height, width, 3) bytes to normalised patches (batch, patches, values), as the picture processor does."""
    batch, height, width, _ = pixels.shape
    values = (pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    values = values.reshape(batch, height // 28, 2, PATCH_PX, width // 28, 2, PATCH_PX, 3)
    values = values.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, -1, 3, 1, PATCH_PX, PATCH_PX)
    return values.expand(-1, -1, -1, 2, -1, -1).reshape(batch, values.shape[1], -1)


def see(visual: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the vision side; returns the features of all patches and the merged picture tokens."""
    rows, columns = pixels.shape[1] // 28, pixels.shape[2] // 28
    positions = torch.stack(order_patches(rows, columns), dim=-1)
    embed = visual.patch_embed.proj
    x = F.linear(cut_patches(pixels), embed.weight.reshape(embed.weight.shape[0], -1))
    cos, sin = visual.rotary_pos_emb(x, positions)
    batch, count, width = x.shape
    for block in visual.blocks:
        heads = block.attn.num_heads
        qkv = block.attn.qkv(block.norm1(x)).reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (part * cos + _rotate(part) * sin for part in (qkv[0], qkv[1]))
        seen = F.scaled_dot_product_attention(q, k, qkv[2])
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(batch, count, width))
        x = x + block.mlp(block.norm2(x))
    return x, visual.merger(x).reshape(batch, rows * columns, -1)


def _rotate(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def read(
    language: Any, x: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, watched: list[Any] | None = None
) -> torch.Tensor:
    """Run the text side over embeddings `x`; `visible` (batch, length, length) says who attends to whom.

    Queries, keys and output of every layer are appended to `watched` if given.
    """
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

    batch, length, width = x.shape
    cos, sin = language.rotary_emb(x, positions)
    for layer in language.layers:
        attention = layer.self_attn
        y = layer.input_layernorm(x)
        q, k, v = (
            part(y).reshape(batch, length, -1, attention.head_dim).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])
        x = x + attention.o_proj(seen.transpose(1, 2).reshape(batch, length, width))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if watched is not None:
            watched.append((q, k, x))
    normed: torch.Tensor = language.norm(x)
    return normed


def read_batch(
    model: Any, tokens: torch.Tensor, batch: dict[str, torch.Tensor], watched: list[Any] | None = None
) -> torch.Tensor:
    """Run the text side over a batch whose pictures became `tokens`; returns the hidden state of every position."""
    x = model.model.language_model.embed_tokens(batch["ids"])
    start = int(batch["picture_start"])
    x = torch.cat((x[:, :start], tokens, x[:, start + tokens.shape[1] :]), dim=1)
    return read(model.model.language_model, x, batch["positions"], batch["visible"], watched)


@dataclass(frozen=True)
class Losses:
    """Loss of the answers, of the helper heads, and of where the words look."""

    answers: torch.Tensor
    helpers: torch.Tensor
    looks: torch.Tensor


def spread_targets(corners: Sequence[int], vocabulary: int) -> torch.Tensor:
    """For every token what to aim at instead: itself, but for the tokens of corners (ids in order) a narrow bell around it.

    So an answer that is off by a pixel costs less than one that is off by half the picture. Shape (vocabulary, vocabulary).
    """
    spread = torch.eye(vocabulary)
    places = torch.arange(len(corners))
    bell = torch.exp(-0.5 * ((places[:, None] - places[None]) / CORNER_SPREAD) ** 2)
    ids = torch.tensor(corners)
    spread[ids[:, None], ids[None]] = bell / bell.sum(1, keepdim=True)
    return spread


class Helpers(nn.Module):
    """Heads that make the vision side start: what lies under a patch and under a merged token. Thrown away after training."""

    def __init__(self, spread: torch.Tensor) -> None:
        super().__init__()
        self.spread = spread
        self.colour = nn.ModuleList([nn.Linear(WIDTH, len(COLOURS) + 1) for _ in range(2)])
        self.shape = nn.ModuleList([nn.Linear(WIDTH, len(SHAPES) + 2) for _ in range(2)])
        self.digit = nn.ModuleList([nn.Linear(WIDTH, 11), nn.Linear(WIDTH, 22)])
        self.ground = nn.Linear(WIDTH, len(GROUNDS))
        self.box = nn.Linear(WIDTH, 4)
        self.named_box = nn.Linear(WIDTH, 4)
        self.gathered_boxes = nn.Linear(WIDTH, 8)
        self.counts = nn.Linear(WIDTH, 1 + len(SHAPES) + len(COLOURS))

    def loss(self, patches: torch.Tensor, tokens: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of the names plus the distance of the boxes."""
        total = torch.zeros(())
        for index, features in enumerate((patches, tokens)):
            side = ("patch", "token")[index]
            total = total + _name_loss(self.colour[index](features), labels[f"{side}_colour"])
            total = total + _name_loss(self.shape[index](features), labels[f"{side}_shape"])
            total = total + _name_loss(self.digit[index](features), labels[f"{side}_digit"])
        grounds = self.ground(tokens)[labels["token_ground"] > 0]
        total = total + 0.5 * F.cross_entropy(grounds, labels["token_ground"][labels["token_ground"] > 0])
        covered = labels["token_colour"] > 0
        miss = (self.box(tokens).sigmoid() - labels["token_box"]).abs().sum(-1)
        total = total + 2 * (self.counts(tokens.mean(1)) - labels["counts"]).abs().mean()
        return total + 4 * (miss * covered).sum() / covered.sum().clamp(min=1)

    def look_loss(self, watched: list[Any], batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """How little the words that name a thing attend to its cells (half of the heads) and know its box, and how
        little of the boxes has reached the place where the answer starts one layer later.
        """
        rows, places = batch["look_at"].unbind(1)
        if len(rows) == 0:
            return torch.zeros(())
        queries, keys, hidden = watched[LOOKING_LAYER]
        start, cells = int(batch["picture_start"]), batch["look_cells"].shape[1]
        query = queries[rows, :LOOKING_HEADS, places]
        scores = torch.einsum("nhd,nhld->nhl", query, keys[rows, :LOOKING_HEADS]) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~batch["visible"][rows, places][:, None], -torch.inf)
        shares = scores.softmax(-1)[:, :, start : start + cells]
        missed = -((shares * batch["look_cells"][:, None]).sum(-1) + 1e-6).log().mean()
        known = self.named_box(F.rms_norm(hidden[rows, places], (WIDTH,))).sigmoid()
        ends, seats = find_answers(rows, places, batch["weights"])
        arrived = F.rms_norm(watched[LOOKING_LAYER + 1][2][rows, ends], (WIDTH,))
        gathered = self.gathered_boxes(arrived).sigmoid().reshape(-1, 2, 4)[torch.arange(len(rows)), seats]
        return missed + 4 * sum((boxes - batch["look_boxes"]).abs().sum(-1).mean() for boxes in (known, gathered))


def find_answers(rows: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For every named thing: where the answer to its question starts, and whether it is named first (0) or second (1)."""
    judged = weights[rows] > 0
    later = torch.arange(weights.shape[1])[None] >= places[:, None]
    ends = (judged & later).float().argmax(1)
    seats = torch.zeros_like(rows)
    seats[1:] = ((rows[1:] == rows[:-1]) & (ends[1:] == ends[:-1])).long()
    return ends, seats


def _name_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in which covered and empty places weigh the same."""
    scores = scores.reshape(labels.numel(), -1)
    each = F.cross_entropy(scores, labels.reshape(-1), reduction="none")
    covered = (labels.reshape(-1) > 0).float()
    return (each * covered).sum() / covered.sum().clamp(min=1) + 0.3 * (each * (1 - covered)).mean()


def loss_of(model: Any, helpers: Helpers | None, batch: dict[str, torch.Tensor]) -> Losses:
    """Both losses of one batch (see `batches.Batch` for its arrays)."""
    patches, tokens = see(model.model.visual, batch["pixels"])
    watched: list[Any] = []
    hidden = read_batch(model, tokens, batch, watched)
    language = model.model.language_model
    rows, columns = batch["weights"].nonzero(as_tuple=True)
    scores = F.linear(hidden[rows, columns], language.embed_tokens.weight)
    targets = batch["targets"][rows, columns]
    wanted = targets if helpers is None else helpers.spread[targets]
    each = F.cross_entropy(scores, wanted, reduction="none")
    weights = batch["weights"][rows, columns]
    answers = (each * weights).sum() / batch["answers"]
    if helpers is None:
        return Losses(answers, torch.zeros(()), torch.zeros(()))
    return Losses(answers, helpers.loss(patches, tokens, batch), helpers.look_loss(watched, batch))
