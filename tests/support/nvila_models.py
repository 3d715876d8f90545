"""Tiny NVILA-Lite checkpoints in NVIDIA's layout: random numbers under the names that the published tensors have."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parents[2] / "gateway" / "demo" / "shapes-v2"
SIDE, PATCH = 56, 14  # four by four patches, which the projector's squares of three do not divide evenly

# As llm/tokenizer_config.json has it: contents are texts, which are joined to what surrounds them.
TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}{{- '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' -}}"
    "{%- endif -%}{%- for turn in messages -%}"
    "{{- '<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

LANGUAGE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 767, "hidden_size": 128,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": False, "bos_token_id": 757, "eos_token_id": 759, "torch_dtype": "float32",
    "use_sliding_window": False, "attention_dropout": 0.0,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model", "hidden_size": 64,
    "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 2, "num_channels": 3, "image_size": SIDE,
    "patch_size": PATCH, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_dropout": 0.0,
    "torch_dtype": "float32",
}  # fmt: skip
PICTURES: dict[str, Any] = {
    "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE},
    "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": None,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
# Transformers reads the words of a Qwen2 model in this way, whatever its tokenizer.json says.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENCODER = '{{"_target_": "llava.model.encoders.Basic{}Encoder"}}'

Named = Iterator[tuple[str, tuple[int, ...]]]


def write_nvila(folder: Path, *, fold: int = 3, seed: int = 11, first_mark: int = 763, **settings: Any) -> Path:
    """Write a checkpoint; `settings` go into its `config.json`, `first_mark` is the number of `<image>`."""
    kind = f"mlp_downsample_{fold}x{fold}_fix"
    parts = {"llm": LANGUAGE, "vision_tower": TOWER, "mm_projector": {
        "architectures": ["MultimodalProjector"], "model_type": "v2l_projector", "mm_projector_type": kind}}  # fmt: skip
    config = {f"{name}_cfg": part for name, part in parts.items()} | {
        "architectures": ["LlavaLlamaModel"], "model_type": "llava_llama", "model_dtype": "torch.bfloat16",
        "hidden_size": LANGUAGE["hidden_size"], "mm_hidden_size": TOWER["hidden_size"], "resume_path": "./somewhere",
        "image_aspect_ratio": "dynamic", "min_tiles": 1, "max_tiles": 6, "num_video_frames": 4, "fps": 0.0,
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "cls_patch", "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False, "s2": False, "dynamic_s2": False, "vision_resolution": -1,
        "image_encoder": ENCODER.format("Image"), "video_encoder": ENCODER.format("Video"),
    } | settings  # fmt: skip
    shapes = {"llm": dict(_language()), "vision_tower": dict(_tower()), "mm_projector": dict(_projector(fold))}
    for number, (name, part) in enumerate(parts.items()):
        (folder / name).mkdir(parents=True)
        _write(folder / name / "config.json", part)
        _write_weights(folder / name / "model.safetensors", shapes[name], seed + number)
    _write(folder / "config.json", config)
    _write(folder / "vision_tower" / "preprocessor_config.json", PICTURES)
    _write(folder / "llm" / "generation_config.json", {"eos_token_id": [759, 757], "pad_token_id": 757})
    _write_words(folder / "llm", first_mark)
    return folder


def write_nvila_adapter(folder: Path, start: str, *, layers: str = "model.layers") -> Path:
    """Write a LoRA adapter for queries and values of the first layers; `start` goes before the modules' names."""
    hidden, keys = LANGUAGE["hidden_size"], LANGUAGE["hidden_size"] // 2
    if start.startswith("vision"):
        hidden = keys = TOWER["hidden_size"]
    folder.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(2):
        for name, outputs in (("q_proj", hidden), ("v_proj", keys)):
            module = f"base_model.model.{start}{layers}.{number}.self_attn.{name}"
            shapes |= {f"{module}.lora_A.weight": (4, hidden), f"{module}.lora_B.weight": (outputs, 4)}
    _write_weights(folder / "adapter_model.safetensors", shapes, 5)
    known = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none",
             "target_modules": ["q_proj", "v_proj"]}  # fmt: skip
    _write(folder / "adapter_config.json", known)
    return folder


def _language() -> Named:
    hidden, inner = LANGUAGE["hidden_size"], LANGUAGE["intermediate_size"]
    keys = hidden // LANGUAGE["num_attention_heads"] * LANGUAGE["num_key_value_heads"]
    yield "model.embed_tokens.weight", (LANGUAGE["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (LANGUAGE["vocab_size"], hidden)
    for number in range(LANGUAGE["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        for name, outputs in (("q_proj", hidden), ("k_proj", keys), ("v_proj", keys)):
            yield from _linear(f"{layer}.self_attn.{name}", outputs, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)


def _tower() -> Named:
    hidden, inner = TOWER["hidden_size"], TOWER["intermediate_size"]
    yield "vision_model.embeddings.patch_embedding.weight", (hidden, 3, PATCH, PATCH)
    yield "vision_model.embeddings.patch_embedding.bias", (hidden,)
    yield "vision_model.embeddings.position_embedding.weight", ((SIDE // PATCH) ** 2, hidden)
    for number in range(TOWER["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{number}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{layer}.{norm}", hidden)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{name}", hidden, hidden)
        yield from _linear(f"{layer}.mlp.fc1", inner, hidden)
        yield from _linear(f"{layer}.mlp.fc2", hidden, inner)
    yield from _norm("vision_model.post_layernorm", hidden)
    yield "vision_model.head.probe", (1, 1, hidden)
    yield "vision_model.head.attention.in_proj_weight", (3 * hidden, hidden)
    yield "vision_model.head.attention.in_proj_bias", (3 * hidden,)
    yield from _linear("vision_model.head.attention.out_proj", hidden, hidden)
    yield from _norm("vision_model.head.layernorm", hidden)
    yield from _linear("vision_model.head.mlp.fc1", inner, hidden)
    yield from _linear("vision_model.head.mlp.fc2", hidden, inner)


def _projector(fold: int) -> Named:
    vision, language = TOWER["hidden_size"], LANGUAGE["hidden_size"]
    folded = vision * fold * fold
    yield from _norm("layers.1", folded)
    if fold == 2:
        yield from _linear("layers.2", language, folded)
        yield from _linear("layers.4", language, language)
        return
    yield from _linear("layers.2", vision * 3, folded)
    yield from _norm("layers.4", vision * 3)
    yield from _linear("layers.5", language, vision * 3)
    yield from _linear("layers.7", language, language)


def _linear(name: str, outputs: int, inputs: int) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, size: int) -> Named:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _write_weights(path: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        spread = 0.5 if len(shape) == 1 else 2.0 / max(shape[-1], 1) ** 0.5
        tensors[name] = torch.randn(shape, generator=source) * spread
        if "norm" in name and name.endswith("weight"):
            tensors[name] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def _write_words(folder: Path, first_mark: int) -> None:
    """The demo's words, with NVILA's marks for pictures and videos and Qwen2's way to part words."""
    words = (DEMO / "tokenizer.json").read_text()
    for ours, theirs in (("<|image_pad|>", "<image>"), ("<|video_pad|>", "<vila/video>")):
        words = words.replace(ours, theirs)
    split = {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    parted = {"type": "Sequence", "pretokenizers": [split, level]}
    content = json.loads(words) | {"normalizer": {"type": "NFC"}, "pre_tokenizer": parted}
    for token in content["added_tokens"]:
        token["id"] = {"<image>": first_mark, "<vila/video>": first_mark + 1}.get(token["content"], token["id"])
    _write(folder / "tokenizer.json", content)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                "model_max_length": 2048, "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE}  # fmt: skip
    _write(folder / "tokenizer_config.json", settings)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
