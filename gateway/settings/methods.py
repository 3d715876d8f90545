"""The methods of speculative decoding that the engine release knows, kept in `methods.json`, and what each asks for."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from gateway.settings.problems import Location


class Methods(msgspec.Struct, frozen=True):
    """The names one engine release knows.

    Methods `with_model` need a draft, those `without_model` make nothing of one, and of the rest the draft may be a
    part of the checkpoint. Those `with_number` must be told how far to guess; others find it in their draft or by
    themselves.
    """

    engine: str
    source: str
    names: tuple[str, ...]
    old_names_of_mtp: tuple[str, ...]
    with_model: tuple[str, ...]
    without_model: tuple[str, ...]
    with_number: tuple[str, ...]

    def knows(self, method: str) -> bool:
        """True if the engine takes this name."""
        return method in self.names or method in self.old_names_of_mtp

    def find_kind(self, method: str) -> str:
        """The method that a name stands for; the engine has called `mtp` by the model it was for."""
        return "mtp" if method in self.old_names_of_mtp else method


def load_methods() -> Methods:
    """Read the names, in under a millisecond."""
    return msgspec.json.decode(Path(__file__).with_name("methods.json").read_bytes(), type=Methods)


def find_faults(section: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """What keeps the engine from taking a `speculative` section, by the key that is wrong."""
    method = section.get("method")
    if not isinstance(method, str):
        return
    methods = load_methods()
    if not methods.knows(method):
        near = get_close_matches(method[:100], methods.names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(methods.names)}"
        yield ("method",), f"{methods.engine} has no method {method[:100]!r}: {hint}"
        return
    has_model, has_number = section.get("model") is not None, section.get("num_speculative_tokens") is not None
    if method in methods.with_model and not has_model:
        yield ("model",), f"{method} needs a draft: give its folder, or use ngram, which needs none"
    if method in methods.without_model and has_model:
        yield ("model",), f"{method} makes nothing of a draft: take it out, or use draft_model"
    is_told_by_draft = method not in methods.with_number and (has_model or method == "suffix")
    if not has_number and not is_told_by_draft:
        yield ("num_speculative_tokens",), f"{method} needs to know how many tokens to guess at a time: try 3"
