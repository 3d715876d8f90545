"""Addresses of checkpoints that lie elsewhere, as people write them: what is one, and what is wrong with it."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

SOURCE_KINDS = ("hf", "s3", "gs")
"""The beginnings of addresses that the gateway can fetch from."""

_HUB_FORM = "hf://ORG/NAME[@REVISION][/FOLDER]"
_HUB_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_HUB_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LONGEST_PATH = 1024  # of an object's name, with S3 and GCS alike


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """A checkpoint elsewhere.

    `place` is a repository or a bucket, `path` the folder in it, without slashes around. Without a `revision` it is
    what lies there now.
    """

    kind: str
    place: str
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"{self.kind}://{self.place}{revision}" + (f"/{self.path}" if self.path else "")

    @property
    def name(self) -> str:
        """Its last name, which tells people what it is."""
        return (self.path or self.place).rpartition("/")[2]


def is_address(text: str) -> bool:
    """True for what is meant as an address and not as a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def parse_address(text: str) -> SourceAddress:
    """Read an address. Raises ValueError with a sentence for people; it never shows what was given."""
    kind, _, rest = text.partition("://")
    kind = kind.lower()
    if kind not in SOURCE_KINDS or not is_address(text):
        raise ValueError("should be a folder, hf://ORG/NAME, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")
    return _parse_hub(rest) if kind == "hf" else _parse_bucket(kind, rest)


def _parse_hub(rest: str) -> SourceAddress:
    organisation, _, rest = rest.partition("/")
    named, _, path = rest.partition("/")
    name, marker, revision = named.partition("@")
    revision = unquote(revision)
    if not (_HUB_PART.fullmatch(organisation) and _HUB_PART.fullmatch(name)):
        raise ValueError(f"should be {_HUB_FORM}")
    if organisation in ("datasets", "spaces"):
        raise ValueError(f"{organisation} hold no checkpoints: it should be {_HUB_FORM}")
    if marker and not _HUB_REVISION.fullmatch(revision):
        raise ValueError(f"should be {_HUB_FORM}, with a branch, a tag or a commit as REVISION (a / in it is %2F)")
    return SourceAddress("hf", f"{organisation}/{name}", _read_path(path), revision or None)


def _parse_bucket(kind: str, rest: str) -> SourceAddress:
    bucket, _, path = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"should be {kind}://BUCKET/FOLDER, and credentials stand elsewhere")
    return SourceAddress(kind, bucket, _read_path(path))


def _read_path(path: str) -> str:
    path = path.strip("/")
    if not path:
        return ""
    is_odd = any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or not path.isprintable()
    if is_odd or len(path.encode(errors="replace")) > _LONGEST_PATH:
        raise ValueError("its folder should be names with a / between them, no .. and no \\")
    if path.rpartition("@")[2] in ("best", "newest"):
        raise ValueError("@best and @newest are for folders of this machine: name the checkpoint itself")
    return path
