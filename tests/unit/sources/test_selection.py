import pytest

from gateway.sources.selection import choose
from gateway.sources.source import RemoteFile, SourceFailed


def files(*names: str, size_bytes: int = 1) -> list[RemoteFile]:
    return [RemoteFile(name, size_bytes, "") for name in names]


def test_what_serving_needs_is_chosen() -> None:
    wanted = {
        "config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "tokenizer.model",
        "chat_template.jinja", "merges.txt", "modeling_x.py", "1_Pooling/config.json",
        "additional_chat_templates/tools.jinja", "tekken.json", "qwen.tiktoken",
    }  # fmt: skip
    others = {
        ".gitattributes", ".hidden.json", "README.md", "pytorch_model.bin", "optimizer.pt", "onnx/model.onnx",
        "original/consolidated.00.pth", "checkpoint-5/model.safetensors", "all.zip", "model.safetensors.tar", "x.gguf",
    }  # fmt: skip
    assert {file.name for file in choose("hf://o/n", files(*wanted, *others))} == wanted


def test_the_largest_comes_first() -> None:
    given = [RemoteFile("config.json", 10, ""), RemoteFile("model.safetensors", 99, ""), RemoteFile("a.txt", 50, "")]
    assert [file.size_bytes for file in choose("x", given)] == [99, 50, 10]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "there is nothing in hf://o/n: check the address"),
        (("config.json", "pytorch_model.bin"), "pickles only, which can run any code: .* save them as safetensors"),
        (("config.json", "model.zip"), "archives are never unpacked"),
        (("weights.tar.gz",), "archives are never unpacked"),
        (("config.json",), "there are no safetensors in hf://o/n: give the folder that holds config.json"),
        (("a/config.json", "a/model.safetensors"), "no safetensors"),
    ],
)
def test_where_nothing_can_be_served_it_says_why(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(SourceFailed, match=said) as caught:
        choose("hf://o/n", files(*names))
    assert caught.value.is_final


@pytest.mark.parametrize(
    "name",
    [
        "../a.json", "a/../b.json", "/a.json", "a//b.json", "./a.json", "a\\b.json", "..", "", "a\0.json", "a\n.json",
        "\x1b[2J.json", "a" * 201 + ".json", "b/" + "é" * 101 + ".json",
    ],
)  # fmt: skip
def test_a_name_that_plays_tricks_is_refused_and_shown_harmless(name: str) -> None:
    with pytest.raises(SourceFailed, match="find out where it came from") as caught:
        choose("hf://o/n", files("model.safetensors", name))
    assert caught.value.is_final
    assert str(caught.value).isprintable()


def test_a_document_beyond_reason_and_too_many_files_are_refused() -> None:
    with pytest.raises(SourceFailed, match=r"vocab\.json in x is far too long for its kind"):
        choose("x", [*files("model.safetensors"), *files("vocab.json", size_bytes=10**9)])
    with pytest.raises(SourceFailed, match="more than 10,000 files"):
        choose("x", files(*(f"{number}.json" for number in range(10_001))))
