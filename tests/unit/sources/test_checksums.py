import hashlib
import zlib
from pathlib import Path

import google_crc32c
import pytest

from gateway.sources.checksums import Checksum, add_up

DATA = bytes(range(256)) * 40_000  # more than one piece


def parts(data: bytes, length: int) -> str:
    digests = [hashlib.md5(data[start : start + length]).digest() for start in range(0, len(data), length)]
    return hashlib.md5(b"".join(digests)).hexdigest()


@pytest.mark.parametrize(
    "checksum",
    [
        Checksum("sha256", hashlib.sha256(DATA).hexdigest()),
        Checksum("sha1", hashlib.sha1(DATA).hexdigest()),
        Checksum("md5", hashlib.md5(DATA).hexdigest()),
        Checksum("git", hashlib.sha1(b"blob 10240000\0" + DATA).hexdigest()),
        Checksum("crc32", f"{zlib.crc32(DATA):08x}"),
        Checksum("crc32c", f"{google_crc32c.value(DATA):08x}"),
        Checksum("md5-parts", parts(DATA, 1_000_001), 1_000_001),
        Checksum("md5-parts", parts(DATA, 5_120_000), 5_120_000),
        Checksum("md5-parts", parts(DATA, 20_000_000), 20_000_000),
    ],
    ids=lambda checksum: f"{checksum.kind} {checksum.part_bytes}",
)
def test_a_changed_bit_is_seen(tmp_path: Path, checksum: Checksum) -> None:
    (tmp_path / "good").write_bytes(DATA)
    (tmp_path / "bad").write_bytes(DATA[:-1] + b"\0")
    assert add_up(tmp_path / "good", checksum) == checksum.value
    assert add_up(tmp_path / "bad", checksum) != checksum.value


def test_git_knows_the_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert add_up(tmp_path / "empty", Checksum("git", "")) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_whoever_waits_can_end_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)

    def end() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_up(tmp_path / "file", Checksum("md5", ""), end)
