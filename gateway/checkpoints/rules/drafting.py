"""Rules about a draft and the model it is to help along: sound by itself, and of the same words."""

from collections.abc import Iterator

import msgspec

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, UnreadableError, error, make_printable

_TOKENIZER_LIMIT_BYTES = 256 * 2**20
_MEND = "name a draft that was made for this model under `speculative:`, or use the method ngram, which needs none"


class _Model(msgspec.Struct):
    vocab: dict[str, int] | list[tuple[str, float]] | None = None


class _File(msgspec.Struct):
    model: _Model


def judge_draft(draft: Contents, base: Contents) -> Iterator[Finding]:
    """Findings about `draft` as the draft of `base`. Whether it is sound in itself is judged elsewhere."""
    if not draft.config:
        return
    ours, its = base.text.whole("vocab_size"), draft.text.whole("vocab_size")
    name = make_printable(draft.path.name)
    if ours is not None and its is not None and ours != its:
        message = (
            f"the draft {name} has {its:,} tokens in its config.json, the model {ours:,}: it would guess other words"
        )
        yield error("draft-misfit", "config.json", message, _MEND)
        return
    its_words, our_words = _read_vocabulary(draft), _read_vocabulary(base)
    if its_words and our_words and its_words != our_words:  # a draft head has none of its own
        message = f"the draft {name} has other words in its tokenizer.json than the model under the same numbers"
        yield error("draft-misfit", "tokenizer.json", message, _MEND)


def _read_vocabulary(contents: Contents) -> object:
    """The tokens and their numbers as they stand in tokenizer.json; nothing where there is none, or none to compare."""
    if not contents.folder.has("tokenizer.json"):
        return None
    try:
        raw = contents.folder.read("tokenizer.json", _TOKENIZER_LIMIT_BYTES)
        return msgspec.json.decode(raw, type=_File).model.vocab
    except (UnreadableError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
