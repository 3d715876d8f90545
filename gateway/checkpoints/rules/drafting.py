"""Rules about a draft and the model it is to help along: sound by itself, and of the same words."""

from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, make_printable
from gateway.checkpoints.tokenizer import read_vocabulary

_MEND = "name a draft that was made for this model under `speculative:`, or use the method ngram, which needs none"


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
    its_words, our_words = read_vocabulary(draft.folder), read_vocabulary(base.folder)
    if its_words and our_words and its_words != our_words:  # a draft head has none of its own
        message = f"the draft {name} has other words in its tokenizer.json than the model under the same numbers"
        yield error("draft-misfit", "tokenizer.json", message, _MEND)
