"""The matrices of a LoRA adapter: which module each belongs to, and the shapes they ask of the base."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gateway.checkpoints.safetensors import Tensor
from gateway.checkpoints.weights import Weights

_PREFIX = "base_model.model."
_EMBEDDINGS = (
    ".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight",
)  # fmt: skip

# Parts that come and go between saves of the same model, so that they cannot tell two modules apart.
_CONTAINERS = frozenset((
    "base_model", "model", "language_model", "module", "vision_model", "text_model", "thinker", "llm",
))  # fmt: skip
_VISION = frozenset((
    "visual", "vision_tower", "vision_model", "vision_encoder", "multi_modal_projector", "connector", "mlp1", "merger",
    "mm_projector", "image_encoder", "vit",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices for one module: A is rank by inputs, B outputs by rank."""

    a: Tensor | None = None
    b: Tensor | None = None
    is_embedding: bool = False

    @property
    def rank(self) -> int | None:
        """The rank on which both agree, None where they are no plain matrices or do not."""
        if self.a is None or self.b is None or len(self.a.shape) != 2 or len(self.b.shape) != 2:
            return None
        return self.a.shape[0] if self.a.shape[0] == self.b.shape[1] else None


@dataclass(frozen=True, slots=True)
class Matrices:
    """An adapter's tensors sorted by what they are: pairs by module, copies of the base's embeddings, and others."""

    pairs: Mapping[str, Pair]
    embeddings: tuple[str, ...]
    others: tuple[str, ...]


def read_matrices(weights: Weights) -> Matrices:
    """Sort the tensors of an adapter by their names."""
    pairs: dict[str, Pair] = {}
    embeddings, others = [], []
    for name, tensor in weights.tensors.items():
        if name.endswith(_EMBEDDINGS):
            embeddings.append(name)
            continue
        module, _, role = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        match role:
            case "lora_A":
                pairs[module] = replace(pairs.get(module, Pair()), a=tensor)
            case "lora_B":
                pairs[module] = replace(pairs.get(module, Pair()), b=tensor)
            case "lora_embedding_A":
                pairs[module] = replace(pairs.get(module, Pair()), a=tensor, is_embedding=True)
            case "lora_embedding_B":
                pairs[module] = replace(pairs.get(module, Pair()), b=tensor, is_embedding=True)
            case "score" | "classifier":
                continue
            case _:
                others.append(name)
    return Matrices(pairs, tuple(embeddings), tuple(others))


def is_vision_module(module: str) -> bool:
    """True if the module is part of how a model sees, not of its language model."""
    return not _VISION.isdisjoint(module.split("."))


def find_core(module: str) -> str:
    """A module's name without the parts that differ between saves of the same model."""
    return ".".join(part for part in module.split(".") if part not in _CONTAINERS)


def index_modules(names: Iterable[str]) -> dict[str, str]:
    """For each core name of a module, the name of one tensor of it, its `weight` where it has one."""
    modules: dict[str, str] = {}
    for name in names:
        module, _, part = name.rpartition(".")
        core = find_core(module)
        if core not in modules or part == "weight":
            modules[core] = name
    return modules
