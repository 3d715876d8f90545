from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from tests.support.safetensors_files import write_adapter, write_checkpoint
from tests.support.stores import GcsStore, checkpoint_files


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsStore]:
    base = checkpoint_files(write_checkpoint(tmp_path / "base"))
    adapter = checkpoint_files(write_adapter(tmp_path / "adapter"))
    files = {f"base/{name}": data for name, data in base.items()}
    files |= {f"adapter/{name}": data for name, data in adapter.items()}
    with GcsStore(files) as store:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
        monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
        yield store


def test_it_prints_where_it_lies(gcs: GcsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "gs://bucket/base"]) == 0
    told = capsys.readouterr()
    folder = Path(told.out.strip())
    assert folder.is_relative_to(tmp_path / "cache")
    assert checkpoint_files(folder) == checkpoint_files(tmp_path / "base")
    assert told.err == ""


def test_the_cache_can_be_elsewhere(gcs: GcsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "gs://bucket/base", "--cache-dir", str(tmp_path / "other")]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "other"))


def test_what_cannot_be_had_is_one_line(gcs: GcsStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "gs://bucket/none"]) == 1
    told = capsys.readouterr()
    assert told.err == "gateway fetch: there is nothing in gs://bucket/none: check the address\n"
    assert told.out == ""


def test_a_store_that_cannot_be_asked_is_said(gcs: GcsStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "gs://bucket/base"]) == 0
    first = capsys.readouterr().out
    gcs.close()
    assert main(["fetch", "gs://bucket/base"]) == 0
    told = capsys.readouterr()
    assert told.out == first
    assert "Google Cloud Storage does not answer" in told.err
    assert told.err.count("what was fetched before is used") == 1


@pytest.mark.parametrize("given", ["/models/a", "org/name", "hf:/org/name"])
def test_a_folder_is_wrong_use(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", given]) == 2
    assert "is no address: give hf://ORG/NAME" in capsys.readouterr().err


def test_check_and_merge_take_addresses(gcs: GcsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "gs://bucket/base"]) == 0
    assert main(["check", "gs://bucket/adapter", "--base", "gs://bucket/base"]) == 0
    out = str(tmp_path / "out")
    merge = ["merge", "--base", "gs://bucket/base", "--adapter", "gs://bucket/adapter", "--out", out, "--no-verify"]
    assert main(merge) == 0
    assert main(["check", out]) == 0
    capsys.readouterr()
    assert main(["check", "gs://bucket/none"]) == 1
    assert "gateway check: there is nothing in gs://bucket/none" in capsys.readouterr().err
    assert main(["merge", "--base", "gs://bucket/none", "--adapter", out, "--out", f"{out}2"]) == 1
    assert "gateway merge: there is nothing in gs://bucket/none" in capsys.readouterr().err
