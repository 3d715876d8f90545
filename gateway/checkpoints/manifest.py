"""What a folder is, in facts: the manifest of a checkpoint or an adapter. Never says whether it can be served."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.checkpoints.architectures import Task, load_registry
from gateway.checkpoints.contents import Contents, Kind, read_contents
from gateway.checkpoints.findings import Finding, make_printable
from gateway.checkpoints.matrices import is_vision_module, read_matrices
from gateway.checkpoints.packing import list_unpacked, read_packing

CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length",
    "max_seq_length", "seq_len",
)  # fmt: skip
"""Names under which configurations give the longest context."""

SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""Keys of generation_config.json that the engine takes as defaults."""

_QUANTIZED = ("qweight", "weight_packed", "weight.absmax", "weight_scale")


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What only an adapter has."""

    type: str | None
    rank: int | None
    alpha: float | None
    target_modules: tuple[str, ...]
    base_name: str | None
    is_dora: bool
    modules_to_save: tuple[str, ...]
    has_vision_parts: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts of a folder. What could not be read is None or empty, and `findings` says why."""

    path: Path
    kind: Kind
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    task: Task | None = None
    is_visual: bool = False
    is_video: bool = False
    parameters: int | None = None
    size_bytes: int = 0
    bytes_by_dtype: Mapping[str, int] = field(default_factory=dict)
    weight_files: int = 0
    layers: int | None = None
    hidden_size: int | None = None
    vocabulary_size: int | None = None
    context_tokens: int | None = None
    is_tied: bool | None = None
    quantization: str | None = None
    packing: tuple[str, ...] = ()
    has_own_code: bool = False
    tokenizer: str | None = None
    tokenizer_size: int | None = None
    chat_template: str | None = None
    generation_defaults: Mapping[str, float] = field(default_factory=dict)
    adapter: AdapterFacts | None = None
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The facts as plain data, without the findings."""
        data = asdict(self) | {"path": str(self.path)}
        del data["findings"]
        return data


def inspect(path: Path) -> Manifest:
    """Say what a folder is, from files and headers. Takes milliseconds; never raises for what is in the folder."""
    return describe(read_contents(path))


def describe(contents: Contents) -> Manifest:
    """The manifest of a folder that has been read."""
    config, text = contents.config, contents.text
    architectures = tuple(make_printable(name) for name in config.texts("architectures"))
    counts = contents.weights.count_by_dtype()
    packing = read_packing(contents)
    return Manifest(
        path=contents.path,
        kind=contents.kind,
        architectures=architectures,
        model_type=_print(config.text("model_type")),
        task=find_task(architectures),
        is_visual=contents.is_visual,
        is_video=_is_video(contents),
        parameters=_count_parameters(contents),
        size_bytes=contents.weights.size_bytes,
        bytes_by_dtype={dtype: size for dtype, (_, size) in counts.items()},
        weight_files=len(contents.weights.files),
        layers=text.first_whole("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        hidden_size=text.first_whole("hidden_size", "n_embd", "d_model", "dim"),
        vocabulary_size=text.first_whole("vocab_size"),
        context_tokens=text.first_whole(*CONTEXT_KEYS),
        is_tied=find_tied(contents),
        quantization=None if packing is None else packing.method,
        packing=tuple(map(str, packing.schemes)) if packing is not None else (),
        has_own_code="auto_map" in config,
        tokenizer=_print(contents.tokenizer.kind),
        tokenizer_size=contents.tokenizer.size,
        chat_template=contents.templates.file or None,
        generation_defaults={
            key: value for key in SAMPLING_KEYS if (value := contents.generation.number(key)) is not None
        },
        adapter=_describe_adapter(contents) if contents.kind == "adapter" else None,
        findings=(
            *contents.findings, *contents.weights.findings, *contents.tokenizer.findings, *contents.templates.findings,
        ),
    )  # fmt: skip


def find_task(architectures: tuple[str, ...]) -> Task | None:
    """What the first architecture that the engine knows is for."""
    registry = load_registry()
    return next((task for name in architectures if (task := registry.find_task(name))), None)


def find_tied(contents: Contents) -> bool | None:
    """Whether input and output embeddings are one tensor; None if the configuration leaves it to the model's class."""
    said = [part.flag("tie_word_embeddings") for part in (contents.text, contents.config)]
    return True if True in said else False if False in said else None


def _count_parameters(contents: Contents) -> int | None:
    """How many numbers the model has, unpacked; None where the packing is not known inside out."""
    tensors = list_unpacked(contents)
    is_unsaid = find_quantization(contents) is None and any(name.endswith(_QUANTIZED) for name in tensors or ())
    return None if not tensors or is_unsaid else sum(tensor.count for tensor in tensors.values())


def _is_video(contents: Contents) -> bool:
    has_token = any(key in contents.config for key in ("video_token_id", "video_token_index"))
    has_file = contents.folder.has("video_preprocessor_config.json") or "video_processor" in contents.processor
    return contents.is_visual and (has_token or has_file or contents.is_in_parts)


def find_quantization(contents: Contents) -> str | None:
    """How the weights are packed by what the folder says; None if they are plain numbers."""
    packing = read_packing(contents)
    return None if packing is None else packing.method


def _describe_adapter(contents: Contents) -> AdapterFacts:
    config = contents.adapter_config
    return AdapterFacts(
        type=_print(config.text("peft_type")),
        rank=config.whole("r"),
        alpha=config.number("lora_alpha"),
        target_modules=tuple(sorted(make_printable(name) for name in config.texts("target_modules"))),
        base_name=_print(config.text("base_model_name_or_path")),
        is_dora=config.flag("use_dora") or False,
        modules_to_save=tuple(make_printable(name) for name in config.texts("modules_to_save")),
        has_vision_parts=any(is_vision_module(name) for name in read_matrices(contents.weights).pairs),
    )


def _print(text: str | None) -> str | None:
    return None if text is None else make_printable(text)
