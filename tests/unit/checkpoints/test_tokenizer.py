from pathlib import Path

import pytest

from gateway.checkpoints.files import Folder, list_folder
from gateway.checkpoints.tokenizer import Tokenizer, read_tokenizer, read_vocabulary
from tests.support.safetensors_files import write_json, write_tokenizer


def read(folder: Path) -> Tokenizer:
    return read_tokenizer(list_folder(folder))


def test_size_counts_added_tokens(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, trained=10, added={"<a>": 3, "<b>": 12})
    tokenizer = read(tmp_path)
    assert (tokenizer.kind, tokenizer.trained_size, tokenizer.size) == ("BPE", 10, 13)


def test_list_of_pieces(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer.json", {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}})
    assert read(tmp_path).size == 2


def test_the_vocabulary_is_read_whatever_its_form(tmp_path: Path) -> None:
    assert read_vocabulary(list_folder_of(tmp_path, {"other.json": {}})) is None
    words = {"model": {"type": "BPE", "vocab": {"a": 0}}}
    assert read_vocabulary(list_folder_of(tmp_path, {"tokenizer.json": words})) == {"a": 0}
    pieces = {"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}
    assert read_vocabulary(list_folder_of(tmp_path, {"tokenizer.json": pieces})) == [("a", -1.0)]
    assert read_vocabulary(list_folder_of(tmp_path, {"tokenizer.json": {"model": {"vocab": 7}}})) is None


def list_folder_of(folder: Path, files: dict[str, object]) -> Folder:
    for name, content in files.items():
        write_json(folder / name, content)
    return list_folder(folder)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["vocab.json", "merges.txt"], "BPE"),
        (["tokenizer.model"], "SentencePiece"),
        (["tekken.json"], "Mistral"),
        (["qwen.tiktoken"], "tiktoken"),
        (["vocab.txt"], "WordPiece"),
        (["tokenization_mine.py"], "own code"),
        (["vocab.json"], None),
    ],
)
def test_other_kinds(tmp_path: Path, names: list[str], kind: str | None) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    tokenizer = read(tmp_path)
    assert tokenizer.kind == kind
    assert tokenizer.size is None
    assert tokenizer.findings == ()


def test_pointer_in_place_of_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert [finding.code for finding in read(tmp_path).findings] == ["lfs-pointer"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model": 5}', '{"model": {"vocab": {"a": "b"}}}', '{"model": {}}', "\xff"]
)
def test_broken_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content.encode("latin-1"))
    tokenizer = read(tmp_path)
    assert tokenizer.kind == "broken"
    assert [finding.code for finding in tokenizer.findings] == ["tokenizer-broken"]
