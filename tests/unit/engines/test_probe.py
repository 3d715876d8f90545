import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engines.engine import ProbeFailed, SmokePrompt
from gateway.engines.probe import Probe
from gateway.telemetry.drafts import DraftCounts

Handler = Callable[[httpx.Request], httpx.Response]


def probe(tmp_path: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda uds, verify: httpx.MockTransport(handler))
    return Probe(f"unix://{tmp_path}/e.sock", "shapes")


def tokens(count: int) -> httpx.Response:
    return httpx.Response(200, json={"choices": [], "usage": {"completion_tokens": count}})


async def test_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([httpx.Response(200), httpx.Response(503), httpx.ConnectError("refused")])

    def handle(request: httpx.Request) -> httpx.Response:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    asked = probe(tmp_path, handle, monkeypatch)
    assert [await asked.is_healthy() for _ in range(3)] == [True, False, False]
    await asked.close()


async def test_an_engine_that_does_not_say_in_time_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        asked_for.append(request.url.path)
        await asyncio.Event().wait()
        return httpx.Response(200)

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda uds, verify: httpx.MockTransport(hang))
    asked = Probe("http://far:8000", "shapes", health_timeout_s=0.01)
    async with asyncio.timeout(5):
        assert not await asked.is_healthy()
    assert asked_for == ["/health"]
    await asked.close()


async def test_warming_asks_the_model_and_each_adapter_for_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return tokens(1)

    asked = probe(tmp_path, handle, monkeypatch)
    await asked.warm(is_visual=True, adapters=("shapes:v1+mirror",))
    assert [(path, body["model"]) for path, body in seen] == [
        ("/v1/completions", "shapes"),
        ("/v1/completions", "shapes:v1+mirror"),
        ("/v1/chat/completions", "shapes"),
    ]
    assert seen[2][1]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    await asked.close()


def say(text: str | None, finish: str = "stop") -> httpx.Response:
    choice = {"message": {"content": text}, "finish_reason": finish}
    return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 1}})


async def test_a_smoke_prompt_is_asked_as_a_client_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/chat/completions":
            seen.append(json.loads(request.content))
        return say("a red circle")

    (tmp_path / "a.jpg").write_bytes(b"jpeg")
    asked = probe(tmp_path, handle, monkeypatch)
    prompt = SmokePrompt(
        "what?", "circle", "shapes:v1+a", tmp_path / "a.jpg", "You look.", {"top_k": 5, "temperature": 1}
    )
    await asked.warm(is_visual=False, smoke=(prompt, SmokePrompt("and?", "red", "shapes")))
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,anBlZw=="}}
    assert seen == [
        {
            "model": "shapes:v1+a", "max_tokens": 256, "top_k": 5, "temperature": 0, "stream": False, "n": 1,
            "messages": [
                {"role": "system", "content": "You look."},
                {"role": "user", "content": [picture, {"type": "text", "text": "what?"}]},
            ],
        },
        {
            "model": "shapes", "max_tokens": 256, "temperature": 0, "stream": False, "n": 1,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "and?"}]}],
        },
    ]  # fmt: skip
    await asked.close()


@pytest.mark.parametrize(
    ("answer", "said", "is_final"),
    [
        (say("a square"), "was answered 'a square', and 'circle' was expected", True),
        (say("a squ", "length"), "was answered 'a squ'", False),
        (say(None), "was answered ''", False),
        (httpx.Response(200, json={"usage": {"completion_tokens": 1}}), "was answered ''", False),
        (httpx.Response(400, json={"error": {"message": "no pictures"}}), "failed with 400: no pictures", False),
    ],
)
async def test_a_smoke_prompt_that_is_not_answered_as_expected_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, said: str, is_final: bool
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer if request.url.path == "/v1/chat/completions" else tokens(1)

    asked = probe(tmp_path, handle, monkeypatch)
    with pytest.raises(ProbeFailed) as caught:
        await asked.warm(is_visual=False, smoke=(SmokePrompt("what?", "circle", "shapes"),))
    assert "the smoke prompt 'what?'" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.is_final == is_final
    await asked.close()


async def test_where_the_context_is_short_the_engine_chooses_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/completions":
            return tokens(1)
        has_limit = "max_tokens" in json.loads(request.content)
        return httpx.Response(400, json={"error": {"message": "too long"}}) if has_limit else say("a circle")

    asked = probe(tmp_path, handle, monkeypatch)
    await asked.warm(is_visual=False, smoke=(SmokePrompt("what?", "circle", "shapes"),))
    with pytest.raises(ProbeFailed, match="failed with 400: too long"):
        await asked.warm(is_visual=False, smoke=(SmokePrompt("what?", "circle", "shapes", fields={"max_tokens": 9}),))
    await asked.close()


@pytest.mark.parametrize("is_smoke", [False, True])
async def test_an_adapter_that_does_not_answer_is_taken_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_smoke: bool
) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        if request.url.path == "/v1/completions":
            return tokens(1) if is_smoke else httpx.Response(500, text="no")
        return say("a square") if request.url.path == "/v1/chat/completions" else httpx.Response(200)

    asked = probe(tmp_path, handle, monkeypatch)
    smoke = (SmokePrompt("what?", "circle", "a"),) if is_smoke else ()
    with pytest.raises(ProbeFailed):
        await asked.load_adapter("a", tmp_path, smoke)
    assert (seen[0], seen[-1]) == ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
    await asked.close()


async def test_a_picture_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probe(tmp_path, lambda request: tokens(1), monkeypatch)
    with pytest.raises(ProbeFailed, match=r"gone\.png of a smoke prompt cannot be read"):
        await asked.warm(is_visual=False, smoke=(SmokePrompt("what?", "x", "shapes", tmp_path / "gone.png"),))
    await asked.close()


async def test_an_answer_without_a_token_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probe(tmp_path, lambda request: tokens(0), monkeypatch)
    with pytest.raises(ProbeFailed, match="no token came out"):
        await asked.warm(is_visual=False)
    await asked.close()


async def test_a_model_that_embeds_is_asked_for_an_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200 if request.url.path == "/v1/embeddings" else 404, json={})

    asked = probe(tmp_path, handle, monkeypatch)
    await asked.warm(is_visual=False)
    assert seen == ["/v1/completions", "/v1/embeddings"]
    await asked.close()


async def test_the_engines_own_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = httpx.Response(500, json={"error": {"message": "EngineCore died"}})
    asked = probe(tmp_path, lambda request: failure, monkeypatch)
    with pytest.raises(ProbeFailed, match="failed with 500: EngineCore died"):
        await asked.warm(is_visual=False)
    await asked.close()


async def test_a_picture_that_breaks_the_engine_is_a_failure_one_that_is_refused_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status, is_failure in ((400, False), (500, True)):

        def handle(request: httpx.Request, status: int = status) -> httpx.Response:
            return tokens(1) if request.url.path == "/v1/completions" else httpx.Response(status, text="no")

        asked = probe(tmp_path, handle, monkeypatch)
        if is_failure:
            with pytest.raises(ProbeFailed, match="first picture failed with 500"):
                await asked.warm(is_visual=True)
        else:
            await asked.warm(is_visual=True)
        await asked.close()


async def test_the_context_length_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"data": [{"id": "shapes", "max_model_len": 2048}]}
    asked = probe(tmp_path, lambda request: httpx.Response(200, json=cards), monkeypatch)
    assert await asked.read_max_model_len() == 2048
    await asked.close()


@pytest.mark.parametrize(
    ("address", "socket", "url"),
    [
        ("unix:///run/e.sock", "/run/e.sock", "http://engine/health"),
        ("http://far:8000", None, "http://far:8000/health"),
        ("http://[::1]:8000", None, "http://[::1]:8000/health"),
    ],
)
async def test_it_asks_the_address_it_was_given(
    address: str, socket: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200)

    def connect(uds: str | None, *, verify: bool) -> httpx.MockTransport:
        seen.append(uds)
        return httpx.MockTransport(handle)

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", connect)
    asked = Probe(address, "shapes")
    assert await asked.is_healthy()
    assert seen == [socket, url]
    await asked.close()


async def test_the_engines_own_name_is_asked_for_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "org/shapes-7b"}, {"id": "an-adapter"}]})
        names.append(json.loads(request.content)["model"])
        return tokens(1)

    asked = probe(tmp_path, handle, monkeypatch)
    assert await asked.read_served_name() == "org/shapes-7b"
    await asked.warm(is_visual=True)
    assert names == ["org/shapes-7b", "org/shapes-7b"]
    await asked.close()


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"{}", b'{"data": []}', b'{"data": [{}]}', b'{"data": [3]}']
)
async def test_what_is_no_list_of_models_is_a_failure(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = probe(tmp_path, lambda request: httpx.Response(200, content=content), monkeypatch)
    with pytest.raises(ProbeFailed, match="names no model"):
        await asked.read_served_name()
    assert await asked.read_max_model_len() is None
    await asked.close()


async def test_silence_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    asked = probe(tmp_path, refuse, monkeypatch)
    with pytest.raises(ProbeFailed, match="/v1/completions got no answer"):
        await asked.warm(is_visual=False)
    await asked.close()


async def test_an_engine_is_put_to_sleep_and_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked_for.append(f"{request.method} {request.url.path}?{request.url.query.decode()}")
        return httpx.Response(200 if len(asked_for) < 3 else 404, json={"error": {"message": "Not Found"}})

    asked = probe(tmp_path, handle, monkeypatch)
    await asked.fall_asleep()
    await asked.wake_up()
    assert asked_for == ["POST /sleep?level=1", "POST /wake_up?"]
    with pytest.raises(ProbeFailed, match=r"does not sleep \(404: Not Found\)"):
        await asked.fall_asleep()
    with pytest.raises(ProbeFailed, match=r"does not wake up \(404: Not Found\)"):
        await asked.wake_up()
    await asked.close()


async def test_what_came_of_guesses_is_read_from_the_engines_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(name: str, engine: int, value: str) -> str:
        return f'vllm:spec_decode_num_{name}_total{{engine="{engine}",model_name="a b"}} {value}'

    lines = [line("drafts", 0, "3.0"), line("drafts", 1, "4.0"), line("draft_tokens", 0, "28.0")]
    lines += [line("accepted_tokens", 0, "1.2e+07"), line("accepted_tokens_per_pos", 0, "9.0"), "# HELP x"]
    answers = iter(["\n".join(lines), "vllm:num_requests_running 0.0\n"])
    asked = probe(tmp_path, lambda request: httpx.Response(200, text=next(answers)), monkeypatch)
    assert await asked.read_drafts() == DraftCounts(7, 28, 12_000_000)
    assert await asked.read_drafts() is None, "it does not guess"
    await asked.close()


async def test_counters_that_do_not_come_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    asked = probe(tmp_path, refuse, monkeypatch)
    assert await asked.read_drafts() is None
    await asked.close()


@pytest.mark.parametrize(("is_shown", "kinds"), [(True, ["image_url", "text"]), (False, ["text"])])
async def test_an_answer_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shown: bool, kinds: list[str]
) -> None:
    seen: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": "a circle"}, "finish_reason": "length"}]})

    asked = probe(tmp_path, handle, monkeypatch)
    question = SmokePrompt("what?", "", "shapes", fields={"max_tokens": 9, "temperature": 1})
    assert await asked.answer(question, is_shown=is_shown) == "a circle"
    assert (seen[0]["temperature"], seen[0]["max_tokens"]) == (0, 9)
    assert [part["type"] for part in seen[0]["messages"][0]["content"]] == kinds
    await asked.close()


async def test_a_model_without_a_template_is_asked_without_a_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/completions":
            return httpx.Response(200, json={"choices": [{"text": " and so on"}]})
        return httpx.Response(400, json={"error": {"message": "no chat template"}})

    asked = probe(tmp_path, handle, monkeypatch)
    assert await asked.answer(SmokePrompt("one", "", "shapes"), is_shown=False) == " and so on"
    await asked.close()
    refusing = probe(tmp_path, lambda request: httpx.Response(500, text="broken"), monkeypatch)
    with pytest.raises(ProbeFailed, match="'one' failed with 500: broken"):
        await refusing.answer(SmokePrompt("one", "", "shapes"), is_shown=False)
    await refusing.close()
