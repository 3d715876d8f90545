"""Adapters with random numbers in every one of their tensors, saved by PEFT over a checkpoint from `tiny_models`."""

from pathlib import Path
from typing import Any

from gateway.checkpoints import inspect


def write_random_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """Write an adapter that changes what the model says; `settings` are those of PEFT's LoraConfig."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if inspect(base).is_visual else AutoModelForCausalLM
    known: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    model = get_peft_model(kind.from_pretrained(base), LoraConfig(**(known | settings)))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (1.0 if "magnitude" in name else 0.2))
    model.save_pretrained(folder)
    return folder
