import os
from pathlib import Path

import pytest

from gateway.checkpoints.files import find_odd_links, list_folder
from gateway.checkpoints.findings import UnreadableError


def test_listing_and_finding(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("12345")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "inner").mkdir()
    folder = list_folder(tmp_path)
    assert folder.find(r".*\.txt") == ["a.txt", "b.txt"]
    assert folder.find_folders(r".*") == ["inner"]
    assert folder.measure("b.txt") == 5
    assert not folder.has("inner")
    assert folder.read("b.txt") == b"12345"


def test_reading_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    with list_folder(tmp_path).open("a") as file:
        assert file.read(4, 3) == b"3456"
        assert file.read(99, 8) == b"89"
        assert file.size_bytes == 10


@pytest.mark.parametrize("name", ["gone", "inner", "pipe", "/dev/zero", "../a"])
def test_what_is_no_plain_file_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("x")
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    os.mkfifo(root / "pipe")
    with pytest.raises(UnreadableError):
        list_folder(root).open(name)


def test_device_by_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(UnreadableError, match="no plain file"):
        list_folder(tmp_path).read("zero")


def test_file_that_vanished_after_the_listing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    folder = list_folder(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(UnreadableError, match="a is missing"):
        folder.open("a")


def test_file_that_became_a_pipe_after_the_listing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    folder = list_folder(tmp_path)
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UnreadableError, match="no plain file"):
        folder.open("a")


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert [finding.code for finding in find_odd_links(list_folder(tmp_path))] == ["link-broken", "link-broken"]


def test_folder_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.checkpoints.files._MOST_ENTRIES", 2)
    for name in "abc":
        (tmp_path / name).write_text("x")
    with pytest.raises(UnreadableError, match="holds more than 2 files"):
        list_folder(tmp_path)
