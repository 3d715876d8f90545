from pathlib import Path

import pytest

from gateway.cli import main


def test_settings_that_cannot_be_used_are_told_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "g.yaml"
    config.write_text("models:\n  - name: m\n    versions:\n      - {name: v1, checkpoint: nowhere, typo: 1}\n")
    assert main(["serve", "--config", str(config)]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "typo" in told


def test_a_missing_checkpoint_folder_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--checkpoint", "/nowhere/at/all"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_a_name_needs_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--demo", "--name", "x"]) == 2
    assert "--checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["serve"], ["serve", "--demo", "--config", "f"], ["serve", "--port", "x", "--demo"]])
def test_wrong_flags_exit_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
