from gateway.simulator.text import PICTURE_TOKENS, answer, read_ids, read_messages, read_text, write_text


def test_text_and_ids_are_inverse() -> None:
    prompt = read_text("grün, 数")
    assert write_text(prompt.ids) == "grün, 数"
    assert read_ids(prompt.ids).ids == prompt.ids


def test_unknown_ids_and_lone_surrogates_do_no_harm() -> None:
    assert write_text([104, 10**9, 105]) == "hi"
    assert read_text("\ud800").ids


def test_an_answer_depends_on_prompt_and_salt_only() -> None:
    first = answer(read_text("hello"), "0", 8, 8)
    assert answer(read_text("hello"), "0", 8, 8) == first
    assert answer(read_text("hello"), "1", 8, 8) != first
    assert answer(read_text("hellO"), "0", 8, 8) != first
    assert answer(read_text("hello"), "0", 4, 8).tokens == first.tokens[:4]


def test_an_answer_ends_by_itself_or_at_the_limit() -> None:
    prompt = read_text("x")
    assert (len(answer(prompt, "", 4, 16).tokens), answer(prompt, "", 4, 16).finish_reason) == (4, "length")
    assert (len(answer(prompt, "", 16, 16).tokens), answer(prompt, "", 16, 16).finish_reason) == (16, "length")
    assert (len(answer(prompt, "", 17, 16).tokens), answer(prompt, "", 17, 16).finish_reason) == (16, "stop")


def test_the_ids_of_an_answer_are_its_text() -> None:
    choice = answer(read_text("x"), "", 6, 16)
    assert write_text(choice.ids).strip() == choice.text


def test_a_stop_text_cuts_before_itself() -> None:
    whole = answer(read_text("x"), "", 16, 16).text
    middle = whole[10:14]
    cut = answer(read_text("x"), "", 16, 16, (middle,))
    assert cut.text == whole[: whole.find(middle)]
    assert cut.finish_reason == "stop"
    assert len(cut.ids) == len(cut.tokens)
    assert answer(read_text("x"), "", 16, 16, ("#",)).text == whole


def test_pictures_count_tokens_and_change_the_answer() -> None:
    def ask(url: str) -> list[dict[str, object]]:
        return [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": url}]}]

    one, other = read_messages(ask("data:1" + "x" * 10**6)), read_messages(ask("data:2"))
    assert len(one.ids) == len(other.ids) == len(b"user: hi\n") + PICTURE_TOKENS
    assert answer(one, "", 8, 8) != answer(other, "", 8, 8)
