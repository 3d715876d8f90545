"""Writes safetensors files and checkpoint folders of a few kilobytes, good ones, for tests to damage."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HIDDEN, VOCABULARY, LAYERS, RANK = 8, 16, 2, 4
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% generation %}x{% endgeneration %}"

Shapes = Mapping[str, tuple[int, ...]]


def write_tensors(path: Path, shapes: Shapes, dtype: str = "F32", fill: bytes | None = None) -> Path:
    """Write a file with tensors of these shapes, every value 0.5 or the bytes in `fill`."""
    value = fill or {"F32": struct.pack("<f", 0.5), "BF16": b"\x00\x3f", "F16": b"\x00\x38", "I8": b"\1"}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + count * len(value)],
        }
        data += value * count
    write_header(path, header, data)
    return path


def write_header(path: Path, header: object, data: bytes = b"") -> None:
    """Write a file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def list_shapes(layers: int = LAYERS, hidden: int = HIDDEN, rows: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama with two heads and an untied output head."""
    shapes = {
        "model.embed_tokens.weight": (rows, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (rows, hidden),
    }
    for layer in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"model.layers.{layer}.self_attn.{name}.weight"] = (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"model.layers.{layer}.mlp.{name}.weight"] = (2 * hidden, hidden)
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (hidden, 2 * hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{name}.weight"] = (hidden,)
    return shapes


def write_checkpoint(folder: Path, *, is_visual: bool = False) -> Path:
    """Write a checkpoint in which nothing is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "intermediate_size": 2 * HIDDEN, "max_position_embeddings": 128, "tie_word_embeddings": False,
    }  # fmt: skip
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32", "eos_token_id": 2, **text,
    }  # fmt: skip
    if is_visual:
        config = {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "eos_token_id": 2,
            "text_config": text | {"model_type": "llama"}, "vision_config": {"depth": 2}, "image_token_id": 5, "video_token_id": 6,
        }  # fmt: skip
        write_json(folder / "preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessor"})
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": 2, "temperature": 0.7})
    write_tensors(folder / "model.safetensors", list_shapes())
    write_tokenizer(folder)
    write_json(folder / "tokenizer_config.json", {"eos_token": "t2"})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def write_shards(folder: Path) -> Path:
    """Put the weights of a checkpoint into two shards with an index."""
    (folder / "model.safetensors").unlink()
    names = list(list_shapes())
    placed = {}
    for number, part in enumerate((names[:4], names[4:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        write_tensors(folder / file, {name: list_shapes()[name] for name in part})
        placed |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": placed})
    return folder


def write_tokenizer(folder: Path, trained: int = VOCABULARY - 1, added: Mapping[str, int] | None = None) -> None:
    """Write a tokenizer.json with `trained` tokens t0, t1, ... and added ones."""
    vocab = {f"t{number}": number for number in range(trained)}
    tokens = [{"id": number, "content": token} for token, number in (added or {"<end>": VOCABULARY - 1}).items()]
    write_json(
        folder / "tokenizer.json", {"added_tokens": tokens, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    )


def write_adapter(folder: Path, *, hidden: int = HIDDEN, layers: int = LAYERS, **config: object) -> Path:
    """Write a LoRA adapter that fits `write_checkpoint`; `config` changes its adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "bias": "none",
        "base_model_name_or_path": "/elsewhere/base",
    }  # fmt: skip
    write_json(folder / "adapter_config.json", known | config)
    shapes = {}
    for layer in range(layers):
        for name in ("q_proj", "o_proj"):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            shapes |= {f"{module}.lora_A.weight": (RANK, hidden), f"{module}.lora_B.weight": (hidden, RANK)}
    write_tensors(folder / "adapter_model.safetensors", shapes)
    return folder


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content))


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON object in a file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})
