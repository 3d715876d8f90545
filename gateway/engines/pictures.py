"""Bounds for pictures: from a version's settings to what vLLM wants to be told. Starts nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.checkpoints.architectures import load_registry
from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.findings import join_names
from gateway.checkpoints.pictures import count_picture_tokens, is_bounded_by_pixels

PROCESSOR_FLAG = "mm-processor-kwargs"
TRUST_FLAG = "trust-request-mm-kwargs"


def list_picture_flags(checkpoint: Path, bounds: Mapping[str, int]) -> dict[str, Any]:
    """The flags for `min_pixels` and `max_pixels`; one that is not given stays as the checkpoint has it.

    With a most, requests may bring bounds of their own: relays keep them below it. Raises ValueError with a sentence
    for people where such bounds mean nothing.
    """
    contents = read_contents(checkpoint)
    architectures = contents.config.texts("architectures")
    if not is_bounded_by_pixels(architectures):
        raise ValueError(_explain(architectures))
    cost = count_picture_tokens(contents)
    least = bounds.get("min_pixels") or (cost.least_pixels if cost is not None else None)
    most = bounds.get("max_pixels") or (cost.most_pixels if cost is not None else None)
    if least is None or most is None:
        raise ValueError("pictures: the checkpoint has no bounds of its own, so give both min_pixels and max_pixels")
    if least > most:
        raise ValueError(f"pictures: at least {least:,} pixels and at most {most:,} cannot be: give the other one too")
    # Videos have bounds of their own, which count all their frames.
    flags: dict[str, Any] = {
        PROCESSOR_FLAG: {"images_kwargs": {"size": {"shortest_edge": least, "longest_edge": most}}}
    }
    return flags | {TRUST_FLAG: True} if "max_pixels" in bounds else flags


def _explain(architectures: tuple[str, ...]) -> str:
    message = f"pictures: min_pixels and max_pixels mean nothing to {join_names(architectures) or 'this model'}"
    if any("InternVL" in name for name in architectures):
        mend = (
            f"it cuts pictures into tiles: set engine_args {{{PROCESSOR_FLAG}: {{images_kwargs: {{max_patches: N}}}}}}"
        )
        return f"{message}: {mend}"
    return f"{message}: take them out; {load_registry().engine} bounds pictures so for Qwen's models"
