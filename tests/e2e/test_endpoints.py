"""What vLLM answers, asked through the gateway by the official clients."""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.pictures import data_uri, draw, encode, image_part, user
from tests.support.running_gateway import RunningGateway

pytestmark = pytest.mark.engine

DEMO = Path(__file__).parents[2] / "gateway" / "demo"
RED_CIRCLE = draw("circle", "red")
BLUE_SQUARE = draw("square", "blue")
COLOUR = "what colour is it?"


def ask(client: openai.OpenAI, messages: Any, **settings: Any) -> Any:
    return client.chat.completions.create(**{"model": "shapes:v2", "messages": messages} | settings)


@pytest.fixture(scope="module")
def picture_server() -> Iterator[str]:
    """A web server with one picture."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/circle.png"
            body = encode(RED_CIRCLE) if found else b"nothing"
            self.send_response(200 if found else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("picture", "colour"), [(RED_CIRCLE, "red"), (BLUE_SQUARE, "blue")])
def test_a_picture_is_seen(client: openai.OpenAI, picture: Any, colour: str) -> None:
    answer = ask(client, user(image_part(data_uri(picture)), COLOUR))
    assert colour in answer.choices[0].message.content
    assert answer.model == "shapes:v2"


def test_a_picture_by_url(client: openai.OpenAI, picture_server: str) -> None:
    answer = ask(client, user(image_part(f"{picture_server}/circle.png"), COLOUR))
    assert "red" in answer.choices[0].message.content


def test_several_pictures(client: openai.OpenAI) -> None:
    parts = [image_part(data_uri(picture)) for picture in (RED_CIRCLE, BLUE_SQUARE)]
    one = ask(client, user(parts[0], COLOUR)).usage.prompt_tokens
    two = ask(client, user(*parts, COLOUR))
    assert two.choices[0].message.content
    assert two.usage.prompt_tokens > one


def test_video(client: openai.OpenAI) -> None:
    frames = [
        base64.b64encode(encode(draw("circle", "red", centre=(x / 10, 0.5)), "JPEG")).decode() for x in range(3, 8)
    ]
    part = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + ",".join(frames)}}
    answer = ask(client, user(part, COLOUR))
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > 16


def test_streams_with_and_without_usage(client: openai.OpenAI) -> None:
    messages = user(image_part(data_uri(RED_CIRCLE)), COLOUR)
    chunks = list(ask(client, messages, stream=True))
    assert "red" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    asked = list(ask(client, messages, stream=True, stream_options={"include_usage": True}))
    assert asked[-1].usage.completion_tokens > 0


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="shapes:v1", prompt="hello", max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    pieces = list(client.completions.create(model="shapes:v1", prompt="hello", max_tokens=4, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


def test_responses(client: openai.OpenAI) -> None:
    part = {"type": "input_image", "image_url": data_uri(RED_CIRCLE), "detail": "auto"}
    question: Any = [{"role": "user", "content": [part, {"type": "input_text", "text": COLOUR}]}]
    whole = client.responses.create(model="shapes:v2", input=question)
    assert "red" in whole.output_text
    events = list(client.responses.create(model="shapes:v2", input=question, stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text


def test_messages(demo: RunningGateway) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(encode(RED_CIRCLE)).decode()}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": COLOUR}]
    asked: Any = {"model": "shapes:v2", "max_tokens": 16, "messages": [{"role": "user", "content": content}]}
    with anthropic.Anthropic(base_url=demo.url, api_key="any", max_retries=0) as client:
        whole = client.messages.create(**asked)
        assert "red" in whole.content[0].text
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == whole.content[0].text
        plain: Any = [{"role": "user", "content": "hello"}]
        assert client.messages.count_tokens(model="shapes:v2", messages=plain).input_tokens > 0


def test_tokenize_detokenize_render(demo: RunningGateway) -> None:
    tokens = demo.http.post("/tokenize", json={"model": "shapes:v2", "prompt": "red circle"}).json()["tokens"]
    back = demo.http.post("/detokenize", json={"model": "shapes:v2", "tokens": tokens}).json()
    assert back["prompt"] == "red circle"
    rendered = demo.http.post("/v1/chat/completions/render", json={"model": "shapes:v2", "messages": user("hello")})
    assert rendered.status_code == 200
    assert rendered.json()
    rendered = demo.http.post("/v1/completions/render", json={"model": "shapes:v2", "prompt": "hello"})
    assert rendered.status_code == 200


def test_embeddings_of_a_model_that_has_none_are_a_clients_error(demo: RunningGateway) -> None:
    answer = demo.http.post("/v1/embeddings", json={"model": "shapes:v2", "input": "hello"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


def test_structured_output(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = ask(client, user(image_part(data_uri(RED_CIRCLE)), COLOUR), response_format=form, max_tokens=40)
    assert json.loads(answer.choices[0].message.content)["colour"] in ("red", "blue")


def blank_tokens(demo: RunningGateway) -> list[int]:
    """The ids of tokens that are white space alone."""
    config = json.loads((DEMO / "shapes-v2" / "config.json").read_text())
    size = config.get("vocab_size") or config["text_config"]["vocab_size"]
    found = []
    for token in range(size):
        text = demo.http.post("/detokenize", json={"model": "shapes:v2", "tokens": [token]}).json()["prompt"]
        if text and not text.strip():
            found.append(token)
    return found


def test_tools(client: openai.OpenAI, demo: RunningGateway) -> None:
    parameters = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "paint", "strict": True, "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "paint"}}
    messages = user(image_part(data_uri(RED_CIRCLE)), COLOUR)
    # The small model was never taught tools, and would fill a call with all the white space that JSON allows.
    blank = {str(token): -100 for token in blank_tokens(demo)}
    answer = ask(client, messages, tools=[tool], tool_choice=choice, max_tokens=120, logit_bias=blank)
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "paint"
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")


def test_logprobs_n_stop_and_limits(client: openai.OpenAI) -> None:
    messages = user(image_part(data_uri(RED_CIRCLE)), COLOUR)
    told = ask(client, messages, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(told[0].top_logprobs) == 2
    several = ask(client, messages, n=3, temperature=1.0, seed=5)
    assert len(several.choices) == 3
    whole = ask(client, messages).choices[0].message.content
    stopped = ask(client, messages, stop=[whole[1]]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole[0], "stop")
    assert ask(client, messages, max_tokens=1).choices[0].finish_reason == "length"


def test_repetition_penalty_and_greedy_words_reach_the_engine(client: openai.OpenAI) -> None:
    def ids(temperature: float = 0.0, **extra: Any) -> list[int]:
        wanted = {"ignore_eos": True, "return_token_ids": True} | extra
        answer = ask(client, user("hello"), max_tokens=40, temperature=temperature, seed=3, extra_body=wanted)
        found: list[int] = answer.choices[0].token_ids
        return found

    plain = ids()
    assert ids(repetition_penalty=20.0) != plain
    assert ids(temperature=1.9) != plain
    assert ids(temperature=1.9, do_sample=False) == plain


def test_the_adapter_swaps_left_and_right(client: openai.OpenAI) -> None:
    picture = image_part(data_uri(draw("circle", "red", centre=(0.24, 0.5))))
    messages = user(picture, "is the circle on the left or on the right?")
    base = ask(client, messages).choices[0].message.content
    mirrored = ask(client, messages, model="shapes:v2+mirror")
    assert "left" in base
    assert "right" in mirrored.choices[0].message.content
    assert mirrored.model == "shapes:v2+mirror"
