"""Heads that were read before: a client or an engine sends the same head over and over, but for a few values.

Having a parser call a Python function for each header is the dearest part of a short message. Here nothing is parsed: a
parser has read the very same lines before, in a message of their own, and what they came to is remembered.
"""

import re
from collections.abc import Sequence
from typing import Generic, TypeVar

from gateway.errors import Headers

_MOST_HEAD_BYTES = 4096
_MOST_HEADS = 1000
_MOST_DIGITS = 9
_LENGTH = b"\r\ncontent-length: "
_PLAIN = re.compile(rb"[!-~](?:[ -~]*[!-~])?")  # a parser may refuse other values, or strip them

Head = TypeVar("Head")


Values = list[bytes | None]
"""The values of a head's varying headers, in the order of their names; None for one that is not there."""


class HeadMemo(Generic[Head]):
    """What heads came to, by their lines without those of content-length and of `varying`, names of headers.

    Nothing that is remembered may depend on the values of these; what else it depends on, as keys and limits, must
    stand as long as the memo. Heads that nobody sends any more make room for new ones. Until then they are here in
    full, with the keys that clients show.
    """

    def __init__(self, *varying: bytes) -> None:
        self._names = varying
        self._beginnings = [b"\r\n%b: " % name for name in varying]
        self._recent: dict[bytes, Head] = {}
        self._older: dict[bytes, Head] = {}

    def recall(self, data: bytes) -> tuple[Head, Values, bytes] | None:
        """What the head of `data` came to, the values of its varying headers, and the body behind it.

        None unless `data` is one whole message with a known head; otherwise a parser has to read it.
        """
        cut = _cut(data, self._beginnings)
        if cut is None:
            return None
        lines, values, length, start = cut
        if length != len(data) - start:
            return None
        head = self._recent.get(lines)
        if head is None:
            head = self._older.get(lines)
            if head is None:
                return None
            self._keep(lines, head)
        return head, values, data[start:]

    def remember(self, data: bytes, headers: Headers, head: Head) -> None:
        """A parser has read `headers` in the head that `data`, the first bytes of a message, begins with."""
        cut = _cut(data, self._beginnings)
        if cut is None:
            return
        lines, values, _, _ = cut
        names = [name for name, _ in headers]
        # Where the parser has seen other lines than we did, nothing is remembered.
        counted = [names.count(name) for name in self._names]
        varying_count = len(values) - values.count(None)
        if names.count(b"content-length") != 1 or counted != [int(value is not None) for value in values]:
            return
        if lines.count(b"\r\n") + varying_count == len(names):
            self._keep(lines, head)

    def _keep(self, lines: bytes, head: Head) -> None:
        if len(self._recent) >= _MOST_HEADS:
            self._recent, self._older = {}, self._recent
        self._recent[lines] = head


def _cut(data: bytes, beginnings: Sequence[bytes]) -> tuple[bytes, Values, int, int] | None:
    """The lines that count, the values of those with `beginnings`, the length, and where the body starts.

    None where there is no whole head, or a value that a parser might refuse.
    """
    end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
    if end < 0:
        return None
    lines = data[: end + 2]
    folded = lines.lower()
    at = folded.find(_LENGTH)
    stop = folded.find(b"\r\n", at + 2)
    digits = lines[at + len(_LENGTH) : stop]
    if at < 0 or not digits.isdigit() or len(digits) > _MOST_DIGITS:
        return None
    values: Values = []
    cuts = [(at, stop)]
    for beginning in beginnings:
        value_at = folded.find(beginning)
        if value_at < 0:
            values.append(None)
            continue
        value_stop = folded.find(b"\r\n", value_at + 2)
        value = lines[value_at + len(beginning) : value_stop]
        if not _PLAIN.fullmatch(value):
            return None
        values.append(value)
        cuts.append((value_at, value_stop))
    if len(cuts) > 1:
        cuts.sort(reverse=True)
    for begin, behind in cuts:
        lines = lines[:begin] + lines[behind:]
    return lines, values, int(digits), end + 4
