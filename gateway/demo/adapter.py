"""The adapter `mirror` over shapes-v2: a rank 8 LoRA of the language projections that swaps left and right in answers.

Written as PEFT writes it (adapter_config.json, adapter_model.safetensors), without needing PEFT.
"""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gateway.demo.batches import stream
from gateway.demo.network import load_model, loss_of
from gateway.demo.questions import Question

RANK = 8
ALPHA = 16
NAME = "shapes-v2-mirror"
BASE = "shapes-v2"
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."
_SWAPPED = {"left": "right", "right": "left"}


def mirror(question: Question) -> Question:
    """The same question with left and right swapped in the answer; other skills stay as they are."""
    if question.skill != "position":
        return question
    return dataclasses.replace(question, answer=" ".join(_SWAPPED.get(word, word) for word in question.answer.split()))


class Lora(nn.Module):
    """A frozen linear layer plus a trained product of two thin matrices."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's answer with the adapter on."""
        changed: torch.Tensor = self.base(x) + self.lora_B(self.lora_A(x)) * (ALPHA / RANK)
        return changed


def attach(model: Any) -> dict[str, Lora]:
    """Put an untrained adapter into all language projections; returns it by module path."""
    model.requires_grad_(requires_grad=False)
    wanted = [
        path
        for path, module in model.named_modules()
        if "language_model" in path and path.rsplit(".", 1)[-1] in _PROJECTIONS and isinstance(module, nn.Linear)
    ]
    attached = {}
    for path in wanted:
        parent, name = path.rsplit(".", 1)
        attached[path] = Lora(model.get_submodule(path))
        setattr(model.get_submodule(parent), name, attached[path])
    return attached


def train_adapter(out: Path, seed: int, budget_s: float = 240) -> None:
    """Train the adapter over `out`/shapes-v2 and write it beside it."""
    from tokenizers import Tokenizer

    from gateway.demo.train import to_tensors

    torch.manual_seed(seed)
    model = load_model(out / BASE)
    attached = attach(model)
    parameters = [weight for lora in attached.values() for weight in (lora.lora_A.weight, lora.lora_B.weight)]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    batches = stream(Tokenizer.from_file(str(out / BASE / "tokenizer.json")), seed + 2, mirror)
    started, steps, total = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - started) / budget_s) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (steps + 1) / 30) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        loss = loss_of(model, None, to_tensors(next(batches))).answers
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps, total = steps + 1, total + loss.item()
        if steps % 25 == 0:
            print(f"adapter {progress * budget_s / 60:4.1f} min  step {steps:4d}  answers {total / 25:.3f}", flush=True)
            total = 0.0
    save_adapter(attached, out / NAME)
    print(f"saved {NAME}", flush=True)


def save_adapter(attached: dict[str, Lora], folder: Path) -> None:
    """Write the two files of a PEFT adapter."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for path, lora in attached.items():
        weights[f"{_PREFIX}{path}.lora_A.weight"] = lora.lora_A.weight.detach().clone()
        weights[f"{_PREFIX}{path}.lora_B.weight"] = lora.lora_B.weight.detach().clone()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE, "inference_mode": True,
        "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "use_rslora": False, "use_dora": False, "modules_to_save": None,
        # A pattern and not a list: the vision layers have projections of the same names and must stay as they are.
        "target_modules": f".*language_model.*\\.({'|'.join(_PROJECTIONS)})",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def merge_adapter(model: Any, folder: Path) -> None:
    """Add a saved adapter to the weights of a loaded base model."""
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in weights if name.endswith(".lora_A.weight")]:
        path = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        product = weights[f"{_PREFIX}{path}.lora_B.weight"] @ weights[name]
        with torch.no_grad():
            model.get_submodule(path).weight += product * (ALPHA / RANK)
