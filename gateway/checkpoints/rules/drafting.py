"""Rules about speculative decoding: whether a draft fits the model that it is to help along, and a method the two.

What a method cannot do was tried on the engine release, which finds out when it has loaded, or at the first request.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import Finding, error, make_printable
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.tokenizer import read_vocabulary

_LAYER = re.compile(r"layers\.(\d+)\.")
_ROPE_KEYS = ("mrope_section", "xdrope_section")
_NEED_DEVICE = ("ngram_gpu",)  # seen to die on a CPU
_NGRAM = "use the method ngram"
_MEND = "name a draft that was made for this model under `speculative:`, or use the method ngram, which needs none"


@dataclass(frozen=True, slots=True)
class Drafting:
    """Speculative decoding that is to be judged: the method, where known, and the draft's folder, where it has one.

    An engine without `has_suffix_package` cannot
    do the method suffix. `is_cached`: prompts that were read are kept for the next request. A draft that
    `may_have_other_words` is translated by the engine (`use_heterogeneous_vocab`).
    """

    method: str | None = None
    draft: Path | None = None
    has_suffix_package: bool = True
    is_cached: bool = True
    may_have_other_words: bool = False


def judge_method(
    drafting: Drafting, base: Contents, draft: Contents | None, hardware: Hardware | None = None
) -> Iterator[Finding]:
    """Findings about a method with this model and, where there is one, this draft; on `hardware`, if it is given."""
    method, is_cpu = drafting.method, hardware is not None and hardware.kind == "cpu"
    if method == "draft_model" and draft is not None and _has_rope_of_pictures(draft):
        message = f"the draft {make_printable(draft.path.name)} counts positions as models do that see (M-RoPE)"
        mend = f"give a draft for text alone, of the same vocabulary, or {_NGRAM}"
        yield error("draft-rope", "config.json", f"{message}, which the engine takes from no draft", mend)
    if method == "mtp" and draft is None and not _has_own_guesses(base):
        message = "the method mtp guesses with layers of the checkpoint itself, and this one has none for it"
        yield error("method-layers", "", message, f"copy the weights of its `mtp` layers too, or {_NGRAM}")
    if method == "suffix" and not drafting.has_suffix_package:
        message = "the method suffix needs the package arctic-inference, which is not installed"
        yield error("method-package", "", message, f"pip install arctic-inference==0.1.1, or {_NGRAM}")
    if is_cpu and method in _NEED_DEVICE:
        yield error("method-device", "", f"the method {method} does not work on a CPU", _NGRAM)
    if is_cpu and method == "mtp" and drafting.is_cached and "linear_attention" in base.text.texts("layer_types"):
        message = "on a CPU the method mtp dies of this model's first request while prompts are cached"
        yield error("method-cache", "", message, "set engine_args {enable-prefix-caching: false}")


def _has_rope_of_pictures(contents: Contents) -> bool:
    parts = [contents.text, contents.config]
    ropes = [part.section(key) for part in parts for key in ("rope_parameters", "rope_scaling")]
    return any(key in part for part in (*parts, *ropes, *_list_inner(ropes)) for key in _ROPE_KEYS)


def _list_inner(ropes: list[Fields]) -> Iterator[Fields]:
    """Settings of positions by kind of layer, one level down."""
    for rope in ropes:
        yield from (rope.section(key) for key in rope)


def _has_own_guesses(base: Contents) -> bool:
    """True if there are layers beside those that answer: by name, or by a number past the last."""
    names, count = base.weights.tensors, base.text.whole("num_hidden_layers")
    if any("mtp" in name for name in names):
        return True
    numbers = (int(found[1]) for name in names if (found := _LAYER.search(name)))
    return count is not None and max(numbers, default=0) >= count


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
