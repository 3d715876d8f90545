"""The Hub's source and everything over it, with the real library over a server on loopback."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.addresses import SourceAddress, parse_address
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.fetching import Fetched, fetch
from gateway.sources.hub import HubSource
from gateway.sources.source import Listing, RemoteFile, SourceFailed
from tests.support.stores import HubStore, Store

WEIGHTS = os.urandom(700_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle" * 1000,
    "README.md": b"# hello",
    "sub/config.json": b"{}",
    "sub/model.safetensors": b"s" * 3000,
}
TIMING = FetchTiming(first_pause_s=0, longest_pause_s=0, poll_s=0.01)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStore]:
    # Other tests keep the libraries offline; this one has been read when it was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with HubStore(dict(FILES)) as store:
        yield store


def get(hub: HubStore, folder: Path, address: str = "hf://org/name", timing: FetchTiming = TIMING) -> Fetched:
    def open_source(address: SourceAddress) -> HubSource:
        return HubSource(address, hub.url)

    return fetch(
        parse_address(address), Cache(folder), open_source, lambda done, total: None, threading.Event(), timing
    )


def test_a_commit_is_fetched_whole_without_pickles(hub: HubStore, tmp_path: Path) -> None:
    fetched = get(hub, tmp_path)
    assert fetched.revision == hub.commit == fetched.folder.name
    assert {path.name for path in fetched.folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched.note is None


def test_a_folder_of_a_repository(hub: HubStore, tmp_path: Path) -> None:
    folder = get(hub, tmp_path, f"hf://org/name@{hub.commit}/sub").folder
    assert (folder / "model.safetensors").read_bytes() == b"s" * 3000


def test_what_is_there_is_not_fetched_again(hub: HubStore, tmp_path: Path) -> None:
    first = get(hub, tmp_path)
    hub.asked.clear()
    assert get(hub, tmp_path) == first
    assert hub.asked == []


def test_a_commit_that_is_there_needs_no_network(hub: HubStore, tmp_path: Path) -> None:
    first = get(hub, tmp_path)
    hub.close()
    again = get(hub, tmp_path, f"hf://org/name@{hub.commit}")
    assert (again.folder, again.note) == (first.folder, None)


def test_where_the_hub_is_down_the_last_known_revision_is_used_and_said(hub: HubStore, tmp_path: Path) -> None:
    first = get(hub, tmp_path)
    hub.close()
    again = get(hub, tmp_path)
    assert again.folder == first.folder
    assert again.note is not None
    assert "does not answer" in again.note
    assert f"what was fetched before is used, revision {hub.commit[:12]} of 20" in again.note


def test_whoever_wants_no_network_gets_what_is_there(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = get(hub, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    again = get(hub, tmp_path)
    assert (again.folder, hub.requests) == (first.folder, [])
    assert again.note is not None
    assert again.note.startswith("HF_HUB_OFFLINE is set, so the Hub is not asked; what was fetched before is used")


def test_a_blip_is_not_taken_for_a_hub_that_is_down(hub: HubStore, tmp_path: Path) -> None:
    get(hub, tmp_path)
    hub.commit_files(FILES | {"config.json": b"{}"})
    sources: list[HubSource] = []

    class Stuttering(HubSource):
        def list_files(self) -> Listing:
            sources.append(self)
            if len(sources) < 3:
                raise SourceFailed("a blip", is_final=False)
            return super().list_files()

    fetched = fetch(
        parse_address("hf://org/name"), Cache(tmp_path), lambda address: Stuttering(address, hub.url),
        lambda done, total: None, threading.Event(), TIMING,
    )  # fmt: skip
    assert (fetched.revision, fetched.note) == (hub.commit, None)


def test_without_network_and_without_a_copy_there_is_no_waiting(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceFailed, match="HF_HUB_OFFLINE is set") as caught:
        get(hub, tmp_path)
    assert caught.value.is_final


def test_a_login_in_the_endpoint_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    source = HubSource(parse_address("hf://org/name"), "http://user:secret@127.0.0.1:9")
    with pytest.raises(SourceFailed, match=r"does not answer at http://127\.0\.0\.1:9 ") as caught:
        source.list_files()
    assert "secret" not in str(caught.value)


def test_without_a_copy_a_hub_that_is_down_is_a_fault_that_may_pass(hub: HubStore, tmp_path: Path) -> None:
    hub.close()
    with pytest.raises(SourceFailed, match="the Hub does not answer at http") as caught:
        get(hub, tmp_path)
    assert not caught.value.is_final


def test_a_moved_branch_is_another_folder(hub: HubStore, tmp_path: Path) -> None:
    first = get(hub, tmp_path).folder
    hub.commit_files(FILES | {"config.json": b'{"model_type": "qwen2"}'})
    hub.asked.clear()
    second = get(hub, tmp_path).folder
    assert [name for name, _ in hub.asked] == ["config.json"], "the rest is the same"
    assert (first / "config.json").read_bytes() != (second / "config.json").read_bytes()


def test_a_file_that_breaks_off_goes_on_where_it_stopped(hub: HubStore, tmp_path: Path) -> None:
    hub.faults.cuts, hub.faults.cut_bytes = 3, 200_000
    assert (get(hub, tmp_path).folder / "model.safetensors").read_bytes() == WEIGHTS
    offsets = [offset for name, offset in hub.asked if name == "model.safetensors"]
    assert offsets == [0, 200_000, 400_000, 600_000]


def test_a_server_without_ranges_is_read_from_the_beginning(hub: HubStore, tmp_path: Path) -> None:
    hub.faults.cuts, hub.faults.cut_bytes, hub.faults.ignores_ranges = 1, 200_000, True
    assert (get(hub, tmp_path).folder / "model.safetensors").read_bytes() == WEIGHTS


def test_bytes_that_were_damaged_once_are_fetched_again(hub: HubStore, tmp_path: Path) -> None:
    hub.faults.damages = 1
    assert (get(hub, tmp_path).folder / "model.safetensors").read_bytes() == WEIGHTS


def test_damaged_bytes_are_never_served(hub: HubStore, tmp_path: Path) -> None:
    hub.faults.damages = 100
    with pytest.raises(SourceFailed, match="came twice from hf://org/name with other bytes") as caught:
        get(hub, tmp_path)
    assert caught.value.is_final
    assert not [path for path in tmp_path.rglob("*.safetensors*") if path.is_file()]


@pytest.mark.parametrize(
    ("status", "code", "said", "is_final"),
    [
        (401, None, "there is no hf://org/name, or this account may not see it: check the name, or set HF_TOKEN", True),
        (403, "GatedRepo", "hf://org/name is gated: ask for access on its page", True),
        (403, None, r"the Hub refuses hf://org/name \(403\): set HF_TOKEN", True),
        (404, "RepoNotFound", "there is no hf://org/name", True),
        (404, "RevisionNotFound", "hf://org/name has no revision main", True),
        (400, None, "the Hub answered 400", True),
        (429, None, "the Hub answered 429", False),
        (503, None, "the Hub answered 503", False),
    ],
)
def test_each_refusal_is_one_sentence(
    hub: HubStore, tmp_path: Path, status: int, code: str | None, said: str, is_final: bool
) -> None:
    hub.faults.status, hub.faults.error_code = status, code
    with pytest.raises(SourceFailed, match=said) as caught:
        get(hub, tmp_path)
    assert caught.value.is_final is is_final
    assert "\n" not in str(caught.value)
    assert len(hub.requests) == (1 if is_final else TIMING.attempts)


def test_what_is_no_hub_is_said(hub: HubStore, tmp_path: Path) -> None:
    hub.faults.status = 200
    with pytest.raises(SourceFailed, match="does not speak like the Hub: check HF_ENDPOINT"):
        get(hub, tmp_path)


def test_a_commit_that_leads_elsewhere_is_refused(hub: HubStore, tmp_path: Path) -> None:
    hub.commit = "../../../outside"
    with pytest.raises(SourceFailed, match="does not speak like the Hub"):
        get(hub, tmp_path)


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\b.json", "a\0b.json", "x" * 300])
def test_names_that_play_tricks_are_refused(hub: HubStore, tmp_path: Path, name: str) -> None:
    hub.files[name] = b"{}"
    with pytest.raises(SourceFailed, match="find out where it came from") as caught:
        get(hub, tmp_path)
    assert caught.value.is_final
    assert hub.asked == []


def test_without_a_library_of_its_own_it_asks_for_nothing_else(hub: HubStore) -> None:
    source = HubSource(parse_address("hf://org/name"), hub.url)
    listing = source.list_files()
    file = next(file for file in listing.files if file.name == "config.json")
    assert source.find_checksum(file) == file.checksum
    got: list[bytes] = []
    source.read(RemoteFile("config.json", 23, ""), 10, got.append)
    assert b"".join(got) == FILES["config.json"][10:]


@pytest.mark.parametrize(("status", "is_final"), [(403, True), (404, True), (429, False), (500, False)])
def test_a_file_that_is_refused_is_one_sentence_too(hub: HubStore, status: int, is_final: bool) -> None:
    source = HubSource(parse_address("hf://org/name"), hub.url)
    file = source.list_files().files[0]
    hub.faults.status = status
    with pytest.raises(SourceFailed, match="hf://org/name") as caught:
        source.read(file, 0, lambda piece: None)
    assert caught.value.is_final is is_final
    assert "\n" not in str(caught.value)


def test_a_login_goes_to_the_hub_and_not_to_where_it_sends_for_the_bytes(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str | None]] = []

    class Elsewhere(Store):
        def answer(self, handler: Any) -> None:
            seen.append(("elsewhere", handler.headers.get("authorization")))
            self.send_file(handler, "model.safetensors", {})

    class Sending(HubStore):
        def send_file(self, handler: Any, name: str, headers: dict[str, str]) -> None:
            seen.append(("hub", handler.headers.get("authorization")))
            url = elsewhere.url.replace("127.0.0.1", "localhost")
            handler.answer(b"", 302, {"location": f"{url}/{name}"})

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Elsewhere({"model.safetensors": WEIGHTS}) as elsewhere, Sending({"model.safetensors": WEIGHTS}) as sending:
        folder = get(sending, tmp_path).folder
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert seen == [("hub", "Bearer hf_secret"), ("elsewhere", None)]
