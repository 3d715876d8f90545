"""What can be wrong with the settings, as values. Owns the failure of this room; never prints or exits."""

from collections.abc import Sequence
from dataclasses import dataclass

Location = tuple[str | int, ...]
"""A place in the settings tree, as in `("models", 0, "versions", 1, "checkpoint")`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that stops the start: `where` (file and line, flag or variable), the dotted `key`, and what to do."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class SettingsError(Exception):
    """Every problem found in one reading of the settings. `str()` gives one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


def format_key(location: Location) -> str:
    """Write a location the way people write it: `models[0].versions[1].checkpoint`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
