"""Engines that somebody else runs: served while they are there, and neither started nor stopped."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


class Elsewhere:
    """A simulated engine on a TCP port that it keeps over restarts."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "gateway.simulator", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--served-model-name", "org/shapes-7b"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = next(found for line in self.process.stdout if (found := re.search(r"listening on (http://\S+)", line)))
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def last_model(self) -> str:
        """The model name that the engine was asked for."""
        return str(httpx.get(f"{self.url}/simulator/last", timeout=10).json()["body"])


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    engine = Elsewhere()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def fronted(elsewhere: Elsewhere, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway in front of it."""
    path = tmp_path_factory.mktemp("elsewhere") / "gateway.yaml"
    version = f"{{name: far, endpoints: ['{elsewhere.url}/'], defaults: {{temperature: 0.0}}}}"
    path.write_text(f"server: {{host: 127.0.0.1}}\nmodels: [{{name: shapes, versions: [{version}]}}]\n")
    with run_gateway("--config", str(path)) as running:
        running.await_states(60, far="ready")
        yield running


def test_it_is_asked_by_its_own_name_and_answers_under_the_public_one(
    fronted: RunningGateway, elsewhere: Elsewhere
) -> None:
    answer = fronted.http.post(CHAT, json=BODY)
    assert (answer.status_code, answer.json()["model"]) == (200, "shapes")
    assert answer.headers["x-gateway-replica"] == "far-0"
    seen = elsewhere.last_model()
    assert '"org/shapes-7b"' in seen
    assert '"temperature":0.0' in seen.replace(" ", "")


def test_a_stream_carries_the_public_name_in_every_event(fronted: RunningGateway) -> None:
    events = fronted.http.post(CHAT, json=BODY | {"model": "shapes:far", "stream": True}).text.split("\n\n")
    chunks = [event for event in events if event and "[DONE]" not in event]
    assert len(chunks) >= 5
    assert all('"model":"shapes:far"' in chunk.replace(": ", ":") for chunk in chunks)
    assert "org/shapes-7b" not in "".join(events)


def test_its_context_length_is_shown(fronted: RunningGateway) -> None:
    cards = {card["id"]: card for card in fronted.http.get("/v1/models").json()["data"]}
    assert cards["shapes:far"]["max_model_len"] == 32768


def test_admin_shows_where_it_is(fronted: RunningGateway, elsewhere: Elsewhere) -> None:
    [model] = httpx.get(f"{fronted.admin_url}/admin/v1/models", timeout=10).json()["models"]
    [version] = model["versions"]
    assert (version["endpoints"], version["checkpoint"]) == ([f"{elsewhere.url}/"], None)
    [engine] = version["engines"]
    assert (engine["name"], engine["state"], engine["pid"]) == ("shapes:far#0", "ready", None)


def test_while_it_is_away_clients_are_told_to_come_back_and_later_they_are_served(
    fronted: RunningGateway, elsewhere: Elsewhere
) -> None:
    elsewhere.stop()
    check_refusal(fronted.http.post(CHAT, json=BODY))  # before the watch has seen it
    fronted.await_states(60, far="failed")
    assert "/health" in fronted.engines()["shapes:far#0"]["reason"]
    told = check_refusal(fronted.http.post(CHAT, json=BODY))
    assert "failed" in told
    elsewhere.start()
    fronted.await_states(60, far="ready")
    assert fronted.engines()["shapes:far#0"]["reason"] is None
    assert fronted.http.post(CHAT, json=BODY).status_code == 200


def check_refusal(answer: httpx.Response) -> str:
    """It is one that a client may come back after; gives its sentence."""
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-gateway-error-origin"] == "gateway"
    error = answer.json()["error"]
    assert error["code"] == "no_replica"
    return str(error["message"])


def test_it_goes_on_when_the_gateway_ends(fronted: RunningGateway, elsewhere: Elsewhere) -> None:
    assert fronted.stop() == 0
    assert elsewhere.process.poll() is None
    wait_for(lambda: httpx.get(f"{elsewhere.url}/health", timeout=10).status_code == 200, 10)
