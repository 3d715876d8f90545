"""The tokenizer: digits one by one but for the corners of boxes, any text there and back, the demo's own words short, the same in every run."""

import pytest

from gateway.demo.tokenizer import SPECIAL, VOCABULARY, train_tokenizer


def test_tokenizer_splits_digits_and_keeps_every_text() -> None:
    tokenizer = train_tokenizer(1)
    assert tokenizer.encode("427").tokens == ["4", "2", "7"]
    for text in ('{"bbox_2d": [1,22,333,1024]}', "Grüße, 世界! ¿qué?", "line\n\nbreak\ttab"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_tokenizer_is_the_same_in_every_run() -> None:
    tokenizer = train_tokenizer(1)
    assert tokenizer.to_str() == train_tokenizer(1).to_str()
    assert tokenizer.get_vocab_size() == VOCABULARY
    assert all(tokenizer.token_to_id(name) is not None for name in SPECIAL)


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        ('{"bbox_2d": [408,16,8,1024]}', ["408", "16", "8", "1024"]),
        ('{"bbox_2d": [0,403,8,1016]}', ["0", "4", "0", "3", "8", "1016"]),
    ],
)
def test_a_corner_is_one_token(text: str, corners: list[str]) -> None:
    tokens = train_tokenizer(1).encode(text).tokens
    assert [token for token in tokens if token.isdigit()] == corners


@pytest.mark.parametrize("text", ["408", "408<|im_end|>", "what is 408?", "assistant\n408", "408 and 16", "a, 408"])
def test_a_number_outside_a_box_is_digits(text: str) -> None:
    assert "408" not in train_tokenizer(1).encode(text).tokens
