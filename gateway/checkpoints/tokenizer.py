"""Reads what a checkpoint's tokenizer is: its kind, its size, its added tokens. Tokenizes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import Folder
from gateway.checkpoints.findings import Finding, UnreadableError, error

TOKENIZER_LIMIT_BYTES = 256 * 2**20
"""The longest file of a tokenizer that is read."""

_FAST_FILE = "tokenizer.json"
_MEND = "copy the tokenizer's files from the base model, or save it with tokenizer.save_pretrained"
_LARGE = 10**9


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer as its files describe it; sizes are None where the file is of a kind that is not read."""

    kind: str | None = None
    file: str = ""
    trained_size: int | None = None
    added: Mapping[str, int] = field(default_factory=dict)
    config: Fields = field(default_factory=Fields)
    findings: tuple[Finding, ...] = ()

    @property
    def size(self) -> int | None:
        """One more than the highest token number, where known."""
        if self.trained_size is None:
            return None
        return max([self.trained_size, *(number + 1 for number in self.added.values())])


class _Added(msgspec.Struct):
    id: int
    content: str


class _Model(msgspec.Struct):
    vocab: msgspec.Raw = msgspec.Raw(b"{}")
    type: str | None = None


class _File(msgspec.Struct):
    model: _Model
    added_tokens: list[_Added] = []


def read_tokenizer(folder: Folder) -> Tokenizer:
    """Read the tokenizer of a folder, its kind None if there is none. Never raises."""
    findings: list[Finding] = []
    config = Fields()
    if folder.has("tokenizer_config.json"):
        try:
            config = Fields(folder.read_json("tokenizer_config.json"))
        except UnreadableError as fault:
            findings.append(fault.finding)
    if folder.has("tokenizer.json"):
        try:
            kind, trained, added = _read_fast(folder)
            return Tokenizer(kind, "tokenizer.json", trained, added, config, tuple(findings))
        except UnreadableError as fault:
            return Tokenizer("broken", "tokenizer.json", config=config, findings=(*findings, fault.finding))
    other, file = _find_other(folder, config)
    if folder.has(file):
        try:
            folder.open(file).close()
        except UnreadableError as fault:
            findings.append(fault.finding)
    return Tokenizer(other, file, config=config, findings=tuple(findings))


def _read_fast(folder: Folder) -> tuple[str, int, dict[str, int]]:
    name = _FAST_FILE
    raw = folder.read(name, TOKENIZER_LIMIT_BYTES)
    try:
        content = msgspec.json.decode(raw, type=_File)
        size = _measure(content.model.vocab)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        message = f"{name} is no tokenizer file ({fault})"
        raise UnreadableError(error("tokenizer-broken", name, message, _MEND)) from fault
    added = {token.content: token.id for token in content.added_tokens if 0 <= token.id < _LARGE}
    if size == 0 and not added:
        raise UnreadableError(error("tokenizer-broken", name, f"{name} holds no vocabulary", _MEND))
    return content.model.type or "fast", size, added


def read_vocabulary(folder: Folder) -> dict[str, int] | list[tuple[str, float]] | None:
    """The trained tokens and their numbers, or (Unigram) their scores in order; None where no file says them."""
    if not folder.has(_FAST_FILE):
        return None
    try:
        vocab = msgspec.json.decode(folder.read(_FAST_FILE, TOKENIZER_LIMIT_BYTES), type=_File).model.vocab
        return msgspec.json.decode(vocab, type=dict[str, int] | list[tuple[str, float]])
    except (UnreadableError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _measure(vocab: msgspec.Raw) -> int:
    """One more than the highest number: a map from token to number, or (Unigram) a list of tokens."""
    if bytes(vocab)[:1] == b"[":
        return len(msgspec.json.decode(vocab, type=list[msgspec.Raw]))
    return max(msgspec.json.decode(vocab, type=dict[str, int]).values(), default=-1) + 1


def _find_other(folder: Folder, config: Fields) -> tuple[str | None, str]:
    if folder.has("vocab.json") and folder.has("merges.txt"):
        return "BPE", "vocab.json"
    for pattern, kind in (
        (r"(tokenizer|spiece|sentencepiece.*|spm|vocab)\.(model|spm)", "SentencePiece"),
        (r"tekken\.json|tokenizer\.model\.v\d.*", "Mistral"),
        (r".*\.tiktoken|tiktoken\.model", "tiktoken"),
        (r"vocab\.txt", "WordPiece"),
        (r"tokenization_.*\.py", "own code"),
    ):
        found = folder.find(pattern)
        if found:
            return kind, found[0]
    return ("own code", "tokenizer_config.json") if "auto_map" in config else (None, "")
