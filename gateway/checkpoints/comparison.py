"""What changes for clients when one checkpoint takes another's place. Says what differs, not whether that is right."""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import UnreadableError, join_names, make_printable
from gateway.checkpoints.manifest import SAMPLING_KEYS, Manifest, describe
from gateway.checkpoints.tokenizer import TOKENIZER_LIMIT_BYTES

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_ENDS = ("eos_token_id", "bos_token_id", "pad_token_id")
_ABSENT = "none"
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs: what it is, as it was, and as it would be."""

    what: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.before} → {self.now}"

    def to_dict(self) -> dict[str, str]:
        """The change as plain data."""
        return {"what": self.what, "before": self.before, "now": self.now}


def compare(contents: Contents, before: Contents) -> tuple[Change, ...]:
    """What is other in `contents` than in `before`; the weights' values are not compared."""
    return tuple(_list_changes(contents, before))


def _list_changes(contents: Contents, before: Contents) -> Iterator[Change]:
    now_facts, before_facts = describe(contents), describe(before)
    yield from _compare_facts(now_facts, before_facts)
    yield from _compare_templates(contents, before)
    yield from _compare_tokenizers(contents, before)
    for key in SAMPLING_KEYS:
        yield from _compare(key, before.generation.get(key), contents.generation.get(key))
    for key in _ENDS:
        yield from _compare(key, _find(before, key), _find(contents, key))
    yield from _compare_pictures(contents, before)


def _compare_facts(now: Manifest, before: Manifest) -> Iterator[Change]:
    yield from _compare("architecture", ", ".join(before.architectures), ", ".join(now.architectures))
    for what in ("layers", "hidden_size", "vocabulary_size", "context_tokens", "is_tied", "quantization"):
        yield from _compare(what.replace("_", " ").removeprefix("is "), getattr(before, what), getattr(now, what))
    yield from _compare("weights", next(iter(before.bytes_by_dtype), None), next(iter(now.bytes_by_dtype), None))
    yield from _compare("pictures", before.is_visual, now.is_visual)
    yield from _compare("video", before.is_video, now.is_video)


def _compare_templates(now: Contents, before: Contents) -> Iterator[Change]:
    texts = [contents.templates.texts[0][1] if contents.templates.texts else "" for contents in (before, now)]
    if texts[0] == texts[1]:
        return
    if not texts[0] or not texts[1]:
        yield Change("chat template", *("present" if text else _ABSENT for text in texts))
        return
    lines = list(difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), lineterm="", n=0))[2:]
    gone = [line[1:] for line in lines if line.startswith("-")]
    new = [line[1:] for line in lines if line.startswith("+")]
    yield Change("chat template", _count_lines(gone, "gone"), _count_lines(new, "new"))


def _count_lines(lines: list[str], how: str) -> str:
    first = next((line.strip() for line in lines if line.strip()), "")
    return f"{len(lines)} lines {how}" + (f", first {make_printable(first, _LONGEST)!r}" if first else "")


def _compare_tokenizers(now: Contents, before: Contents) -> Iterator[Change]:
    yield from _compare("tokenizer", before.tokenizer.kind, now.tokenizer.kind)
    yield from _compare("tokens", before.tokenizer.size, now.tokenizer.size)
    lost = sorted(before.tokenizer.added.keys() - now.tokenizer.added.keys())
    new = sorted(now.tokenizer.added.keys() - before.tokenizer.added.keys())
    if lost:
        yield Change(f"added tokens {join_names(lost)}", "present", _ABSENT)
    if new:
        yield Change(f"added tokens {join_names(new)}", _ABSENT, "present")
    moved = [
        token for token, number in now.tokenizer.added.items() if before.tokenizer.added.get(token, number) != number
    ]
    if moved:
        yield Change("numbers of tokens", join_names([f"{name} {before.tokenizer.added[name]}" for name in moved]),
                     join_names([f"{name} {now.tokenizer.added[name]}" for name in moved]))  # fmt: skip
    is_same_size = (before.tokenizer.kind, before.tokenizer.size) == (now.tokenizer.kind, now.tokenizer.size)
    if is_same_size and not lost and not new and not moved and _hash_tokenizer(before) != _hash_tokenizer(now):
        yield Change("tokenizer's words and rules", "as they were", "others")
    for key in _SPECIAL:
        yield from _compare(key, before.tokenizer.config.get(key), now.tokenizer.config.get(key))


def _hash_tokenizer(contents: Contents) -> str:
    if not contents.folder.has(contents.tokenizer.file):
        return ""
    try:
        raw = contents.folder.read(contents.tokenizer.file, TOKENIZER_LIMIT_BYTES)
    except UnreadableError:
        return ""
    return hashlib.sha256(raw).hexdigest()


def _compare_pictures(now: Contents, before: Contents) -> Iterator[Change]:
    settings = [contents.preprocessor or contents.processor.section("image_processor") for contents in (before, now)]
    for key in sorted({*settings[0], *settings[1]}):
        if key not in ("processor_class", "image_processor_type") and not key.startswith("_"):
            yield from _compare(f"picture setting {make_printable(key)}", settings[0].get(key), settings[1].get(key))


def _find(contents: Contents, key: str) -> object:
    parts: tuple[Fields, ...] = (contents.generation, contents.text, contents.config)
    return next((part.get(key) for part in parts if key in part), None)


def _compare(what: str, before: object, now: object) -> Iterator[Change]:
    if before != now:
        yield Change(what, _show(before), _show(now))


def _show(value: object) -> str:
    if value is None or value == "":
        return _ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and isinstance(value.get("content"), str):  # a token with its properties
        value = value["content"]
    return make_printable(str(value), _LONGEST)
