import argparse
import json
from pathlib import Path

import pytest

from gateway.checkpoints import check
from gateway.cli import main
from gateway.cli.check import add_parser, list_facts, read_size, render
from tests.support.packed_files import FP8_WEIGHTS, write_packed
from tests.support.safetensors_files import edit_json, write_adapter, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", is_visual=True)


def test_good_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"✓ {folder}: servable"
    assert "  takes          text, pictures, video" in lines
    assert "  weights        1.58 k parameters, F32 6.16 KiB" in lines
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


def test_needs_and_digest_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
    edit_json(folder / "preprocessor_config.json", **settings)
    assert main(["check", str(folder), "--memory", "12 KiB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    weights_bytes = check(folder).manifest.size_bytes
    assert "64 B of cache a token, 8 KiB for one whole context" in next(line for line in lines if "memory" in line)
    room = (12 * 1024 * 9 // 10 - weights_bytes) // 64
    assert f"  in 12 KiB      a context of {room} tokens" in lines
    cost = "4 to 16,384 tokens (of 3,136 to 12,845,056 pixels), 391 for 640x480, 2,691 for 1920x1080"
    assert f"  a picture      {cost}" in lines
    assert f"  digest         {check(folder).digest}"[:33] in lines
    assert main(["check", str(folder), "--memory", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fitting_context_tokens"] == 0


@pytest.mark.parametrize(
    ("text", "size"), [("10", 10), ("24GiB", 24 * 2**30), ("80GB", 80 * 10**9), ("1.5 k", 1500), ("2MiB", 2**21)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 X", "GiB"])
def test_what_is_no_size_is_wrong_use(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write it as 24GiB"):
        read_size(text)


def test_what_differs_is_shown(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_checkpoint(tmp_path / "other", is_visual=True)
    assert main(["check", str(other), "--against", str(folder)]) == 0
    assert f"  against {folder}: the same but for its weights" in capsys.readouterr().out.splitlines()
    edit_json(other / "generation_config.json", temperature=0.1)
    assert main(["check", str(other), "--against", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index(f"  against {folder}") + 1] == "    temperature: 0.7 → 0.1"
    assert main(["check", str(other), "--against", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == [{"what": "temperature", "before": "0.7", "now": "0.1"}]


def test_a_draft_is_looked_at_with_its_model(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = write_checkpoint(tmp_path / "draft")
    assert main(["check", str(folder), "--draft", str(draft)]) == 0
    edit_json(draft / "config.json", vocab_size=99)
    assert main(["check", str(folder), "--draft", str(draft)]) == 1
    assert "the draft" in capsys.readouterr().out


def test_code_is_to_be_trusted_expressly(folder: Path) -> None:
    edit_json(folder / "config.json", architectures=["Mine"], auto_map={"AutoModel": "m.M"})
    assert main(["check", str(folder)]) == 1
    assert main(["check", str(folder), "--trust-remote-code"]) == 0


@pytest.mark.parametrize("arguments", [["https://host/model"], ["/x", "--base", "s3://B/model"]])
def test_what_is_no_address_is_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == 2
    assert "gateway check: an address should be" in capsys.readouterr().err


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


def test_the_device_decides_what_can_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_packed(tmp_path / "packed", FP8_WEIGHTS))
    assert main(["check", folder, "--device", "cuda"]) == 0
    assert (
        "quantization   compressed-tensors; floating point of 8 bits, a scale for each channel"
        in capsys.readouterr().out
    )
    assert main(["check", folder, "--device", "cpu"]) == 1
    assert "has nothing to compute with on a CPU" in capsys.readouterr().out


def test_a_method_of_speculation_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_checkpoint(tmp_path / "model"))
    assert main(["check", folder, "--method", "ngram"]) == 0
    assert main(["check", folder, "--method", "deepseek_mtp"]) == 1
    assert "this one has none for it" in capsys.readouterr().out
    assert main(["check", folder, "--method", "guess"]) == 2
    assert "vLLM 0.32 has no method 'guess'; there are ngram," in capsys.readouterr().err
