"""What can be wrong with a checkpoint, as values. Text that came from a checkpoint is made printable here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""An error keeps the checkpoint from being served, a warning does not, a note is only worth knowing."""

_MOST_CHARACTERS = 120
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth saying. `code` is stable and documented, `file` is inside the folder or empty."""

    severity: Severity
    code: str
    file: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.message}: {self.mend}" if self.mend else self.message

    def to_dict(self) -> dict[str, str]:
        """The finding as plain data."""
        return {
            "severity": self.severity, "code": self.code, "file": self.file, "message": self.message, "mend": self.mend,
        }  # fmt: skip


def error(code: str, file: str, message: str, mend: str) -> Finding:
    """A fault that keeps the folder from being served."""
    return Finding("error", code, make_printable(file), make_printable(message, None), make_printable(mend, None))


def warning(code: str, file: str, message: str, mend: str) -> Finding:
    """A fault that some requests will meet, or that hides a mistake."""
    return Finding("warning", code, make_printable(file), make_printable(message, None), make_printable(mend, None))


def note(code: str, file: str, message: str, mend: str = "") -> Finding:
    """Something worth knowing that harms nothing."""
    return Finding("note", code, make_printable(file), make_printable(message, None), make_printable(mend, None))


class UnreadableError(Exception):
    """A file or value cannot be used; carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def make_printable(text: str, most_characters: int | None = _MOST_CHARACTERS) -> str:
    """`text` on one line, without characters that a terminal would obey, cut in the middle when it is long."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    if most_characters is None or len(clean) <= most_characters:
        return clean
    half = (most_characters - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"


def join_names(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(make_printable(name) for name in names[:most])
    left = len(names) - most
    return f"{shown} and {left} more" if left > 0 else shown
