"""Google Cloud Storage's source with the real library over a server on loopback."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.addresses import parse_address
from gateway.sources import open_source
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.fetching import Fetched, fetch
from gateway.sources.source import SourceFailed
from tests.support.stores import GcsStore

WEIGHTS = os.urandom(300_000)
FILES = {
    "m/config.json": b"{}",
    "m/model.safetensors": WEIGHTS,
    "m/composed.safetensors": WEIGHTS[:5000],
    "m/sub/": b"",
    "other/model.safetensors": b"x" * 3000,
}
TIMING = FetchTiming(first_pause_s=0, longest_pause_s=0, poll_s=0.01)


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsStore]:
    with GcsStore(dict(FILES)) as store:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
        yield store


def get(folder: Path, address: str = "gs://bucket/m") -> Fetched:
    return fetch(
        parse_address(address), Cache(folder), open_source, lambda done, total: None, threading.Event(), TIMING
    )


def test_a_folder_of_a_bucket_is_fetched(gcs: GcsStore, tmp_path: Path) -> None:
    folder = get(tmp_path).folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "composed.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_an_object_that_breaks_off_goes_on_where_it_stopped(gcs: GcsStore, tmp_path: Path) -> None:
    gcs.files["m/composed.safetensors"] = b"small"
    gcs.faults.cuts, gcs.faults.cut_bytes = 2, 131_072
    assert (get(tmp_path).folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [offset for name, offset in gcs.asked if name == "m/model.safetensors"] == [0, 131_072, 262_144]


@pytest.mark.parametrize("name", ["m/model.safetensors", "m/composed.safetensors"])
def test_damaged_bytes_are_never_served(gcs: GcsStore, tmp_path: Path, name: str) -> None:
    gcs.files = {"m/config.json": b"{}", name: WEIGHTS}
    gcs.faults.damages = 100
    with pytest.raises(SourceFailed, match="came twice from gs://bucket/m with other bytes"):
        get(tmp_path)


def test_no_bucket_and_nothing_in_it(gcs: GcsStore, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="there is no bucket none-such: check the address") as caught:
        get(tmp_path, "gs://none-such/m")
    assert caught.value.is_final
    with pytest.raises(SourceFailed, match="there is nothing in gs://bucket/none: check the address"):
        get(tmp_path, "gs://bucket/none")


def test_a_bucket_is_a_folder_too(gcs: GcsStore, tmp_path: Path) -> None:
    gcs.files = {"config.json": b"{}", "model.safetensors": WEIGHTS}
    assert len(list(get(tmp_path, "gs://bucket").folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("status", "said", "is_final"),
    [
        (401, "set GOOGLE_APPLICATION_CREDENTIALS", True),
        (403, "role Storage Object Viewer", True),
        (503, "answered 503", False),
    ],
)
def test_each_refusal_is_one_sentence(gcs: GcsStore, tmp_path: Path, status: int, said: str, is_final: bool) -> None:
    gcs.faults.status = status
    with pytest.raises(SourceFailed, match=said) as caught:
        get(tmp_path)
    assert caught.value.is_final is is_final


def test_a_store_that_is_down_leaves_what_was_fetched_before(gcs: GcsStore, tmp_path: Path) -> None:
    first = get(tmp_path)
    gcs.close()
    again = get(tmp_path)
    assert (again.folder, again.note is None) == (first.folder, False)
    with pytest.raises(SourceFailed, match="Google Cloud Storage does not answer") as caught:
        get(tmp_path / "other")
    assert not caught.value.is_final


def test_an_object_that_goes_meanwhile_may_come_again(gcs: GcsStore, tmp_path: Path) -> None:
    source = open_source(parse_address("gs://bucket/m"))
    file = next(file for file in source.list_files().files if file.name == "config.json")
    gcs.files.clear()
    with pytest.raises(SourceFailed, match="changes while it is fetched") as caught:
        source.read(file, 0, lambda piece: None)
    assert not caught.value.is_final


@pytest.mark.parametrize("is_retryable", [True, False])
def test_credentials_that_cannot_be_had_now_may_be_had_later(
    gcs: GcsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_retryable: bool
) -> None:
    from google.auth.exceptions import RefreshError, TransportError
    from google.cloud import storage

    def stutter(*args: Any, **options: Any) -> None:
        cause = None if is_retryable else TransportError("no answer")
        raise RefreshError("http://metadata/token?secret", retryable=is_retryable) from cause

    monkeypatch.setattr(storage.Client, "list_blobs", stutter)
    with pytest.raises(SourceFailed, match="who gives out the credentials for gs://bucket/m does not answer") as caught:
        get(tmp_path)
    assert not caught.value.is_final
    assert "secret" not in str(caught.value)


def test_credentials_that_are_refused_are_final(gcs: GcsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth.exceptions import RefreshError
    from google.cloud import storage

    def refuse(*args: Any, **options: Any) -> None:
        raise RefreshError("invalid_grant")

    monkeypatch.setattr(storage.Client, "list_blobs", refuse)
    with pytest.raises(SourceFailed, match=r"set GOOGLE_APPLICATION_CREDENTIALS \(invalid_grant\)") as caught:
        get(tmp_path)
    assert caught.value.is_final


def test_without_credentials_it_says_where_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    def find_none(*args: Any, **options: Any) -> None:
        raise DefaultCredentialsError("none were found")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(google.auth, "default", find_none)
    with pytest.raises(SourceFailed, match="set GOOGLE_APPLICATION_CREDENTIALS") as caught:
        get(tmp_path)
    assert caught.value.is_final
