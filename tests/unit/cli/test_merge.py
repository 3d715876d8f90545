from pathlib import Path

import pytest

from gateway.checkpoints import check
from gateway.cli import main
from tests.support.safetensors_files import write_adapter, write_checkpoint


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    base, adapter = write_checkpoint(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    return ["merge", "--base", str(base), "--adapter", str(adapter), "--out", str(tmp_path / "out")]


def test_it_says_what_it_did_and_where(tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*given, "--no-verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 of 21 tensors change"
    assert lines[1] == "not checked against the mounted adapter (--no-verify)"
    assert lines[2].startswith(f"written to {tmp_path / 'out'}")
    assert check(tmp_path / "out").is_servable


def test_what_cannot_be_merged_is_one_line_and_leaves_nothing(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    assert main(given) == 1
    error = capsys.readouterr().err
    assert error.startswith("gateway merge: the adapter: adapter_config.json is missing")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_check_that_cannot_be_run_leaves_nothing(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 1, "there is no such tokenizer"
    assert "skip it by --no-verify" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lack", ["a place", "torch"])
def test_what_would_fail_afterwards_is_said_before_anything_is_fetched(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("gateway.cli.merge.find_folder", fetched.append)
    if lack == "torch":
        monkeypatch.setitem(__import__("sys").modules, "torch", None)
    else:
        (tmp_path / "out").write_text("mine")
    assert main(given) == 1
    assert ("skip it by --no-verify" if lack == "torch" else "out is there already") in capsys.readouterr().err
    assert fetched == []


@pytest.mark.parametrize("missing", ["--base", "--adapter", "--out"])
def test_all_three_folders_are_wanted(given: list[str], missing: str) -> None:
    place = given.index(missing)
    with pytest.raises(SystemExit) as caught:
        main(given[:place] + given[place + 2 :])
    assert caught.value.code == 2


def test_without_numpy_it_says_how_to_get_it(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    assert main(given) == 2
    assert "pip install 'nim-gateway[merge]'" in capsys.readouterr().err
