"""The tokenizer: digits one by one, any text there and back, the demo's own words short, the same in every run."""

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
