"""Everything read from one folder, once: documents, tensor headers, tokenizer, templates. Judges nothing but form."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import Folder, find_odd_links, list_folder
from gateway.checkpoints.findings import Finding, UnreadableError, error
from gateway.checkpoints.parts import is_in_parts, read_parts
from gateway.checkpoints.runs import find_best, find_checkpoint, list_steps
from gateway.checkpoints.templates import Templates, read_templates
from gateway.checkpoints.tokenizer import Tokenizer, read_tokenizer
from gateway.checkpoints.weights import Weights, read_adapter_weights, read_weights

Kind = Literal["checkpoint", "adapter", "run", "unknown"]
"""What a folder is. A run is the folder of a training, with checkpoints inside."""

GENERATION_FILE = "generation_config.json"

_VISION_SECTIONS = ("vision_config", "vision_encoder", "vision_tower_cfg")
_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "llm_cfg")


@dataclass(frozen=True, slots=True)
class Contents:
    """One folder as read. Documents that are missing or broken are empty, and `findings` says so."""

    path: Path
    kind: Kind
    folder: Folder
    config: Fields = field(default_factory=Fields)
    adapter_config: Fields = field(default_factory=Fields)
    generation: Fields = field(default_factory=Fields)
    preprocessor: Fields = field(default_factory=Fields)
    processor: Fields = field(default_factory=Fields)
    weights: Weights = field(default_factory=Weights)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    templates: Templates = field(default_factory=Templates)
    findings: tuple[Finding, ...] = ()

    @property
    def text(self) -> Fields:
        """The part of the configuration that describes the language model."""
        config = self.config.section("thinker_config") or self.config
        return next((part for name in _TEXT_SECTIONS if (part := config.section(name))), config)

    @property
    def is_visual(self) -> bool:
        """True if the model takes pictures."""
        config = self.config.section("thinker_config") or self.config
        has_tower = any(config.text(key) for key in ("vision_tower", "mm_vision_tower"))
        return any(config.section(key) for key in _VISION_SECTIONS) or has_tower

    @property
    def is_in_parts(self) -> bool:
        """True if the language model, the tower and the projector have a folder each, as those of VILA have."""
        return is_in_parts(self.config)

    @property
    def is_mistral(self) -> bool:
        """True for Mistral's own form of a checkpoint, of which only the weights are looked at.

        Where both forms are there, the engine takes this one.
        """
        return self.folder.has("params.json") and (
            not self.folder.has("config.json") or bool(self.folder.find(r"consolidated.*\.safetensors"))
        )


def read_contents(path: Path) -> Contents:
    """Read a folder, of a run the checkpoint that is asked for. Never raises for what is in it or not there."""
    try:
        path = find_checkpoint(path)
        folder = list_folder(path)
    except UnreadableError as fault:
        return Contents(path, "unknown", Folder(path, {}), findings=(fault.finding,))
    kind = _find_kind(folder)
    if kind == "run":
        return Contents(path, kind, folder, findings=(_explain_run(folder),))
    if kind == "unknown":
        return Contents(path, kind, folder, findings=(_explain_unknown(folder),))
    findings = list(find_odd_links(folder))
    if kind == "adapter":
        config = _read(folder, "adapter_config.json", findings)
        weights = read_adapter_weights(folder)
        return Contents(
            path, kind, folder, adapter_config=config, weights=weights, tokenizer=read_tokenizer(folder),
            findings=tuple(findings),
        )  # fmt: skip
    return _read_checkpoint(folder, findings)


def _read_checkpoint(folder: Folder, findings: list[Finding]) -> Contents:
    is_mistral = folder.has("params.json") and not folder.has("config.json")
    name = "params.json" if is_mistral else "config.json"
    config = _read(folder, name, findings)
    if not folder.has(name):
        mend = "save the model with save_pretrained, or copy config.json from the base model"
        findings.append(error("config-missing", name, f"{name} is missing", mend))
    if is_in_parts(config):
        return _read_in_parts(folder, config, findings)
    tokenizer = read_tokenizer(folder)
    return Contents(
        path=folder.path,
        kind="checkpoint",
        folder=folder,
        config=config,
        generation=_read(folder, GENERATION_FILE, findings),
        preprocessor=_read(folder, "preprocessor_config.json", findings),
        processor=_read(folder, "processor_config.json", findings),
        weights=read_weights(folder),
        tokenizer=tokenizer,
        templates=read_templates(folder, tokenizer.config),
        findings=tuple(findings),
    )


def _read_in_parts(folder: Folder, config: Fields, findings: list[Finding]) -> Contents:
    parts = read_parts(folder, config)
    return Contents(
        path=folder.path,
        kind="checkpoint",
        folder=parts.folder,
        config=parts.config,
        generation=parts.generation,
        preprocessor=parts.preprocessor,
        weights=parts.weights,
        tokenizer=parts.tokenizer,
        templates=parts.templates,
        findings=(*findings, *parts.findings, *find_odd_links(parts.folder)),
    )


def _read(folder: Folder, name: str, findings: list[Finding]) -> Fields:
    if not folder.has(name):
        return Fields()
    try:
        return Fields(folder.read_json(name))
    except UnreadableError as fault:
        findings.append(fault.finding)
        return Fields()


def _find_kind(folder: Folder) -> Kind:
    has_weights = bool(folder.find(r"(?!adapter_).*\.(safetensors|bin)|.*\.safetensors\.index\.json"))
    if folder.has("adapter_config.json") and not folder.find(
        r"(model|consolidated|pytorch_model).*\.(safetensors|bin)"
    ):
        return "adapter"
    if list_steps(folder) and not (folder.has("config.json") and has_weights):
        return "run"
    if folder.has("config.json") or folder.has("params.json") or has_weights:
        return "checkpoint"
    return "adapter" if folder.has("adapter_model.safetensors") else "unknown"


def _explain_run(folder: Folder) -> Finding:
    steps, best = list_steps(folder), find_best(folder)
    mend = f"give {folder.path}@newest, which is {steps[-1]}"
    if best is not None:
        mend += f", or {folder.path}@best, {best} by its trainer_state.json"
    message = f"{folder.path} is the folder of a training run, with {len(steps)} checkpoints in it"
    return error("folder-is-run", "", message, mend)


def _explain_unknown(folder: Folder) -> Finding:
    message = f"{folder.path} is no checkpoint: it has no config.json, no adapter_config.json and no weights"
    inner = _find_inner(folder)
    if inner:
        return error("folder-unknown", "", message, f"give the folder inside it: {inner}")
    return error("folder-unknown", "", message, "give the folder that holds config.json and *.safetensors")


def _find_inner(folder: Folder) -> Path | None:
    """A checkpoint one level down, or in the snapshots of a Hugging Face cache."""
    places = [folder.path / name for name in folder.find_folders(r"[^.].*")[:50]]
    if (folder.path / "snapshots").is_dir():
        try:
            places = sorted((folder.path / "snapshots").iterdir())[:50]
        except OSError:
            return None
    for place in places:
        for name in ("config.json", "adapter_config.json"):
            if (place / name).is_file():
                return place
    return None
