"""Checkpoints of a few megabytes with random weights, as a trainer would save them with Transformers; NVILA as published.

Words, template and picture settings are the demo's; the models answer nonsense, through all their layers.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.nvila_models import write_nvila

DEMO = Path(__file__).parents[2] / "gateway" / "demo" / "shapes-v2"
VOCABULARY = 767
_WORDS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
_PICTURE, _VIDEO, _START, _END = 763, 764, 760, 761

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "eos_token_id": 759,
    "pad_token_id": 757, "bos_token_id": None, "initializer_range": 0.2, "dtype": "float32",
}  # fmt: skip
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
_TOKENS = {
    "image_token_id": _PICTURE, "video_token_id": _VIDEO, "vision_start_token_id": _START, "vision_end_token_id": _END,
}  # fmt: skip


def _write_llama(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**_TEXT, tie_word_embeddings=False)).save_pretrained(folder)


def _write_mistral(folder: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    MistralForCausalLM(MistralConfig(**_TEXT, head_dim=64)).save_pretrained(folder)


def _write_qwen2(folder: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    Qwen2ForCausalLM(Qwen2Config(**_TEXT, tie_word_embeddings=True)).save_pretrained(folder)


def _write_qwen3(folder: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    Qwen3ForCausalLM(Qwen3Config(**_TEXT, head_dim=64)).save_pretrained(folder)


def _write_qwen2_5_vl(folder: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 1, "out_hidden_size": 128, "patch_size": 14,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=_TEXT | {"rope_parameters": _MROPE}, vision_config=vision, **_TOKENS)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    _copy_picture_settings(folder)


def _write_qwen3_vl(folder: Path) -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = _TEXT | {"head_dim": 32, "rope_parameters": _MROPE | {"mrope_interleaved": True}}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 1, "out_hidden_size": 128, "patch_size": 16,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_TOKENS)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    _copy_picture_settings(folder, patch_size=16, processor_class="Qwen3VLProcessor")


def _write_qwen3_5(folder: Path) -> None:
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    text = _TEXT | {
        "dtype": "bfloat16", "num_hidden_layers": 4, "head_dim": 64, "rope_parameters": _MROPE | {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "partial_rotary_factor": 0.25},
        "layer_types": ["linear_attention"] * 3 + ["full_attention"], "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 1, "out_hidden_size": 128, "patch_size": 16,
        "num_position_embeddings": 64,
    }  # fmt: skip
    config = Qwen3_5Config(text_config=text, vision_config=vision, **_TOKENS)
    import torch

    Qwen3_5ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    _copy_picture_settings(folder, patch_size=16, processor_class="Qwen3VLProcessor")


def _write_internvl(folder: Path) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
        "image_size": [56, 56], "patch_size": [14, 14],
    }  # fmt: skip
    text = _TEXT | {"model_type": "qwen2"}
    config = InternVLConfig(text_config=text, vision_config=vision, image_token_id=_PICTURE, downsample_ratio=0.5)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    processor = {
        "processor_class": "InternVLProcessor",
        "image_seq_length": 4,
        "image_processor": {
            "image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": False, "do_resize": True, "do_rescale": True,
            "do_normalize": True, "do_convert_rgb": True, "size": {"height": 56, "width": 56}, "max_patches": 4,
            "min_patches": 1, "resample": 3, "rescale_factor": 1 / 255, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    }  # fmt: skip
    (folder / "processor_config.json").write_text(json.dumps(processor))
    video = processor["image_processor"] | {"video_processor_type": "InternVLVideoProcessor"}
    for key in ("image_processor_type", "crop_to_patches", "max_patches", "min_patches"):
        del video[key]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    names = {"start_image_token": "<|vision_start|>", "end_image_token": "<|vision_end|>",
             "context_image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}  # fmt: skip
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"] = names
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names))


def _write_nvila_lite(folder: Path) -> None:
    for name in _WORDS:
        (folder / name).unlink()  # they lie in a part of it
    write_nvila(folder)


WRITERS: dict[str, Callable[[Path], None]] = {
    "llama": _write_llama,
    "mistral": _write_mistral,
    "qwen2": _write_qwen2,
    "qwen3": _write_qwen3,
    "qwen2.5-vl": _write_qwen2_5_vl,
    "qwen3-vl": _write_qwen3_vl,
    "qwen3.5": _write_qwen3_5,
    "internvl": _write_internvl,
    "nvila-lite": _write_nvila_lite,
}
"""How a checkpoint of each family is written."""

VISUAL = ("qwen2.5-vl", "qwen3-vl", "qwen3.5", "internvl", "nvila-lite")
"""Families that see."""


def write_tiny(family: str, folder: Path) -> Path:
    """Write a checkpoint of the family; the same one each time."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    for name in _WORDS:
        shutil.copyfile(DEMO / name, folder / name)
    WRITERS[family](folder)
    return folder


def _copy_picture_settings(folder: Path, **changes: Any) -> None:
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        settings = json.loads((DEMO / name).read_text())
        (folder / name).write_text(json.dumps(settings | changes))
