"""Whether a merged checkpoint answers as its base with the adapter mounted; Transformers and PEFT run both, in float32.

Two questions. Is the merge right: with the changed tensors as they were before rounding, logits and greedy text must be
those of the mounted adapter. What has rounding done: the checkpoint as it was written may answer a little differently.
"""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.matrices import find_core
from gateway.engines.launcher import adapt_torch
from gateway.merging import MergeRefused
from gateway.merging.plan import MergePlan
from gateway.merging.reading import read_floats

PROMPTS = (
    "Hello!",
    "What do you see?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
    "Translate to German: The house is small.",
)
_ANSWER_TOKENS = 24
_PICTURE_SIDE = 112  # pixels
_TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order differ by some 1e-6


class CheckUnavailable(Exception):
    """The check needs packages that are not installed; the message says which, and how to get them."""


@dataclass(frozen=True, slots=True)
class Equivalence:
    """How far a merged checkpoint is from the mounted adapter. Differences are shares of the largest logit.

    `rounded_texts` counts the prompts, of `prompts`, whose greedy text rounding has changed.
    """

    prompts: int
    difference: float
    rounded_difference: float
    rounded_texts: int


@dataclass(frozen=True, slots=True)
class _Answers:
    """For each prompt, the logits after its last token and the tokens that greedy decoding goes on with."""

    logits: list[Any]
    texts: list[list[int]]


def require_packages() -> None:
    """Raises CheckUnavailable where the packages that the check takes are not installed."""
    try:
        adapt_torch()
        import peft  # noqa: F401 - all are asked for at once
        import torch  # noqa: F401
        import transformers
    except ImportError as missing:
        raise CheckUnavailable(
            f"the check of the merge needs {missing.name}: pip install 'nim-gateway[merge]', or skip it by --no-verify"
        ) from missing
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def verify(plan: MergePlan, merged: Path) -> Equivalence:
    """Compare. Raises MergeRefused if the merge is not right, CheckUnavailable where it cannot be done.

    Holds one model in float32 in memory at a time.
    """
    require_packages()
    try:
        return _compare(plan, merged)
    except MergeRefused:
        raise
    except Exception as fault:  # whatever Transformers, PEFT and tokenizers stumble over in a model new to them
        raise CheckUnavailable(f"the check could not be run ({fault!r}): skip it by --no-verify") from fault


def _compare(plan: MergePlan, merged: Path) -> Equivalence:
    prompts = list(_encode(plan.base))
    mounted = _answer(_load_mounted(plan), prompts)
    model = _load(merged, plan.base)
    rounded = _answer(model, prompts)
    _overlay(model, plan)
    exact = _answer(model, prompts)
    difference = _measure(mounted, exact)
    if not difference <= _TOLERANCE or exact.texts != mounted.texts:
        raise MergeRefused(
            f"merged and mounted do not agree (logits differ by {difference:.2g} of the largest, greedy text in "
            f"{_count_other(mounted, exact)} of {len(prompts)} prompts): nothing was written"
        )
    return Equivalence(len(prompts), difference, _measure(mounted, rounded), _count_other(mounted, rounded))


def _load(path: Path, base: Contents) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = AutoModelForImageTextToText if base.is_visual else AutoModelForCausalLM
    model = kind.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    return model.eval()


def _load_mounted(plan: MergePlan) -> Any:
    from peft import PeftModel

    model = _load(plan.base.path, plan.base)
    return PeftModel.from_pretrained(model, plan.adapter.path, local_files_only=True).eval()


def _encode(base: Contents) -> Iterator[dict[str, Any]]:
    """The prompts as the model takes them, through its own chat template where it has one; the last with a picture."""
    from transformers import AutoProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    has_template = base.templates.is_present
    for text in PROMPTS:
        if has_template:
            turns = [{"role": "user", "content": [{"type": "text", "text": text}] if base.is_visual else text}]
            rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            yield dict(tokenizer(rendered, return_tensors="pt", add_special_tokens=False))
        else:
            yield dict(tokenizer(text, return_tensors="pt"))
    if base.is_visual and has_template:
        processor = AutoProcessor.from_pretrained(base.path, local_files_only=True)
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPTS[1]}]}]
        rendered = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        yield dict(processor(text=[rendered], images=[_paint()], return_tensors="pt"))


def _paint() -> Any:
    """A picture with something in every corner of it."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:_PICTURE_SIDE, 0:_PICTURE_SIDE]
    colours = np.stack([rows * 2, columns * 2, (rows ^ columns) * 2], axis=-1)
    return Image.fromarray(colours.astype(np.uint8))


def _answer(model: Any, prompts: Sequence[dict[str, Any]]) -> _Answers:
    import torch

    answers = _Answers([], [])
    for prompt in prompts:
        with torch.inference_mode():
            answers.logits.append(model(**prompt).logits[0, -1].float())
            made = model.generate(**prompt, max_new_tokens=_ANSWER_TOKENS, do_sample=False)
        answers.texts.append(made[0, prompt["input_ids"].shape[1] :].tolist())
    return answers


def _overlay(model: Any, plan: MergePlan) -> None:
    """Give the changed tensors of a model the values they had before they were rounded."""
    import torch

    parameters = {find_core(name): parameter for name, parameter in model.named_parameters()}
    for name, change in plan.changes.items():
        weight = read_floats(plan.base, plan.base.weights.tensors[name])
        parameter = parameters.get(find_core(name))
        if parameter is None:
            raise MergeRefused(f"the check finds no parameter for {name}: merge without it by --no-verify")
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(change.apply(weight).copy()))
    gc.collect()


def _measure(one: _Answers, other: _Answers) -> float:
    pairs = zip(one.logits, other.logits, strict=True)
    shares = [float((first - second).abs().max() / first.abs().max().clamp(min=1e-6)) for first, second in pairs]
    return max(shares) if all(map(isfinite, shares)) else inf


def _count_other(one: _Answers, other: _Answers) -> int:
    return sum(first != second for first, second in zip(one.texts, other.texts, strict=True))
