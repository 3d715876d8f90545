"""What comes of guessing ahead is counted by version, and decides whether it goes on."""

import re
from pathlib import Path

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models:
  - name: shapes
    versions:
      - name: v1
        engine: simulated
        speculative: {{method: ngram, num_speculative_tokens: 4, prompt_lookup_max: 3{more}}}
        engine_args: {{spec-acceptance: 0.25, tokens: 400, itl-ms: 0}}
"""


def write(folder: Path, relays: int, more: str = "") -> str:
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=relays, more=more))
    return str(folder / "gateway.yaml")


def ask(gateway: RunningGateway) -> httpx.Response:
    body = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400}
    return gateway.http.post("/v1/chat/completions", json=body)


def read_metric(gateway: RunningGateway, name: str) -> float:
    text = httpx.get(f"{gateway.admin_url}/metrics", timeout=10).text
    found = re.search(rf'^gateway_speculative_{name}{{model="shapes",version="v1"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else -1.0


@pytest.mark.parametrize("relays", [1, 2])
def test_acceptance_is_told_by_version(tmp_path: Path, relays: int) -> None:
    with run_gateway("--config", write(tmp_path, relays)) as gateway:
        gateway.await_states(30, v1="ready")
        assert ask(gateway).status_code == 200
        wait_for(lambda: read_metric(gateway, "guessed_total") > 400, 20)
        assert read_metric(gateway, "acceptance") == pytest.approx(0.25, abs=0.01)
        assert read_metric(gateway, "tokens_per_step") == pytest.approx(2.0, abs=0.05)
        drafts = gateway.engines()["shapes:v1#0"]["drafts"]
        assert drafts["guessed"] == 4 * drafts["steps"]
        assert drafts["acceptance"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("relays", [1, 2])
def test_speculation_that_is_mostly_wrong_is_switched_off_and_no_client_notices(tmp_path: Path, relays: int) -> None:
    with run_gateway("--config", write(tmp_path, relays, ", min_acceptance: 0.4")) as gateway:
        gateway.await_states(30, v1="ready")
        guessed = -1.0

        def is_replaced() -> bool:
            nonlocal guessed
            answer = ask(gateway)
            assert answer.status_code == 200, answer.text
            now = read_metric(gateway, "guessed_total")
            assert now >= guessed, "counters do not fall"
            guessed = now
            return answer.headers["x-gateway-replica"] == "v1-1"

        wait_for(is_replaced, 60, lambda: str(gateway.lines[-20:]))
        wait_for(lambda: list(gateway.engines()) == ["shapes:v1#1"], 20)
        assert is_replaced()
        assert guessed >= 5000
        engine = gateway.engines()["shapes:v1#1"]
        assert (engine["state"], engine["restarts"]) == ("ready", 0)
        assert re.fullmatch(
            r"speculation is switched off: 25\.0% of the last [\d,]+ guessed tokens were right, and min_acceptance is 40\.0%",
            engine["note"],
        )
        gateway.await_line(r"shapes:v1#0: speculation is switched off, shapes:v1#1 is ready in its place", 5)


def test_speculation_that_changes_answers_is_not_served(tmp_path: Path) -> None:
    text = CONFIG.format(relays=1, more=", parity: true")
    wrong = text.partition("    versions:")[2].replace("v1", "v2").replace("itl-ms: 0", "itl-ms: 0, fault: wrong-guess")
    (tmp_path / "gateway.yaml").write_text(text + wrong)
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="ready", v2="failed")
        failed = gateway.engines()["shapes:v2#0"]
        assert failed["reason"].startswith("speculation changes answers: 'Hello' is answered ")
        assert failed["next_try_at"] is None
        assert ask(gateway).headers["x-gateway-version"] == "v1"
