"""Writes a trained model as a folder that `transformers` and vLLM load: weights in bfloat16 plus all side files."""

import copy
import json
from pathlib import Path
from typing import Any

from gateway.demo.drawing import MAX_PIXELS, MEAN, MIN_PIXELS, PATCH_PX, STD
from gateway.demo.tokenizer import save_tokenizer

TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write `model` (a float32 network in training) to `folder`, which may exist."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    shipped = copy.deepcopy(model).to(torch.bfloat16)
    shipped.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, folder)
    ids = {name: tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>")}
    _write_json(folder / "generation_config.json", {
        "do_sample": False, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"],
    })  # fmt: skip
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    _write_processors(folder)


def _write_processors(folder: Path) -> None:
    values = {
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255,
        "resample": 3, "image_mean": list(MEAN), "image_std": list(STD), "patch_size": PATCH_PX, "temporal_patch_size": 2,
        "merge_size": 2, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    }  # fmt: skip
    picture = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", **values}
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "processor_class": "Qwen2_5_VLProcessor", **values}
    video |= {"min_frames": 2, "max_frames": 16, "fps": 2.0}
    _write_json(folder / "preprocessor_config.json", picture)
    _write_json(folder / "video_preprocessor_config.json", video)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
