import argparse
import json
from pathlib import Path

import pytest

from gateway.checkpoints import check
from gateway.cli import main
from gateway.cli.check import add_parser, list_facts, render
from tests.support.safetensors_files import edit_json, write_adapter, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", is_visual=True)


def test_good_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"✓ {folder}: servable"
    assert "  takes          text, pictures, video" in lines
    assert "  weights        776 parameters, F32 3.03 KiB" in lines
    assert "\x1b" not in "".join(lines)


def test_bad_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.json").unlink()
    assert main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"✗ {folder}: not servable"
    assert "  error    tokenizer.json is missing, and no other tokenizer is in the folder" in lines
    assert lines[-1].startswith("        → save it beside the model")


def test_warnings_are_counted_and_harmless(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "chat_template.jinja").unlink()
    assert main(["check", str(folder)]) == 0
    assert f"✓ {folder}: servable, 1 warning" in capsys.readouterr().out


def test_adapter_alone_and_over_its_base(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = write_adapter(tmp_path / "lora")
    assert main(["check", str(adapter)]) == 0
    assert "a sound adapter; --base DIR says whether it fits" in capsys.readouterr().out
    assert main(["check", str(adapter), "--base", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"✓ {adapter}: fits {folder}" in out
    assert "  rank           4, alpha 8" in out
    assert main(["check", str(folder), "--base", str(folder)]) == 1


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(folder / "config.json", architectures=["Mine"])
    assert main(["check", "--json", str(folder)]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["is_servable"] is False
    assert data["findings"][0]["code"] == "architecture-unknown"
    assert data["manifest"]["kind"] == "checkpoint"


@pytest.mark.parametrize("arguments", [["hf://maker/model"], ["/x", "--base", "s3://bucket/model"]])
def test_address_is_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == 2
    assert "is an address; download it first" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--nothing"]])
def test_wrong_use(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["check", *arguments])
    assert caught.value.code == 2


def test_terminal_lines_keep_to_the_width(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"x" * 20)
    report = check(folder)
    narrow = [line.plain for line in render(report, 60)]
    assert all(len(line) <= 60 for line in narrow[1:])
    assert len(narrow) > len(list(render(report, None)))


def test_bytes_and_counts_are_scaled(folder: Path) -> None:
    facts = dict(list_facts(check(folder).manifest))
    assert facts["shape"] == "layers 2, hidden 8, vocabulary 16, separate output head"
    assert facts["context"] == "128 tokens"
    assert facts["defaults"] == "temperature 0.7"
