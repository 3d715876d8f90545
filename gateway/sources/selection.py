"""Which files of a folder elsewhere serving needs. Names come from others and are refused when they play tricks."""

import re
from collections.abc import Iterable

from gateway.sources.source import RemoteFile, SourceFailed

# What an engine reads beside the weights, and the parts of models that make embeddings.
_DOCUMENTS = re.compile(r"[^/]+\.(json|jinja|txt|model|spm|tiktoken|py)", re.IGNORECASE)
_PARTS = re.compile(r"(\d+_\w+/[^/]+\.(json|safetensors)|additional_chat_templates/[^/]+\.jinja)")
_WEIGHTS = re.compile(r"[^/]+\.safetensors")
_PICKLES = re.compile(r"[^/]+\.(bin|pt|pth|pkl|pickle|ckpt)", re.IGNORECASE)
_ARCHIVES = re.compile(r".*\.(zip|tar|tgz|gz|bz2|xz|zst|7z|rar)", re.IGNORECASE)
_LONGEST_PART_BYTES = 200  # file systems take 255, and ".partial" is added
_LONGEST_DOCUMENT_BYTES = 256 * 2**20
_MOST_FILES = 10_000


def choose(place: str, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files to fetch, the largest first; `place` names the source in messages.

    Pickles are never among them, and archives neither: nothing is unpacked. Raises SourceFailed where a name could
    lead out of the folder, and where nothing could be served.
    """
    found = list(files)
    if len(found) > _MOST_FILES:
        raise SourceFailed(
            f"{place} holds more than {_MOST_FILES:,} files: name the folder of one checkpoint", is_final=True
        )
    for file in found:
        _require_plain_name(place, file.name)
    wanted = [file for file in found if is_wanted(file.name)]
    if not any(_WEIGHTS.fullmatch(file.name) for file in wanted):
        raise SourceFailed(_explain_nothing(place, [file.name for file in found]), is_final=True)
    for file in wanted:
        if file.size_bytes > _LONGEST_DOCUMENT_BYTES and not file.name.endswith(".safetensors"):
            raise SourceFailed(f"{file.name} in {place} is far too long for its kind: replace it", is_final=True)
    return sorted(wanted, key=lambda file: -file.size_bytes)


def is_wanted(name: str) -> bool:
    """True for the name of a file that is fetched."""
    is_hidden = name.startswith(".")
    return not is_hidden and any(form.fullmatch(name) for form in (_WEIGHTS, _DOCUMENTS, _PARTS))


def _require_plain_name(place: str, name: str) -> None:
    parts = name.split("/")
    fault = None
    if not name or not name.isprintable():
        fault = "a name with characters that no file should have"
    elif name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in parts):
        fault = "a name that leads elsewhere"
    elif any(len(part.encode(errors="replace")) > _LONGEST_PART_BYTES for part in parts):
        fault = "a name too long for a file"
    if fault is not None:
        shown = ascii(name if len(name) <= 60 else f"{name[:60]}…")
        raise SourceFailed(f"{place} has {fault}, {shown}: find out where it came from", is_final=True)


def _explain_nothing(place: str, names: list[str]) -> str:
    if not names:
        return f"there is nothing in {place}: check the address"
    if any(_PICKLES.fullmatch(name) for name in names):
        return (
            f"{place} has its weights as pickles only, which can run any code: "
            "load them where they are trusted and save them as safetensors"
        )
    if any(_ARCHIVES.fullmatch(name) for name in names):
        return f"{place} has an archive and no safetensors; archives are never unpacked: upload the files themselves"
    return f"there are no safetensors in {place}: give the folder that holds config.json"
