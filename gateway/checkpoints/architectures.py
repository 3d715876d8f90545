"""What the engine release knows by name: architectures, ways to pack weights and others, in `architectures.json`."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import msgspec

Task = Literal["generate", "pool", "draft"]
"""What an architecture is for: to answer with text, with vectors or scores, or only to help another model along."""

PLUGGED = "LlavaLlamaModel"
"""NVILA-Lite, which engines serve by the gateway's own plugin."""

_PLUGGED_TYPE = "llava_llama"
_GENERATING_SUFFIXES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
# The engine turns a generating class into a pooling one where the name asks for it.
_POOLING_SUFFIXES = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification",
    "ForRewardModeling", "RewardModel", "Model",
)  # fmt: skip


class Registry(msgspec.Struct, frozen=True):
    """The names one engine release knows."""

    engine: str
    generating: frozenset[str]
    pooling: frozenset[str]
    drafts: frozenset[str]
    by_transformers: frozenset[str]
    removed: dict[str, str]
    model_types: frozenset[str]
    own_templates: frozenset[str]
    packings: frozenset[str]
    reasoning_parsers: frozenset[str]

    def find_task(self, architecture: str) -> Task | None:
        """What the architecture is for, None if the engine does not know it."""
        if architecture in self.generating or architecture in self.by_transformers or architecture == PLUGGED:
            return "generate"
        if architecture in self.pooling or self._is_convertible(architecture):
            return "pool"
        return "draft" if architecture in self.drafts else None

    def has_model_type(self, name: str | None) -> bool:
        """True for a model type whose configuration the engine can read."""
        return name in self.model_types or name == _PLUGGED_TYPE

    def find_nearest(self, architecture: str) -> list[str]:
        """Up to three known names that look like this one."""
        return get_close_matches(architecture[:200], sorted(self.generating | self.pooling), n=3, cutoff=0.75)

    def _is_convertible(self, architecture: str) -> bool:
        stems = [architecture.removesuffix(suffix) for suffix in _POOLING_SUFFIXES if architecture.endswith(suffix)]
        return any(stem + suffix in self.generating for stem in stems for suffix in _GENERATING_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Unserved:
    """A family of models that people bring and this engine release does not serve."""

    name: str
    architectures: tuple[str, ...]
    model_types: tuple[str, ...]


_UNSERVED = (Unserved("VILA and NVILA models in this form", ("VILA", "NVILA"), ("vila", "nvila")),)


_VISION_MOUNTED = (
    "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
)  # fmt: skip
_VISION_UNMOUNTED = ("InternVLForConditionalGeneration", "InternVLChatModel", PLUGGED)


def is_vision_mounted(architectures: tuple[str, ...]) -> bool | None:
    """Whether the engine release mounts adapters on the vision side of such a model; None where nobody has tried."""
    if any(name in _VISION_MOUNTED for name in architectures):
        return True
    return False if any(name in _VISION_UNMOUNTED for name in architectures) else None


def load_registry() -> Registry:
    """Read the names, in under a millisecond."""
    return msgspec.json.decode(Path(__file__).with_name("architectures.json").read_bytes(), type=Registry)


def find_unserved(architectures: tuple[str, ...], model_type: str | None) -> str | None:
    """The family by which people know a model that this release does not serve."""
    for family in _UNSERVED:
        if model_type in family.model_types or any(name.startswith(family.architectures) for name in architectures):
            return family.name
    return None
