import json
import time

import pytest

from gateway.errors import BadRequest
from gateway.proxy.body import is_streaming, parse_fields, read_text, rewrite, wants_usage
from gateway.proxy.endpoints import ENDPOINTS
from gateway.traffic.routes import ModelRoute, Target, VersionRoute
from gateway.traffic.split import Split

CHAT = ENDPOINTS["/v1/chat/completions"]


def target(
    defaults: dict[str, object] | None = None, system_prompt: str | None = None, adapter: str | None = None
) -> Target:
    raw = {name: json.dumps(value).encode() for name, value in (defaults or {}).items()}
    version = VersionRoute("v1", defaults=raw, system_prompt=system_prompt)
    model = ModelRoute("shapes", {"v1": version}, Split.from_weights("shapes", {"v1": 1.0}))
    return Target(model, version, "shapes", adapter)


def rewritten(
    body: dict[str, object], to: Target | None = None, path: str = "/v1/chat/completions"
) -> dict[str, object]:
    return json.loads(rewrite(parse_fields(json.dumps(body).encode()), to or target(), ENDPOINTS[path]))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a": "\\ud800 alone"}', "not valid JSON"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_the_reason(body: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_fields(body)
    assert sentence in caught.value.message


def test_values_are_not_parsed() -> None:
    fields = parse_fields(b'{"messages": [{"deep": [1, 2]}], "n": 1e400}')
    assert bytes(fields["messages"]) == b'[{"deep": [1, 2]}]'
    assert bytes(fields["n"]) == b"1e400"


def test_ten_megabytes_of_picture_stay_one_piece_of_bytes() -> None:
    url = "data:image/png;base64," + "A" * 10_000_000
    body = json.dumps({"model": "shapes", "messages": [{"role": "user", "content": [{"image_url": {"url": url}}]}]})
    data = body.encode()
    before = time.process_time()
    out = rewrite(parse_fields(data), target({"temperature": 0.0}), CHAT)
    assert time.process_time() - before < 1.0  # a parse into objects and back takes several
    assert url.encode() in out


@pytest.mark.parametrize("value", [b"1", b"[]", b'{"a":1}', b"true"])
def test_a_model_that_is_no_string_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="must be a string") as caught:
        read_text(parse_fields(b'{"model": ' + value + b"}"), "model")
    assert caught.value.param == "model"


def test_absent_and_null_read_as_none() -> None:
    assert read_text(parse_fields(b'{"model": null}'), "model") is None
    assert read_text(parse_fields(b"{}"), "model") is None


def test_the_engine_gets_its_own_name_for_the_model() -> None:
    assert rewritten({"model": "shapes:v1"})["model"] == "shapes"
    assert rewritten({"model": "x"}, target(adapter="mirror"))["model"] == "shapes:v1+mirror"


def test_defaults_fill_only_what_the_client_left_out() -> None:
    out = rewritten({"temperature": 0.7, "top_p": None}, target({"temperature": 0.0, "top_p": 0.9, "seed": 3}))
    assert out == {"model": "shapes", "temperature": 0.7, "top_p": 0.9, "seed": 3}


def test_defaults_leave_routes_alone_that_generate_nothing() -> None:
    assert rewritten({"input": "x"}, target({"temperature": 0.0}), "/v1/embeddings") == {
        "input": "x",
        "model": "shapes",
    }


@pytest.mark.parametrize(
    ("client", "defaults", "temperature"),
    [
        ({"do_sample": False}, {}, 0),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.5}, 0),
        ({"do_sample": True}, {"temperature": 0.0}, 1),
        ({"do_sample": True}, {"temperature": 0.4}, 0.4),
        ({"do_sample": True, "temperature": 0.9}, {"temperature": 0.0}, 0.9),
        ({"do_sample": True}, {}, None),
        ({"do_sample": None}, {"temperature": 0.2}, 0.2),
    ],
)
def test_do_sample_is_translated(
    client: dict[str, object], defaults: dict[str, object], temperature: float | None
) -> None:
    out = rewritten(client, target(defaults))
    assert "do_sample" not in out
    assert out.get("temperature") == temperature


def test_do_sample_must_be_a_boolean() -> None:
    with pytest.raises(BadRequest, match="do_sample"):
        rewritten({"do_sample": "no"})


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("path", "body", "field", "expected"),
    [
        ("/v1/chat/completions", {"messages": [USER]}, "messages", [{"role": "system", "content": "Look."}, USER]),
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "x"}]}, "messages", [{"role": "system", "content": "x"}]),
        ("/v1/chat/completions", {"messages": [USER, {"role": "developer", "content": "x"}]}, "messages", [USER, {"role": "developer", "content": "x"}]),
        ("/v1/chat/completions", {"messages": []}, "messages", []),
        ("/v1/chat/completions", {"messages": "no list"}, "messages", "no list"),
        ("/v1/responses", {"input": "hi"}, "instructions", "Look."),
        ("/v1/responses", {"input": "hi", "instructions": "mine"}, "instructions", "mine"),
        ("/v1/messages", {"messages": [USER]}, "system", "Look."),
        ("/v1/messages", {"messages": [USER], "system": "mine"}, "system", "mine"),
        ("/tokenize", {"messages": [USER]}, "messages", [{"role": "system", "content": "Look."}, USER]),
    ],
)  # fmt: skip
def test_the_system_prompt_goes_where_the_client_has_none(
    path: str, body: dict[str, object], field: str, expected: object
) -> None:
    assert rewritten(body, target(system_prompt="Look."), path)[field] == expected


def test_completions_get_no_system_prompt() -> None:
    out = rewritten({"prompt": "x"}, target(system_prompt="Look."), "/v1/completions")
    assert out == {"prompt": "x", "model": "shapes"}


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"stream": True}, {"include_usage": True}),
        ({"stream": True, "stream_options": None}, {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False, "x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream": True, "stream_options": 7}, 7),
        ({"stream": False}, None),
        ({}, None),
    ],
)
def test_usage_is_asked_for_with_every_stream(body: dict[str, object], options: object) -> None:
    assert rewritten(body).get("stream_options") == options


def test_routes_without_usage_options_are_left_alone() -> None:
    assert "stream_options" not in rewritten({"stream": True}, path="/v1/messages")


def test_what_the_client_asked_for() -> None:
    assert is_streaming(parse_fields(b'{"stream": true}'))
    assert not is_streaming(parse_fields(b'{"stream": "true"}'))
    assert wants_usage(parse_fields(b'{"stream_options": {"include_usage": true}}'))
    assert wants_usage(parse_fields(b'{"stream_options": {"continuous_usage_stats": true}}'))
    assert not wants_usage(parse_fields(b'{"stream_options": {"include_usage": false}}'))
    assert not wants_usage(parse_fields(b'{"stream_options": []}'))
    assert not wants_usage(parse_fields(b"{}"))


def test_sampling_asked_for_beats_a_greedy_default_also_beside_a_null() -> None:
    assert rewritten({"do_sample": True, "temperature": None}, target({"temperature": 0}))["temperature"] == 1


def test_a_default_that_is_no_number_is_left_to_the_engine() -> None:
    assert rewritten({"do_sample": True}, target({"temperature": None}))["temperature"] is None
