"""Smoke prompts keep a version that answers wrongly out of the traffic."""

import re
from pathlib import Path

from tests.support.running_gateway import run_gateway, wait_for

CONFIG = """
server: {host: 127.0.0.1}
models:
  - name: shapes
    split: {good: 1, bad: 9}
    versions:
      - {name: good, engine: simulated, smoke: [{prompt: "what?", expect: " "}, {prompt: "and this?", image: p.png, expect: " "}]}
      - {name: bad, engine: simulated, smoke: [{prompt: "what?", expect: hippopotamus}]}
"""


def test_only_what_answers_as_expected_is_served(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    picture = Path(__file__).parents[2] / "gateway" / "demo" / "pictures" / "circle.png"
    (tmp_path / "p.png").write_bytes(picture.read_bytes())
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as running:
        running.await_states(60, good="ready", bad="failed")
        bad = running.engines()["shapes:bad#0"]
        assert re.fullmatch(
            r"the smoke prompt 'what\?' was answered '.+', and 'hippopotamus' was expected in it", bad["reason"]
        )
        assert bad["next_try_at"] is None, "it would answer the same again"
        wait_for(lambda: bad["pid"] is None, 5)
        body = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
        for number in range(8):
            answer = running.http.post("/v1/chat/completions", json=body, headers={"x-session-id": str(number)})
            assert (answer.status_code, answer.headers["x-gateway-version"]) == (200, "good")
