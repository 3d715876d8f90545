import argparse
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli import chat


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    chat.add_parser(parser.add_subparsers())
    return parser.parse_args(["chat", *words])


def answer_with(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = httpx.Client
    monkeypatch.setattr(chat.httpx, "Client", lambda **options: real(transport=httpx.MockTransport(handler), **options))


def stream(*events: dict[str, Any]) -> httpx.Response:
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx.Response(200, text=text)


def word(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def test_plain_text_is_a_plain_message() -> None:
    body = chat.build_question(parse("hello", "--system", "Be kind.", "--max-tokens", "5", "--temperature", "0"))
    assert body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (5, 0.0, True)
    assert "seed" not in body


def test_pictures_come_before_the_question(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"PNG")
    body = chat.build_question(
        parse("what?", "--image", str(picture), "--image", "https://x/y.jpg", "--video", "data:v")
    )
    parts = body["messages"][0]["content"]
    assert parts[0]["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"PNG").decode()
    assert parts[1]["image_url"]["url"] == "https://x/y.jpg"
    assert parts[2]["video_url"]["url"] == "data:v"
    assert parts[3] == {"type": "text", "text": "what?"}


def test_the_answer_streams_and_the_first_model_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "shapes"}]})
        asked.append(json.loads(request.content))
        return stream(word("r"), word("ed"), {"choices": []})

    answer_with(handle, monkeypatch)
    assert chat.run(parse("what?")) == 0
    assert capsys.readouterr().out == "red\n"
    assert asked[0]["model"] == "shapes"


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (httpx.Response(404, json={"error": {"message": "no such model"}}), "no such model"),
        (httpx.Response(502, text="<html>"), "502"),
        (stream(word("re"), {"error": {"message": "engine gone"}}), "broke off: engine gone"),
    ],
)
def test_failures_are_one_sentence_and_code_1(
    response: httpx.Response, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_with(lambda request: response, monkeypatch)
    assert chat.run(parse("what?", "--model", "m")) == 1
    assert sentence in capsys.readouterr().err


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answer_with(refuse, monkeypatch)
    assert chat.run(parse("what?", "--url", "http://127.0.0.1:1")) == 1
    assert "gateway serve" in capsys.readouterr().err


def test_a_picture_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.run(parse("what?", "--image", "/nowhere.png")) == 2
    assert "/nowhere.png" in capsys.readouterr().err
