"""Heads that were read before: a client or an engine sends the same head over and over, but for a few values.

Having a parser call a Python function for each header is the dearest part of a short message. Here nothing is parsed: a
parser has read the very same lines before, in a message of their own, and what they came to is remembered.
"""

import re
from typing import Generic, TypeVar

from gateway.errors import Headers

_MOST_HEAD_BYTES = 4096
_MOST_HEADS = 1000
_LENGTH = b"\r\ncontent-length: "
_PLAIN = re.compile(rb"[!-~](?:[ -~]*[!-~])?")  # a parser may refuse other values, or strip them

Head = TypeVar("Head")


class HeadMemo(Generic[Head]):
    """What heads came to, by their lines without those of content-length and of `varying`, a header's name.

    Nothing that is remembered may depend on the values of these two; what else it depends on, as keys and limits, must
    stand as long as the memo. Heads that nobody sends any more make room for new ones. Until then they are here in
    full, with the keys that clients show.
    """

    def __init__(self, varying: bytes) -> None:
        self._name = varying
        self._varying = b"\r\n%b: " % varying
        self._recent: dict[bytes, Head] = {}
        self._older: dict[bytes, Head] = {}

    def recall(self, data: bytes) -> tuple[Head, bytes | None, bytes] | None:
        """What the head of `data` came to, the value of its varying header, and the body behind it.

        None unless `data` is one whole message with a known head; otherwise a parser has to read it.
        """
        lines, value, length, start = self._cut(data)
        if length != len(data) - start:
            return None
        head = self._recent.get(lines)
        if head is None:
            head = self._older.get(lines)
            if head is None:
                return None
            self._keep(lines, head)
        return head, value, data[start:]

    def remember(self, data: bytes, headers: Headers, head: Head) -> None:
        """A parser has read `headers` in the head that `data`, the first bytes of a message, begins with."""
        lines, value, length, _ = self._cut(data)
        names = [name for name, _ in headers]
        varying_count = int(value is not None)
        # Where the parser has seen other lines than we did, nothing is remembered.
        if length < 0 or names.count(self._name) != varying_count or names.count(b"content-length") != 1:
            return
        if lines.count(b"\r\n") + 1 + varying_count == len(names):
            self._keep(lines, head)

    def _keep(self, lines: bytes, head: Head) -> None:
        if len(self._recent) >= _MOST_HEADS:
            self._recent, self._older = {}, self._recent
        self._recent[lines] = head

    def _cut(self, data: bytes) -> tuple[bytes, bytes | None, int, int]:
        """The lines that count, the varying value, the content-length (-1: none known), and where the body starts."""
        end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
        if end < 0:
            return b"", None, -1, 0
        lines = data[:end]
        folded = lines.lower()
        at = folded.find(_LENGTH)
        stop = data.find(b"\r\n", at + 2)
        digits = data[at + len(_LENGTH) : stop]
        if at < 0 or not digits.isdigit() or len(digits) > 9:
            return b"", None, -1, 0
        varying_at = folded.find(self._varying)
        if varying_at < 0:
            return lines[:at] + lines[stop:], None, int(digits), end + 4
        varying_stop = data.find(b"\r\n", varying_at + 2)
        value = data[varying_at + len(self._varying) : varying_stop]
        if not _PLAIN.fullmatch(value):
            return b"", None, -1, 0
        if varying_at < at:
            lines = lines[:varying_at] + lines[varying_stop:at] + lines[stop:]
        else:
            lines = lines[:at] + lines[stop:varying_at] + lines[varying_stop:]
        return lines, value, int(digits), end + 4
