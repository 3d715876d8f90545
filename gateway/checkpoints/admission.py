"""Admission: whether a folder can be served, and in words why not. Reads headers and samples, starts nothing."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.checkpoints.comparison import Change, compare
from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.digest import compute_digest
from gateway.checkpoints.findings import Finding, error
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.manifest import Manifest, describe
from gateway.checkpoints.memory import MemoryPlan, plan_memory
from gateway.checkpoints.rules.adapter import judge_adapter
from gateway.checkpoints.rules.architecture import judge_architecture
from gateway.checkpoints.rules.drafting import Drafting, judge_draft, judge_method
from gateway.checkpoints.rules.generation import judge_generation
from gateway.checkpoints.rules.mounting import judge_mounting
from gateway.checkpoints.rules.packing import judge_packing
from gateway.checkpoints.rules.processors import judge_processors
from gateway.checkpoints.rules.samples import judge_samples, judge_tied_head
from gateway.checkpoints.rules.shapes import judge_shapes
from gateway.checkpoints.rules.tensors import judge_tensors
from gateway.checkpoints.rules.thinking import judge_thinking
from gateway.checkpoints.rules.vila import judge_vila
from gateway.checkpoints.rules.vocabulary import judge_vocabulary

# A draft head is no model of its own: it has no words and, often, shares what the model has.
_FINE_IN_DRAFTS = (
    "architecture-draft", "architecture-unknown", "model-type-unknown", "model-type-missing", "tokenizer-missing",
    "head-missing", "tensors-missing", "tensors-extra", "layers-missing", "layers-extra", "processor-missing",
)  # fmt: skip
_ORDER = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Report:
    """What a folder is and what is wrong with it, errors first.

    `base` is set if an adapter was checked over it, `against` if it was compared with what is served already.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    base: Path | None = None
    digest: str | None = None
    memory: MemoryPlan | None = None
    against: Path | None = None
    changes: tuple[Change, ...] = ()

    @property
    def has_errors(self) -> bool:
        """True if something keeps the folder from being served."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def is_servable(self) -> bool:
        """True if an engine may be started for it: a sound checkpoint, or a sound adapter over its sound base."""
        is_whole = self.manifest.kind == "checkpoint" or (self.manifest.kind == "adapter" and self.base is not None)
        return is_whole and not self.has_errors

    def reason(self) -> str:
        """Why it cannot be served, on one line with what to do; empty if it can."""
        if self.is_servable:
            return ""
        if not self.has_errors:
            path = self.manifest.path
            return f"{path} is a LoRA adapter: give its base as the checkpoint, and this folder under `adapters`"
        return str(next(finding for finding in self.findings if finding.severity == "error"))

    def to_dict(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "is_servable": self.is_servable,
            "reason": self.reason(),
            "manifest": self.manifest.to_dict(),
            "base": None if self.base is None else str(self.base),
            "digest": self.digest,
            "memory": None if self.memory is None else asdict(self.memory),
            "against": None if self.against is None else str(self.against),
            "changes": [change.to_dict() for change in self.changes],
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a folder from all others, and what its weights take, in bytes as they are stored."""

    digest: str | None
    weights_bytes: int


def identify(path: Path) -> Identity:
    """What a folder is told by, without a judgement of it: a fraction of the work of `check`. Never raises."""
    contents = read_contents(path)
    return Identity(compute_digest(contents.folder), contents.weights.size_bytes)


def check(
    path: Path,
    base: Path | None = None,
    *,
    drafting: Drafting | None = None,
    against: Path | None = None,
    trusts_code: bool = False,
    hardware: Hardware | None = None,
) -> Report:
    """Say whether the folder can be served; an adapter over `base`, if given. Never raises for what is in a folder.

    `drafting` is how some of its tokens are to be guessed ahead. `against` is a checkpoint that it would take the place
    of: the report then tells what differs. Code that the folder brings keeps it from being served unless the caller
    `trusts_code`; packed weights that the `hardware` cannot load, only where it is given.
    """
    contents = read_contents(path)
    manifest = describe(contents)
    found = [*manifest.findings, *_judge(contents, trusts_code=trusts_code, hardware=hardware)]
    if base is not None:
        found += _judge_over(contents, base, trusts_code=trusts_code, hardware=hardware)
    if drafting is not None:
        found += _judge_drafting(contents, drafting, trusts_code=trusts_code, hardware=hardware)
    findings = sorted(dict.fromkeys(found), key=lambda finding: _ORDER.index(finding.severity))
    changes = () if against is None else compare(contents, read_contents(against))
    return Report(
        manifest, tuple(findings), base, compute_digest(contents.folder), plan_memory(contents), against, changes
    )


def _judge_drafting(
    base: Contents, drafting: Drafting, *, trusts_code: bool, hardware: Hardware | None
) -> Iterator[Finding]:
    draft = None if drafting.draft is None else read_contents(drafting.draft)
    if draft is not None:
        fault = _find_fault(draft, trusts_code=trusts_code, hardware=hardware)
        if fault is None and not drafting.may_have_other_words:
            fault = next(judge_draft(draft, base), None)
        if fault is not None:
            yield fault
            return
    yield from judge_method(drafting, base, draft, hardware)


def _find_fault(draft: Contents, *, trusts_code: bool, hardware: Hardware | None) -> Finding | None:
    """What keeps a folder from being a draft of any model."""
    own = [*describe(draft).findings, *_judge(draft, trusts_code=trusts_code, hardware=hardware)]
    fault = next((f for f in own if f.severity == "error" and f.code not in _FINE_IN_DRAFTS), None)
    if fault is None:
        return None
    message = f"the draft {draft.path} cannot be used: {fault.message}"
    return error("draft-unusable", fault.file, message, fault.mend)


def _judge(contents: Contents, *, trusts_code: bool, hardware: Hardware | None) -> Iterator[Finding]:
    if contents.kind == "checkpoint":
        yield from judge_architecture(contents, trusts_code=trusts_code)
        yield from judge_packing(contents, hardware)
        yield from judge_vila(contents)
        misfits = list(judge_shapes(contents))
        yield from misfits
        if not any(finding.severity == "error" for finding in misfits):
            yield from judge_tensors(contents)
        yield from judge_vocabulary(contents)
        yield from judge_thinking(contents)
        yield from judge_processors(contents)
        yield from judge_generation(contents)
        yield from judge_tied_head(contents)
    elif contents.kind == "adapter":
        yield from judge_adapter(contents)
    yield from judge_samples(contents.folder, contents.weights)


def _judge_over(contents: Contents, path: Path, *, trusts_code: bool, hardware: Hardware | None) -> Iterator[Finding]:
    if contents.kind == "checkpoint":
        message = f"{contents.path} is a full checkpoint, not an adapter"
        yield error("adapter-kind", "", message, "serve it as a version of its own, without a base")
        return
    if contents.kind != "adapter":
        return
    base = read_contents(path)
    findings = [*describe(base).findings, *_judge(base, trusts_code=trusts_code, hardware=hardware)]
    if base.kind == "adapter":
        message = f"the base {path} is an adapter itself"
        yield error("base-unusable", "", message, "give the full checkpoint that it was trained on")
        return
    fault = next((finding for finding in findings if finding.severity == "error"), None)
    if fault is not None:
        yield error("base-unusable", fault.file, f"the base {path} cannot be served: {fault.message}", fault.mend)
        return
    yield from judge_mounting(contents, base, hardware)
