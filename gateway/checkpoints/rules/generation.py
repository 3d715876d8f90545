"""Rules about generation: defaults that every request would inherit, and an end to every answer."""

from collections.abc import Iterator

from gateway.checkpoints.contents import GENERATION_FILE, Contents
from gateway.checkpoints.findings import Finding, error, make_printable, warning
from gateway.checkpoints.manifest import find_task

_END = "eos_token_id"

# Bounds of the engine's own check of a request; the defaults below go into every request that is silent.
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, float("inf")),
    "top_p": (1e-9, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-9, float("inf")),
    "top_k": (-1, float("inf")),
    "max_new_tokens": (1, float("inf")),
}


def judge_generation(contents: Contents) -> Iterator[Finding]:
    """Findings about generation_config.json and the end of answers."""
    for key, (least, most) in _BOUNDS.items():
        value = contents.generation.number(key)
        if key in contents.generation and (value is None or not least <= value <= most):
            shown = make_printable(repr(contents.generation.get(key)), 40)
            message = f"{GENERATION_FILE}: {key} is {shown}, with which every request would be refused"
            yield error("generation-value", GENERATION_FILE, message, "set a value in range, or remove the line")
    if contents.config and not contents.is_mistral and not _has_end(contents):
        message = "config.json and generation_config.json name no eos_token_id, so answers end only at their limit"
        mend = "copy eos_token_id from the base model's generation_config.json"
        yield warning("end-missing", GENERATION_FILE, message, mend)


def _has_end(contents: Contents) -> bool:
    if find_task(contents.config.texts("architectures")) != "generate":
        return True
    parts = (contents.generation, contents.config, contents.text)
    return any(_END in part for part in parts) or "eos_token" in contents.tokenizer.config
