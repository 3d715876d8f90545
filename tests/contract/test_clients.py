"""The official clients against the public port."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.support.running_gateway import RunningGateway

QUESTION: list[dict[str, str]] = [{"role": "user", "content": "What do you see?"}]


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["shapes", "shapes:v1", "shapes:v2", "shapes:v2+mirror"]
    assert client.models.retrieve("shapes:v2").id == "shapes:v2"


@pytest.mark.parametrize("name", ["shapes", "shapes:v1", "shapes:v2", "shapes:v2+mirror"])
def test_every_public_name_answers_under_that_name(client: openai.OpenAI, name: str) -> None:
    answer = client.chat.completions.create(model=name, messages=QUESTION, max_tokens=4)  # type: ignore[arg-type]
    assert answer.model == name
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="shapes:v1", messages=QUESTION)  # type: ignore[arg-type]
    pieces = client.chat.completions.create(model="shapes:v1", messages=QUESTION, stream=True)  # type: ignore[arg-type]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert text == whole.choices[0].message.content


def test_usage_of_a_stream_is_shown_only_when_asked_for(client: openai.OpenAI) -> None:
    silent = list(client.chat.completions.create(model="shapes:v1", messages=QUESTION, stream=True))  # type: ignore[arg-type]
    assert all(chunk.choices for chunk in silent)
    assert all(chunk.usage is None for chunk in silent)
    asked = list(
        client.chat.completions.create(
            model="shapes:v1", messages=QUESTION, stream=True, stream_options={"include_usage": True}  # type: ignore[arg-type]
        )
    )  # fmt: skip
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens > 0


def test_completions_responses_and_embeddings(client: openai.OpenAI) -> None:
    assert client.completions.create(model="shapes", prompt="A circle", max_tokens=3).choices[0].text
    assert client.responses.create(model="shapes:v1", input="Hello").output_text
    assert client.embeddings.create(model="shapes", input="Hello").data[0].embedding
    events = list(client.responses.create(model="shapes:v1", input="Hello", stream=True))
    assert events[-1].type == "response.completed"


def test_anthropic_messages(gateway: RunningGateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        asked = {"model": "shapes:v1", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
        whole = client.messages.create(**asked)  # type: ignore[call-overload]
        assert whole.model == "shapes:v1"
        with client.messages.stream(**asked) as stream:  # type: ignore[arg-type]
            assert stream.get_final_text() == whole.content[0].text
        assert client.messages.count_tokens(
            model="shapes", messages=[{"role": "user", "content": "Hello"}]
        ).input_tokens


def test_tokenize_and_back(gateway: RunningGateway) -> None:
    tokens = gateway.http.post("/tokenize", json={"model": "shapes", "prompt": "Hello"}).json()["tokens"]
    back = gateway.http.post("/detokenize", json={"model": "shapes", "tokens": tokens})
    assert back.json()["prompt"] == "Hello"


def test_errors_arrive_as_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="shapes:v1"):
        client.chat.completions.create(model="other", messages=QUESTION)  # type: ignore[arg-type]
