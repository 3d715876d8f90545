"""Speculative decoding of a real engine: it changes no answer, and what comes of it is told."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

pytestmark = pytest.mark.engine

DEMO = Path(__file__).parents[2] / "gateway" / "demo" / "shapes-v2"
CONFIG = f"""
server: {{host: 127.0.0.1}}
models:
  - name: shapes
    versions:
      - {{name: plain, checkpoint: {DEMO}, engine_args: {{dtype: float32, max-model-len: 1024}}}}
      - name: guessing
        checkpoint: {DEMO}
        engine_args: {{dtype: float32, max-model-len: 1024}}
        speculative: {{method: ngram, num_speculative_tokens: 4, prompt_lookup_min: 2, prompt_lookup_max: 4}}
"""
TEXTS = (
    "what colour is it? what colour is it? what colour is it?",
    "how many shapes are there?",
    "where is the circle?",
)


def ask(gateway: RunningGateway, version: str, text: str) -> str:
    body = {"model": f"shapes:{version}", "messages": [{"role": "user", "content": text}], "temperature": 0}
    answer = gateway.http.post("/v1/chat/completions", json=body | {"max_tokens": 60, "ignore_eos": True})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_guessing_changes_no_answer_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(240, plain="ready", guessing="ready")
        plain = [ask(gateway, "plain", text) for text in TEXTS]
        assert [ask(gateway, "guessing", text) for text in TEXTS] == plain
        wait_for(lambda: (gateway.engines()["shapes:guessing#0"]["drafts"] or {}).get("guessed"), 15)
        command = [sys.executable, "-m", "gateway", "models", "--admin-url", gateway.admin_url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        engines = {
            engine["name"]: engine
            for version in json.loads(done.stdout)[0]["versions"]
            for engine in version["engines"]
        }
        drafts = engines["shapes:guessing#0"]["drafts"]
        assert drafts["steps"] > 0
        assert 0 < drafts["acceptance"] <= 1
        assert drafts["tokens_per_step"] > 1
        assert engines["shapes:plain#0"]["drafts"] is None
        metrics = httpx.get(f"{gateway.admin_url}/metrics", timeout=10).text
        found = re.search(
            r'^gateway_speculative_acceptance\{model="shapes",version="guessing"\} (\S+)$', metrics, re.MULTILINE
        )
        assert found
        assert float(found[1]) > 0
