"""Checkpoints in parts, as NVIDIA publishes the VILA family: language model, vision tower and projector apart.

The parts' own documents count, `config.json` only repeats them (by the released code of VILA, llava/model). Reads what
the other readers read, part by part; judges nothing but form.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import Folder, list_folder
from gateway.checkpoints.findings import Finding, UnreadableError, error
from gateway.checkpoints.templates import Templates, read_templates
from gateway.checkpoints.tokenizer import Tokenizer, read_tokenizer
from gateway.checkpoints.weights import Weights, read_weights

LANGUAGE, TOWER, PROJECTOR = "llm", "vision_tower", "mm_projector"
PARTS = (LANGUAGE, TOWER, PROJECTOR)
"""The folders, and the beginnings of the names that their tensors have here."""

MEDIA_TOKENS = ("<image>", "<vila/video>")
"""What marks pictures and videos in a prompt."""

FOLDS = {"mlp_downsample_2x2_fix": 2, "mlp_downsample_3x3_fix": 3}
"""Projectors that are served: how many patches along each side they make one token of."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What was read of the parts, under names that begin with the part's. `config` is the whole one."""

    folder: Folder
    config: Fields
    generation: Fields = field(default_factory=Fields)
    preprocessor: Fields = field(default_factory=Fields)
    weights: Weights = field(default_factory=Weights)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    templates: Templates = field(default_factory=Templates)
    findings: tuple[Finding, ...] = ()


def is_in_parts(config: Fields) -> bool:
    """True for the `config.json` of such a checkpoint."""
    return any(f"{part}_cfg" in config for part in PARTS)


def find_fold(config: Fields) -> int | None:
    """How many patches along each side the projector makes one token of; None for one that is not served."""
    return FOLDS.get(config.section(f"{PROJECTOR}_cfg").text("mm_projector_type") or "")


def read_parts(folder: Folder, config: Fields) -> Parts:
    """Read all parts. Never raises; what is wrong is among the findings."""
    found: dict[str, Folder] = {}
    findings: list[Finding] = []
    for part in PARTS:
        try:
            found[part] = list_folder(folder.path / part)
        except UnreadableError as fault:
            findings.append(_explain_part(part, fault.finding))
    documents = {f"{part}_cfg": _read(found, part, "config.json", findings) for part in found}
    entries = dict(folder.entries)
    for part, inner in found.items():
        entries |= {f"{part}/{name}": replace(entry, name=f"{part}/{name}") for name, entry in inner.entries.items()}
    words = found.get(LANGUAGE, Folder(folder.path / LANGUAGE, {}))
    tokenizer = read_tokenizer(words)
    return Parts(
        folder=Folder(folder.path, entries),
        config=Fields({key: config.get(key) for key in config} | {key: own for key, own in documents.items() if own}),
        generation=Fields(_read(found, LANGUAGE, "generation_config.json", findings, is_needed=False)),
        preprocessor=Fields(_read(found, TOWER, "preprocessor_config.json", findings, is_needed=False)),
        weights=_join(found),
        tokenizer=_place_tokenizer(tokenizer),
        templates=_place_templates(read_templates(words, tokenizer.config)),
        findings=tuple(findings),
    )


def _explain_part(part: str, finding: Finding) -> Finding:
    mend = "copy the whole folder as it was published: llm/, vision_tower/ and mm_projector/ beside config.json"
    return error("part-missing", f"{part}/", f"the part {part}/ cannot be read ({finding.message})", mend)


def _read(
    found: Mapping[str, Folder], part: str, name: str, findings: list[Finding], *, is_needed: bool = True
) -> dict[str, object]:
    if part not in found or (not is_needed and not found[part].has(name)):
        return {}
    try:
        return found[part].read_json(name)
    except UnreadableError as fault:
        findings.append(_place(part, fault.finding))
        return {}


def _join(found: Mapping[str, Folder]) -> Weights:
    """The weights of all parts as if they were one model's."""
    read = {part: read_weights(folder) for part, folder in found.items()}
    tensors = {
        f"{part}.{name}": replace(tensor, name=f"{part}.{name}", file=f"{part}/{tensor.file}")
        for part, weights in read.items()
        for name, tensor in weights.tensors.items()
    }
    files = tuple(f"{part}/{name}" for part, weights in read.items() for name in weights.files)
    findings = [finding for part, weights in read.items() for finding in _place_all(part, weights.findings)]
    return Weights(files, tensors, tuple(findings))


def _place_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    file = f"{LANGUAGE}/{tokenizer.file}" if tokenizer.file else ""
    return replace(tokenizer, file=file, findings=_place_all(LANGUAGE, tokenizer.findings))


def _place_templates(templates: Templates) -> Templates:
    file = f"{LANGUAGE}/{templates.file}" if templates.file else ""
    return replace(templates, file=file, findings=_place_all(LANGUAGE, templates.findings))


def _place_all(part: str, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(_place(part, finding) for finding in findings)


def _place(part: str, finding: Finding) -> Finding:
    return replace(finding, file=f"{part}/{finding.file}", message=f"{part}/: {finding.message}")
