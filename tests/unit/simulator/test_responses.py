import json

import pytest

from gateway.simulator.answers import Answer, RefusalError
from gateway.simulator.responses import RESPONSE
from gateway.simulator.text import Choice, read_text

ANSWER = Answer("resp_1", 7, "m", read_text("hi"), (Choice(("a", " b"), (300, 301), "stop"),), 1, {})


def test_a_whole_response() -> None:
    whole = RESPONSE.write_whole(ANSWER)
    assert (whole["status"], whole["object"]) == ("completed", "response")
    assert whole["output"][0]["content"][0]["text"] == "a b"
    assert whole["usage"]["total_tokens"] == 4


def test_a_stream_is_numbered_and_ends_with_the_whole_response() -> None:
    frames = [frame for group in RESPONSE.write_stream(ANSWER) for frame in group]
    events = [frame.decode().split("\n") for frame in frames]
    bodies = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [lines[0] for lines in events] == [f"event: {body['type']}" for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert "".join(body["delta"] for body in bodies if body["type"] == "response.output_text.delta") == "a b"
    assert bodies[0]["response"]["status"] == "in_progress"
    assert bodies[-1]["response"] == RESPONSE.write_whole(ANSWER)


def test_input_is_text_or_messages() -> None:
    text = RESPONSE.read_prompt({"input": "hi"})
    assert text.ids == RESPONSE.read_prompt({"input": [{"role": "user", "content": "hi"}]}).ids
    with pytest.raises(RefusalError):
        RESPONSE.read_prompt({"input": 3})
