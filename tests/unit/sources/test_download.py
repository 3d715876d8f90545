import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sources.attempts import FetchTiming
from gateway.sources.checksums import Checksum
from gateway.sources.download import Download, Meter
from gateway.sources.source import FetchCancelled, Listing, RemoteFile, Sink, SourceFailed

TIMING = FetchTiming(attempts=3, first_pause_s=0, longest_pause_s=0, poll_s=0.01)


class Shelf:
    """A source in memory. `on_read` is called before a file is handed out and may raise or hand out other bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.reads: list[tuple[str, int]] = []
        self.on_read: Callable[[str, Sink], None] = lambda name, sink: None

    def list_files(self) -> Listing:
        return Listing("abc", tuple(RemoteFile(name, len(data), "") for name, data in self.files.items()))

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        self.reads.append((file.name, offset))
        self.on_read(file.name, sink)
        sink(self.files[file.name][offset:])

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        return file.checksum


def download(
    shelf: Shelf,
    staging: Path,
    told: Callable[[int, int], None] = lambda done, total: None,
    cancelled: threading.Event | None = None,
) -> None:
    files = shelf.list_files().files
    Download("s3://b", shelf, files, staging, told, cancelled or threading.Event(), TIMING).run()


def test_files_come_with_their_folders_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    download(Shelf({"a.json": b"12", "b/c.json": b"345", "empty": b""}), tmp_path, lambda *at: told.append(at))
    assert (tmp_path / "b" / "c.json").read_bytes() == b"345"
    assert (tmp_path / "empty").read_bytes() == b""
    assert told[-1] == (5, 5)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.json", "c.json", "empty"}


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"12345")
    (tmp_path / "half.partial").write_bytes(b"123")
    (tmp_path / "full.partial").write_bytes(b"12345")
    (tmp_path / "long.partial").write_bytes(b"1234567")
    shelf = Shelf(dict.fromkeys(("whole", "half", "full", "long"), b"12345"))
    download(shelf, tmp_path)
    assert sorted(shelf.reads) == [("half", 3), ("long", 0)]
    assert all((tmp_path / name).read_bytes() == b"12345" for name in shelf.files)


def test_faults_that_pass_are_met_by_asking_again(tmp_path: Path) -> None:
    shelf = Shelf({"a": b"123"})
    faults = [SourceFailed("down", is_final=False)] * 2

    def fail(name: str, sink: Sink) -> None:
        if faults:
            raise faults.pop()

    shelf.on_read = fail
    download(shelf, tmp_path)
    assert len(shelf.reads) == 3


def test_a_line_that_breaks_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    shelf = Shelf({"a": b"123"})

    def break_off(name: str, sink: Sink) -> None:
        raise ConnectionResetError("reset by peer")

    shelf.on_read = break_off
    with pytest.raises(SourceFailed, match="a from s3://b broke off: reset by peer") as caught:
        download(shelf, tmp_path)
    assert (len(shelf.reads), caught.value.is_final) == (TIMING.attempts, False)


def test_an_answer_that_always_ends_early_is_given_up(tmp_path: Path) -> None:
    class Short(Shelf):
        def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
            self.reads.append((file.name, offset))

    shelf = Short({"a": b"123"})
    with pytest.raises(SourceFailed, match="a from s3://b broke off again and again") as caught:
        download(shelf, tmp_path)
    assert (len(shelf.reads), caught.value.is_final) == (TIMING.attempts, False)


@pytest.mark.parametrize("comes", [["123"], ["124", "123"], ["124", "125", "124"]])
def test_parts_that_were_guessed_wrongly_do_not_damn_a_file(tmp_path: Path, comes: list[str]) -> None:
    class Guessing(Shelf):
        def find_checksum(self, file: RemoteFile) -> Checksum | None:
            return Checksum("md5-parts", "0" * 32, 2)

        def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
            self.reads.append((file.name, offset))
            sink(comes[min(len(self.reads), len(comes)) - 1].encode())

    shelf = Guessing({"a": b"123"})
    if len(comes) == 1:
        download(shelf, tmp_path)
        assert ((tmp_path / "a").read_bytes(), len(shelf.reads)) == (b"123", 2)
    else:
        with pytest.raises(SourceFailed, match="came twice from s3://b with other bytes"):
            download(shelf, tmp_path)


def test_a_line_that_only_trickles_is_given_up(tmp_path: Path) -> None:
    class Trickling(Shelf):
        def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
            self.reads.append((file.name, offset))
            sink(b"0")

    shelf = Trickling({"a": b"0" * 1000})
    with pytest.raises(SourceFailed, match="broke off again and again"):
        download(shelf, tmp_path)
    assert len(shelf.reads) == TIMING.attempts


def test_a_line_that_breaks_often_and_comes_far_is_not_given_up(tmp_path: Path) -> None:
    class Breaking(Shelf):
        def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
            sink(self.files[file.name][offset : offset + 2**20])

    download(Breaking({"a": b"0" * 2**23}), tmp_path)
    assert (tmp_path / "a").stat().st_size == 2**23


def test_a_link_that_somebody_left_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"xyz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "outside")
    download(Shelf({"a": b"123"}), tmp_path / "in")
    assert (tmp_path / "in" / "a").read_bytes() == b"123"
    assert not (tmp_path / "in" / "a").is_symlink()
    assert (tmp_path / "outside").read_bytes() == b"xyz"


def test_an_answer_without_an_end_is_cut(tmp_path: Path) -> None:
    shelf = Shelf({"a": b"123"})
    shelf.on_read = lambda name, sink: sink(b"0" * 4)
    with pytest.raises(SourceFailed, match="goes on past its announced size") as caught:
        download(shelf, tmp_path)
    assert caught.value.is_final
    assert not (tmp_path / "a").exists()


def test_one_failure_ends_all_and_is_the_one_that_is_told(tmp_path: Path) -> None:
    shelf = Shelf({"a": b"1", "b": b"2", "c": b"3"})
    others_wait = threading.Event()

    def fail(name: str, sink: Sink) -> None:
        if name == "b":
            raise SourceFailed("refused", is_final=True)
        others_wait.wait(0.05)

    shelf.on_read = fail
    with pytest.raises(SourceFailed, match="refused"):
        download(shelf, tmp_path)


def test_it_ends_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    shelf, cancelled = Shelf({"a": b"123"}), threading.Event()
    shelf.on_read = lambda name, sink: cancelled.set()
    with pytest.raises(FetchCancelled):
        download(shelf, tmp_path, cancelled=cancelled)
    assert not (tmp_path / "a").exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.partial").symlink_to(tmp_path / "outside")
    with pytest.raises(SourceFailed, match="cannot be used"):
        download(Shelf({"a": b"123"}), tmp_path / "in")
    assert (tmp_path / "outside").read_bytes() == b""


def test_without_room_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 4})())
    shelf = Shelf({"a": b"12345"})
    with pytest.raises(SourceFailed, match=r"s3://b needs 5 bytes in .*, where 4 bytes are free"):
        download(shelf, tmp_path)
    assert shelf.reads == []
    (tmp_path / "a.partial").write_bytes(b"12")
    download(shelf, tmp_path)
    assert shelf.reads == [("a", 2)], "only what is missing needs room"


def test_a_download_that_stands_still_has_told_how_far_it_is(tmp_path: Path) -> None:
    shelf, is_told = Shelf({"a": b"1234"}), threading.Event()

    def stand_still(name: str, sink: Sink) -> None:
        sink(b"1")
        assert is_told.wait(5)
        raise SourceFailed("broke off", is_final=False)

    def tell(done_bytes: int, total_bytes: int) -> None:
        if (done_bytes, total_bytes) == (1, 4):
            shelf.on_read = lambda name, sink: None
            is_told.set()

    shelf.on_read = stand_still
    download(shelf, tmp_path, tell)
    assert (tmp_path / "a").read_bytes() == b"1234"


def test_a_meter_counts_until_it_is_ended() -> None:
    end = threading.Event()
    meter = Meter((threading.Event(), end))
    meter.add(5)
    meter.add(-2)
    end.set()
    with pytest.raises(FetchCancelled):
        meter.add(1)
    assert meter.done_bytes == 3
