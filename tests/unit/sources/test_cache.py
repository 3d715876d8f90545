import os
import threading
from pathlib import Path

import pytest

from gateway.settings.addresses import parse_address
from gateway.sources.cache import Cache, Entry
from gateway.sources.checksums import Checksum
from gateway.sources.source import FetchCancelled, RemoteFile, SourceFailed

FILES = [RemoteFile("config.json", 2, ""), RemoteFile("1_Pooling/config.json", 3, "")]
NEVER = threading.Event()


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return open_entry(tmp_path)


def open_entry(folder: Path, address: str = "hf://org/name") -> Entry:
    return Cache(folder).open(parse_address(address))


def publish(entry: Entry, revision: str = "abc") -> Path:
    with entry.lock(NEVER):
        staging = entry.prepare(revision)
        (staging / "config.json").write_bytes(b"{}")
        (staging / "1_Pooling").mkdir(exist_ok=True)
        (staging / "1_Pooling" / "config.json").write_bytes(b"{ }")
        return entry.publish(revision, FILES)


def test_what_is_published_is_found(entry: Entry) -> None:
    assert entry.find("abc") is None
    folder = publish(entry)
    assert entry.find("abc") == folder
    assert folder.name == "abc"


@pytest.mark.parametrize("damage", ["removed", "shorter", "a link", "a folder", "no record"])
def test_what_is_not_whole_is_not_found_and_can_be_fetched_again(entry: Entry, damage: str) -> None:
    file = publish(entry) / "config.json"
    if damage == "no record":
        (entry.folder / "abc.json").write_text("[")
    else:
        file.unlink()
    if damage == "shorter":
        file.write_bytes(b"{")
    elif damage == "a link":
        (file.parent / "else").write_bytes(b"{}")
        file.symlink_to("else")
    elif damage == "a folder":
        file.mkdir()
    assert entry.find("abc") is None
    assert entry.find("abc") is None
    assert (publish(entry) / "config.json").read_bytes() == b"{}"


def test_what_an_earlier_attempt_left_is_not_served(entry: Entry) -> None:
    with entry.lock(NEVER):
        (entry.prepare("abc") / "stranger.json").touch()
    assert not (publish(entry) / "stranger.json").exists()


def test_files_that_did_not_change_are_shared(entry: Entry) -> None:
    first = publish(entry)
    changed = [FILES[0], RemoteFile("1_Pooling/config.json", 3, "other tag")]
    with entry.lock(NEVER):
        staging = entry.prepare("next")
        entry.reuse("next", changed)
        entry.reuse("next", changed)
        assert [path.name for path in staging.rglob("*")] == ["config.json"]
        assert (staging / "config.json").samefile(first / "config.json")
        (staging / "1_Pooling").mkdir()
        (staging / "1_Pooling" / "config.json").write_bytes(b"[ ]")
        second = entry.publish("next", changed)
    assert (first / "1_Pooling" / "config.json").read_bytes() == b"{ }"
    assert (second / "1_Pooling" / "config.json").read_bytes() == b"[ ]"


@pytest.mark.parametrize(
    "file",
    [
        RemoteFile("config.json", 3, ""),
        RemoteFile("config.json", 2, "", Checksum("md5", "")),
        RemoteFile("x.json", 2, ""),
    ],
)
def test_only_what_is_the_same_is_shared(entry: Entry, file: RemoteFile) -> None:
    publish(entry)
    with entry.lock(NEVER):
        staging = entry.prepare("next")
        entry.reuse("next", [file])
        assert list(staging.iterdir()) == []


def test_nothing_is_shared_with_what_is_not_whole(entry: Entry) -> None:
    (publish(entry) / "1_Pooling" / "config.json").unlink()
    with entry.lock(NEVER):
        staging = entry.prepare("next")
        entry.reuse("next", FILES)
        assert list(staging.iterdir()) == []


def test_a_disk_without_links_is_no_fault(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*places: Path) -> None:
        raise PermissionError

    publish(entry)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with entry.lock(NEVER):
        entry.prepare("next")
        entry.reuse("next", FILES)


def test_what_is_not_whole_is_not_published(entry: Entry) -> None:
    with entry.lock(NEVER):
        entry.prepare("abc")
        with pytest.raises(SourceFailed, match="was changed while it was fetched") as caught:
            entry.publish("abc", FILES)
    assert not caught.value.is_final


def test_what_was_begun_of_a_revision_that_is_past_is_removed(tmp_path: Path) -> None:
    entry, other = open_entry(tmp_path), open_entry(tmp_path, "hf://org/name@v2")
    with entry.lock(NEVER):
        first, of_other = entry.prepare("abc"), other.prepare("def")
        (first / "half").touch()
        assert (entry.prepare("abc") / "half").exists(), "it goes on from there"
        entry.prepare("next")
    assert not first.exists()
    assert of_other.exists(), "somebody else is on the way there"


def test_what_an_address_meant_is_kept_for_each_branch(tmp_path: Path) -> None:
    entry, branch = open_entry(tmp_path), open_entry(tmp_path, "hf://org/name@dev")
    assert entry.recall() is None
    with entry.lock(NEVER):
        entry.remember("abc")
        branch.remember("def")
    assert [known and known.revision for known in (entry.recall(), branch.recall())] == ["abc", "def"]
    (entry.folder / "known.json").write_text('{"": {"revision": 3}}')
    assert entry.recall() is None


def test_different_folders_have_different_places(tmp_path: Path) -> None:
    addresses = (
        "hf://a/b", "hf://a/b/c", "s3://bucket/a/b", "gs://bucket/a/b", "s3://bucket/a--b",
        "s3://bucket/" + "x" * 1000, "s3://bucket/" + "x" * 1001,
    )  # fmt: skip
    places = {open_entry(tmp_path, address).folder for address in addresses}
    assert len(places) == len(addresses)
    assert all(len(place.name) < 110 for place in places)
    assert open_entry(tmp_path, "hf://a/b@v1").folder == open_entry(tmp_path, "hf://a/b").folder


def test_one_at_a_time_fetches_a_source(tmp_path: Path) -> None:
    with open_entry(tmp_path).lock(NEVER):
        ended = threading.Event()
        ended.set()
        with pytest.raises(FetchCancelled), open_entry(tmp_path).lock(ended):
            pass
    with open_entry(tmp_path).lock(NEVER):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_cache_without_the_right_to_write_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(SourceFailed, match="cannot be used") as caught, open_entry(tmp_path / "c").lock(NEVER):
            pass
    finally:
        os.seteuid(0)
    assert caught.value.is_final
    assert "GATEWAY_CACHE_DIR" in str(caught.value)


def test_a_file_in_the_place_of_the_cache_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceFailed, match="cannot be used"), open_entry(tmp_path / "file").lock(NEVER):
        pass
