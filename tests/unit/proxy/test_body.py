import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.proxy import body as module
from gateway.proxy.body import is_greedy, is_streaming, parse_fields, read_text, rewrite, wants_usage
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.pieces import Piece
from gateway.traffic.routes import PixelBounds, VersionRoute
from tests.support.too_deep import TooDeep

CHAT = ENDPOINTS["/v1/chat/completions"]
LARGE = module.LARGE_BYTES


def version(defaults: dict[str, object] | None = None, system_prompt: str | None = None) -> VersionRoute:
    raw = {name: json.dumps(value).encode() for name, value in (defaults or {}).items()}
    return VersionRoute("v1", defaults=raw, system_prompt=system_prompt)


def pieces_of(data: bytes, to: VersionRoute | None = None, path: str = "/v1/chat/completions") -> list[Piece]:
    return rewrite(parse_fields(data), to or version(), ENDPOINTS[path], "engine/shapes", len(data))


def rewritten(
    body: dict[str, object], to: VersionRoute | None = None, path: str = "/v1/chat/completions"
) -> dict[str, object]:
    out: dict[str, object] = json.loads(b"".join(pieces_of(json.dumps(body).encode(), to, path)))
    return out


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


@pytest.mark.parametrize(
    ("decoder", "body"),
    [
        ("_decoder", {"stream": True, "stream_options": {"include_usage": False}}),  # else its tokens would be a guess
        ("_turns_decoder", {"messages": [{"role": "user", "content": "?"}]}),  # else no system prompt
    ],
)
def test_what_a_later_reader_finds_too_deep_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, decoder: str, body: dict[str, object]
) -> None:
    fields = parse_fields(json.dumps(body).encode())
    monkeypatch.setattr(module, decoder, TooDeep())
    with pytest.raises(BadRequest, match="nested too deeply"):
        rewrite(fields, version(system_prompt="Be short."), CHAT, "engine/shapes", 100)


def test_values_are_not_parsed() -> None:
    fields = parse_fields(b'{"messages": [{"deep": [1, 2]}], "n": 1e400}')
    assert bytes(fields["messages"]) == b'[{"deep": [1, 2]}]'
    assert bytes(fields["n"]) == b"1e400"


def test_a_small_body_is_one_piece() -> None:
    assert pieces_of(b'{"model":"x","n":1}') == [b'{"model":"engine/shapes","n":1}']


def test_megabytes_of_picture_are_passed_on_as_a_view_of_what_came() -> None:
    url = "data:image/png;base64," + "A" * 3_000_000
    body = {"model": "shapes", "messages": [{"role": "user", "content": [{"image_url": {"url": url}}]}]}
    data = json.dumps(body).encode()
    pieces = pieces_of(data, version({"temperature": 0.0}))
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert [bytes(view) for view in views] == [json.dumps(body["messages"]).encode()]
    assert sum(map(len, pieces)) - len(views[0]) < 100
    assert json.loads(b"".join(pieces)) == {**body, "model": "engine/shapes", "temperature": 0.0}


VALUES: list[Any] = [1, None, True, 0.5, "", 'a"b\\ü\n', [1, {"x": []}], {"k": "v"}, {}, "x" * 9, ["ü"] * 5, "x" * 99]


@given(st.dictionaries(st.text(max_size=5), st.sampled_from(VALUES), max_size=6), st.integers(0, 40), st.booleans())
def test_the_joined_pieces_are_the_same_json(body: dict[str, Any], large_bytes: int, is_ascii: bool) -> None:
    data = json.dumps(body, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGE_BYTES", large_bytes)
        joined = b"".join(pieces_of(data, path="/v1/embeddings"))
    assert json.loads(joined) == {**body, "model": "engine/shapes"}


@pytest.mark.parametrize("more_bytes", [-1, 0, 1, 2])
def test_around_the_limit_nothing_is_lost(more_bytes: int) -> None:
    text = "y" * (LARGE - 2 + more_bytes)
    for body in ({"messages": text}, {"messages": text, "a": 1, "b": text}, {"": text, '"': text}):
        pieces = pieces_of(json.dumps(body).encode())
        assert json.loads(b"".join(pieces)) == {**body, "model": "engine/shapes"}
        assert any(isinstance(piece, memoryview) for piece in pieces) == (more_bytes > 0)


def test_of_a_key_sent_twice_the_last_counts_and_goes_out_once() -> None:
    data = b'{"a": "%b", "a": 2, "model": "x", "model": "y"}' % (b"z" * LARGE)
    pairs = json.loads(b"".join(pieces_of(data)), object_pairs_hook=list)
    assert sorted(pairs) == [("a", 2), ("model", "engine/shapes")]


def test_a_large_default_and_a_system_prompt_before_a_large_talk_are_whole() -> None:
    turns = [{"role": "user", "content": "x" * LARGE}]
    out = rewritten({"messages": turns}, version({"logit_bias": "y" * LARGE}, "Look."))
    assert out == {
        "model": "engine/shapes",
        "messages": [{"role": "system", "content": "Look."}, *turns],
        "logit_bias": "y" * LARGE,
    }


@pytest.mark.parametrize("value", [b"1", b"[]", b'{"a":1}', b"true"])
def test_a_model_that_is_no_string_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="must be a string") as caught:
        read_text(parse_fields(b'{"model": ' + value + b"}"), "model")
    assert caught.value.param == "model"


def test_absent_and_null_read_as_none() -> None:
    assert read_text(parse_fields(b'{"model": null}'), "model") is None
    assert read_text(parse_fields(b"{}"), "model") is None


@pytest.mark.parametrize("name", ["shapes", "shapes:v1+mirror", 'org/Ünïcode "7B"'])
def test_the_engine_gets_its_own_name_for_the_model(name: str) -> None:
    for data in (b'{"model": "shapes:v1"}', b"{}"):
        assert msgspec.json.decode(b"".join(rewrite(parse_fields(data), version(), CHAT, name, len(data)))) == {
            "model": name
        }


def test_defaults_fill_only_what_the_client_left_out() -> None:
    out = rewritten({"temperature": 0.7, "top_p": None}, version({"temperature": 0.0, "top_p": 0.9, "seed": 3}))
    assert out == {"model": "engine/shapes", "temperature": 0.7, "top_p": 0.9, "seed": 3}


def test_defaults_leave_routes_alone_that_generate_nothing() -> None:
    assert rewritten({"input": "x"}, version({"temperature": 0.0}), "/v1/embeddings") == {
        "input": "x",
        "model": "engine/shapes",
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
    out = rewritten(client, version(defaults))
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
    assert rewritten(body, version(system_prompt="Look."), path)[field] == expected


def test_completions_get_no_system_prompt() -> None:
    out = rewritten({"prompt": "x"}, version(system_prompt="Look."), "/v1/completions")
    assert out == {"prompt": "x", "model": "engine/shapes"}


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
    assert rewritten({"do_sample": True, "temperature": None}, version({"temperature": 0}))["temperature"] == 1


def test_a_default_that_is_no_number_is_left_to_the_engine() -> None:
    assert rewritten({"do_sample": True}, version({"temperature": None}))["temperature"] is None


def test_pictures_are_bounded_where_the_version_has_bounds() -> None:
    body: dict[str, object] = {"mm_processor_kwargs": {"max_pixels": 500}}
    bounded = VersionRoute("v1", pictures=PixelBounds(1000))
    assert rewritten(body, bounded)["mm_processor_kwargs"] == {"images_kwargs": {"size": {"longest_edge": 500}}}
    assert rewritten(body)["mm_processor_kwargs"] == {"max_pixels": 500}, "the engine refuses it"
    with pytest.raises(BadRequest, match="at most 1,000"):
        rewritten({"mm_processor_kwargs": {"max_pixels": 1001}}, bounded, "/tokenize")
    hidden = b'{"mm_processor_kwargs": {"max_pixels": 5}, "mm_processor_\\u006bwargs": {"max_pixels": 1001}}'
    with pytest.raises(BadRequest, match="at most 1,000"):
        pieces_of(hidden, bounded)
    with pytest.raises(BadRequest, match="media_io_kwargs"):
        rewritten({"media_io_kwargs": {"video": {"fps": 9}}}, bounded)


@pytest.mark.parametrize(
    ("body", "defaults", "expected"),
    [
        ({"temperature": 0}, {}, True),
        ({"temperature": 0.0}, {"temperature": b"1"}, True),
        ({"temperature": 0.7}, {"temperature": b"0"}, False),
        ({}, {"temperature": b"0.0"}, True),
        ({"temperature": None}, {"temperature": b"0"}, True),
        ({}, {}, False),
        ({"do_sample": False}, {"temperature": b"1"}, True),
        ({"do_sample": True}, {"temperature": b"0"}, False),
    ],
)
def test_a_request_is_greedy_by_what_it_or_its_version_says(
    body: dict[str, object], defaults: dict[str, bytes], expected: bool
) -> None:
    fields = parse_fields(json.dumps(body).encode())
    assert is_greedy(fields, defaults) is expected
    assert fields.keys() == body.keys()
