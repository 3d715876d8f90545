import errno
import os
from pathlib import Path

import pytest

from gateway.sources.disk import explained, require_room, show_size
from gateway.sources.source import SourceFailed


@pytest.mark.parametrize(
    ("number", "said", "is_final"),
    [
        (errno.ENOSPC, "the disk of /c is full: make room", False),
        (errno.EDQUOT, "the disk of /c is full: make room", False),
        (errno.EFBIG, "may not grow as large", True),
        (errno.EACCES, r"the cache /c cannot be used \(Permission denied\): give the user", True),
        (errno.EROFS, r"the cache /c cannot be used \(Read-only file system\)", True),
    ],
)
def test_each_fault_of_the_disk_is_one_sentence(number: int, said: str, is_final: bool) -> None:
    with pytest.raises(SourceFailed, match=said) as caught, explained(Path("/c")):
        raise OSError(number, os.strerror(number))
    assert caught.value.is_final is is_final


def test_room_is_asked_for_before(tmp_path: Path) -> None:
    require_room(1, tmp_path, "hf://o/n")
    with pytest.raises(SourceFailed, match=r"hf://o/n needs 1000\.0 TB in .* are free: make room") as caught:
        require_room(10**15, tmp_path, "hf://o/n")
    assert not caught.value.is_final


def test_sizes_are_readable() -> None:
    assert [show_size(size) for size in (5, 1500, 2_500_000, 10**9, 5 * 10**13)] == [
        "5 bytes", "1.5 kB", "2.5 MB", "1.0 GB", "50.0 TB",
    ]  # fmt: skip
