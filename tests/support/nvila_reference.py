"""NVILA-Lite in plain torch, written from VILA's description of it and from nothing of ours or of vLLM's.

Slow and simple: float32, no cache, one prompt at a time. Every state on the way can be looked at.
"""

import json
import math
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

Part = str | Image.Image | list[Image.Image]
"""A piece of a question: text, a picture, or the frames of a video."""


class ReferenceNvila:
    """One checkpoint in NVIDIA's layout, read tensor by tensor under its published names."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        parts = ("llm", "vision_tower", "mm_projector")
        self.llm, self.eye, self.bridge = (json.loads((folder / part / "config.json").read_text()) for part in parts)
        self.words, self.sights, self.links = (
            {name: tensor.float() for name, tensor in load_file(folder / part / "model.safetensors").items()}
            for part in parts
        )
        self.tokenizer = Tokenizer.from_file(str(folder / "llm" / "tokenizer.json"))
        self.ends = json.loads((folder / "llm" / "generation_config.json").read_text())["eos_token_id"]

    def merge(self, adapter: Path) -> None:
        """Work a LoRA adapter on the language model into it."""
        scale = json.loads((adapter / "adapter_config.json").read_text())
        matrices = load_file(adapter / "adapter_model.safetensors")
        for name, a in matrices.items():
            if ".lora_A." in name:
                place = name.removeprefix("base_model.model.llm.").replace(".lora_A", "")
                added = matrices[name.replace("lora_A", "lora_B")] @ a * scale["lora_alpha"] / scale["r"]
                self.words[place] = self.words[place] + added

    # What it is asked

    def cut(self, picture: Image.Image) -> list[Image.Image]:
        """A lone picture as tiles: the grid of the nearest proportions, then the whole picture."""
        side = self.eye["image_size"]
        width, height = picture.size
        best: tuple[float, int, int] | None = None
        for count in range(self.config["min_tiles"], self.config["max_tiles"] + 1):
            for across in range(1, count + 1):
                if count % across:
                    continue
                off = abs(width / height - across / (count // across))
                is_tie = best is not None and off == best[0] and width * height > count * side * side / 2
                if best is None or off < best[0] or is_tie:
                    best = (off, across, count // across)
        assert best is not None
        _, across, down = best
        large = picture.resize((across * side, down * side), Image.Resampling.BICUBIC)
        tiles = []
        for row in range(down):
            for column in range(across):
                tiles.append(large.crop((column * side, row * side, column * side + side, row * side + side)))
        return [*tiles, picture.resize((side, side), Image.Resampling.BICUBIC)] if len(tiles) > 1 else tiles

    def to_pixels(self, tiles: list[Image.Image]) -> Tensor:
        """Tiles by channels by rows by columns, between -1 and 1."""
        side = self.eye["image_size"]
        planes = [torch.tensor(list(tile.convert("RGB").tobytes())).view(side, side, 3) for tile in tiles]
        return torch.stack(planes).permute(0, 3, 1, 2).float() / 255 * 2 - 1

    def write_prompt(self, parts: list[Part]) -> tuple[str, list[Image.Image]]:
        """The whole prompt, and a tile for every `<image>` in it."""
        side = self.eye["image_size"]
        pictures = [part for part in parts if isinstance(part, Image.Image)]
        videos = [part for part in parts if isinstance(part, list)]
        text, tiles = "", []
        for part in parts:
            if isinstance(part, str):
                text += part
            elif isinstance(part, list):
                for number in range(self.config["num_video_frames"]):
                    place = round((len(part) - 1) * number / (self.config["num_video_frames"] - 1))
                    tiles.append(part[place].resize((side, side), Image.Resampling.BICUBIC))
                    text += "<image>"
            elif len(pictures) == 1 and not videos and self.config["image_aspect_ratio"] == "dynamic":
                cut = self.cut(part)
                tiles += cut
                text += "<image>\n" * len(cut)
            else:
                tiles.append(part.resize((side, side), Image.Resampling.BICUBIC))
                text += "<image>"
        start = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n"
        return f"{start}{text.strip()}<|im_end|>\n<|im_start|>assistant\n", tiles

    # What it sees

    def see(self, pixels: Tensor) -> dict[str, Tensor]:
        """States of the tower behind the patches and each layer that counts, and what the projector makes of the last."""
        states = {"patches": self._patch(pixels)}
        seen = states["patches"]
        for number in range(self.eye["num_hidden_layers"] + 1 + self.config["mm_vision_select_layer"]):
            seen = states[f"tower.{number}"] = self._look(seen, f"vision_model.encoder.layers.{number}.")
        states["projected"] = self._link(seen)
        return states

    def _patch(self, pixels: Tensor) -> Tensor:
        start = "vision_model.embeddings."
        patch = self.eye["patch_size"]
        rows = functional.unfold(pixels, patch, stride=patch).transpose(1, 2)
        weight = self.sights[f"{start}patch_embedding.weight"].flatten(1)
        places = self.sights[f"{start}position_embedding.weight"]
        return rows @ weight.T + self.sights[f"{start}patch_embedding.bias"] + places

    def _look(self, seen: Tensor, layer: str) -> Tensor:
        def linear(value: Tensor, name: str) -> Tensor:
            return value @ self.sights[f"{layer}{name}.weight"].T + self.sights[f"{layer}{name}.bias"]

        def norm(value: Tensor, name: str) -> Tensor:
            weight, bias = self.sights[f"{layer}{name}.weight"], self.sights[f"{layer}{name}.bias"]
            return functional.layer_norm(value, weight.shape, weight, bias, self.eye["layer_norm_eps"])

        heads = self.eye["num_attention_heads"]
        normed = norm(seen, "layer_norm1")
        queries, keys, values = (
            linear(normed, f"self_attn.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        weights = (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).softmax(-1)
        seen = seen + linear((weights @ values).transpose(1, 2).flatten(2), "self_attn.out_proj")
        inner = functional.gelu(linear(norm(seen, "layer_norm2"), "mlp.fc1"), approximate="tanh")
        return seen + linear(inner, "mlp.fc2")

    def _link(self, seen: Tensor) -> Tensor:
        fold = 3 if self.bridge["mm_projector_type"] == "mlp_downsample_3x3_fix" else 2
        tiles, patches, channels = seen.shape
        side = math.isqrt(patches)
        squares = math.ceil(side / fold)
        padded = torch.zeros(tiles, squares * fold, squares * fold, channels)
        padded[:, :side, :side] = seen.view(tiles, side, side, channels)
        tokens = []
        for row in range(0, squares * fold, fold):
            for column in range(0, squares * fold, fold):
                tokens.append(padded[:, row : row + fold, column : column + fold].flatten(1))
        value = torch.stack(tokens, 1)
        order = ("norm 1", "linear 2", "gelu", "linear 4") if fold == 2 else (
            "norm 1", "linear 2", "gelu", "norm 4", "linear 5", "gelu", "linear 7")  # fmt: skip
        for step in order:
            kind, _, number = step.partition(" ")
            weight, bias = (self.links.get(f"layers.{number}.{name}") for name in ("weight", "bias"))
            if kind == "gelu":
                value = functional.gelu(value)
            elif kind == "norm":
                assert weight is not None
                value = functional.layer_norm(value, weight.shape, weight, bias)
            else:
                assert weight is not None
                value = functional.linear(value, weight, bias)
        return value

    # What it says

    def embed(self, prompt: str, tiles: list[Image.Image]) -> Tensor:
        """The prompt as embeddings: each `<image>` is a tile's tokens and a newline."""
        table = self.words["model.embed_tokens.weight"]
        mark, newline = self.tokenizer.token_to_id("<image>"), self.tokenizer.encode("\n").ids
        seen = iter(self.see(self.to_pixels(tiles))["projected"] if tiles else [])
        rows = []
        for number in self.tokenizer.encode(prompt).ids:
            rows += [next(seen), table[newline]] if number == mark else [table[number : number + 1]]
        return torch.cat(rows)

    def read(self, embedded: Tensor) -> dict[str, Tensor]:
        """States of the language model behind each layer, and the logits of every place."""
        states: dict[str, Tensor] = {}
        value = embedded
        for number in range(self.llm["num_hidden_layers"]):
            value = states[f"language.{number}"] = self._think(value, f"model.layers.{number}.")
        head = "model.embed_tokens.weight" if self.llm["tie_word_embeddings"] else "lm_head.weight"
        states["logits"] = self._scale(value, "model.norm.weight") @ self.words[head].T
        return states

    def _scale(self, value: Tensor, name: str) -> Tensor:
        return value * (value.square().mean(-1, keepdim=True) + self.llm["rms_norm_eps"]).rsqrt() * self.words[name]

    def _think(self, value: Tensor, layer: str) -> Tensor:
        def linear(given: Tensor, name: str) -> Tensor:
            return functional.linear(given, self.words[f"{layer}{name}.weight"], self.words.get(f"{layer}{name}.bias"))

        heads, groups = self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        normed = self._scale(value, f"{layer}input_layernorm.weight")
        queries = self._turn(linear(normed, "self_attn.q_proj").unflatten(-1, (heads, -1)).transpose(0, 1))
        keys = self._turn(linear(normed, "self_attn.k_proj").unflatten(-1, (groups, -1)).transpose(0, 1))
        values = linear(normed, "self_attn.v_proj").unflatten(-1, (groups, -1)).transpose(0, 1)
        keys, values = (part.repeat_interleave(heads // groups, 0) for part in (keys, values))
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        value = value + linear((weights @ values).transpose(0, 1).flatten(1), "self_attn.o_proj")
        normed = self._scale(value, f"{layer}post_attention_layernorm.weight")
        inner = functional.silu(linear(normed, "mlp.gate_proj")) * linear(normed, "mlp.up_proj")
        return value + linear(inner, "mlp.down_proj")

    def _turn(self, value: Tensor) -> Tensor:
        """Rotary positions, the halves of a head turned against each other."""
        size = value.shape[-1]
        speeds = self.llm["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
        angles = torch.arange(value.shape[-2]).float()[:, None] * speeds
        first, second = value[..., : size // 2], value[..., size // 2 :]
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

    def answer(self, parts: list[Part], most_tokens: int) -> list[int]:
        """The greedy answer as tokens, its end left out."""
        embedded = self.embed(*self.write_prompt(parts))
        said: list[int] = []
        while len(said) < most_tokens:
            token = int(self.read(embedded)["logits"][-1].argmax())
            if token in self.ends:
                break
            said.append(token)
            embedded = torch.cat([embedded, self.words["model.embed_tokens.weight"][token : token + 1]])
        return said
