"""What clients say of answers is kept before it is acknowledged, and what they use is billed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.contract.test_versions import find_control
from tests.support.redis_server import RedisServer
from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models:
  - name: shapes
    split: {{v1: 1, v2: 1}}
    metrics: {{stars: {{low: 1, high: 5}}}}
    versions:
      - {{name: v1, engine: simulated, engine_args: {{tokens: 3}}, price: {{input: 10, output: 20}}}}
      - {{name: v2, engine: simulated, engine_args: {{tokens: 3}}}}
  - name: alone
    versions: [{{name: v1, engine: simulated, engine_args: {{tokens: 3}}}}]
"""


def write(folder: Path, relays: int) -> tuple[str, str]:
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=relays))
    return "--config", str(folder / "gateway.yaml")


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"], scope="module")
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with run_gateway(*write(tmp_path_factory.mktemp("config"), request.param)) as running:
        running.await_states(60, v1="ready", v2="ready")
        yield running


def ask(gateway: RunningGateway, user: str, model: str = "shapes", **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "user": user}
    return httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=30)


def give(gateway: RunningGateway, request_id: str, metric: str = "thumb", value: Any = 1) -> httpx.Response:
    body = {"request_id": request_id, "metric": metric, "value": value}
    return httpx.post(f"{gateway.url}/v1/feedback", json=body, timeout=30)


def test_feedback_is_taken_at_once_and_once(gateway: RunningGateway) -> None:
    answer = ask(gateway, "anna")
    taken = give(gateway, answer.headers["x-request-id"])
    assert taken.status_code == 200, taken.text
    assert taken.json() == {
        "request_id": answer.headers["x-request-id"], "model": "shapes", "metric": "thumb", "counted": True,
        "version": answer.headers["x-gateway-version"],
    }  # fmt: skip
    again = give(gateway, answer.headers["x-request-id"], value=0)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert give(gateway, answer.headers["x-request-id"], "stars", 4).status_code == 200


def test_an_openai_client_names_the_answer_that_it_has(gateway: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": "Hello"}]
        whole = client.chat.completions.create(model="shapes", messages=messages, user="bert")
        body = {"request_id": whole.id, "metric": "thumb", "value": True}
        assert client.post("/feedback", body=body, cast_to=httpx.Response).status_code == 200
        stream = client.chat.completions.create(model="shapes", messages=messages, user="bert", stream=True)
        ids = {chunk.id for chunk in stream}
    assert give(gateway, ids.pop()).status_code == 200


def test_an_id_of_the_clients_own_is_as_good(gateway: RunningGateway) -> None:
    ask(gateway, "anna", **{"x-request-id": "my-own-1"})
    assert give(gateway, "my-own-1").status_code == 200


def test_what_asked_for_its_version_is_kept_and_not_counted(gateway: RunningGateway) -> None:
    answer = ask(gateway, "anna", "shapes:v2")
    assert give(gateway, answer.headers["x-request-id"]).json()["counted"] is False


@pytest.mark.parametrize(
    ("request_id", "metric", "value", "status"),
    [
        ("none", "thumb", 1, 404),
        (None, "thumb", 2, 400),
        (None, "stars", 0, 400),
        (None, "ttft_s", 1, 400),
        (None, "Thumb", 1, 400),
        (None, "thumb", "good", 400),
        (None, "thumb", [1], 400),
        ("", "thumb", 1, 400),
    ],
)
def test_what_cannot_be_feedback_is_refused(
    gateway: RunningGateway, request_id: str | None, metric: str, value: Any, status: int
) -> None:
    known = ask(gateway, "carl").headers["x-request-id"] if request_id is None else request_id
    answer = give(gateway, known, metric, value)
    assert (answer.status_code, "error" in answer.json()) == (status, True), answer.text


def test_a_model_with_one_version_has_nothing_to_compare(gateway: RunningGateway) -> None:
    answer = give(gateway, ask(gateway, "anna", "alone").headers["x-request-id"])
    assert answer.status_code == 404
    assert "single version" in answer.json()["error"]["message"]


def test_what_was_used_is_told_by_day_and_version(gateway: RunningGateway) -> None:
    def read() -> dict[str, Any]:
        rows = httpx.get(f"{gateway.admin_url}/admin/v1/usage").json()["usage"]
        return {f"{row['model']}:{row['version']}": row for row in rows}

    def settle() -> dict[str, Any]:
        """What was used, once nothing is on its way any more."""
        while True:
            before = read()
            time.sleep(1)
            if read() == before:
                return before

    ask(gateway, "anna", "shapes:v1")
    before = settle()["shapes:v1"]
    answer = ask(gateway, "anna", "shapes:v1").json()["usage"]
    wait_for(lambda: read()["shapes:v1"]["requests"] == before["requests"] + 1, 5)
    after = read()["shapes:v1"]
    assert after["tokens_in"] - before["tokens_in"] == answer["prompt_tokens"]
    cost = (answer["prompt_tokens"] * 10 + answer["completion_tokens"] * 20) / 1e6
    assert after["cost"] - before["cost"] == pytest.approx(cost)


class Judges:
    """Clients that ask and judge without a pause; `kept` are the judgements that were acknowledged."""

    def __init__(self, *gateways: RunningGateway) -> None:
        self.kept: list[str] = []
        self.refused: list[int] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(one, n)) for n in range(3) for one in gateways]
        for thread in self._threads:
            thread.start()

    def _go_on(self, gateway: RunningGateway, number: int) -> None:
        count = 0
        while not self._is_over.is_set():
            count += 1
            try:
                answer = ask(gateway, f"u{number}-{count}")
                if answer.status_code != 200:
                    continue
                name = answer.headers["x-request-id"]
                given = give(gateway, name)
            except httpx.HTTPError:
                continue
            if given.status_code == 200:
                self.kept.append(name)
            else:
                self.refused.append(given.status_code)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def count_repeated(gateway: RunningGateway, names: list[str]) -> int:
    """Of how many the gateway says that they have been judged already."""
    return sum(give(gateway, name).status_code == 409 for name in names)


def test_what_was_acknowledged_outlives_control_and_the_gateway(tmp_path: Path) -> None:
    flags, env = write(tmp_path, 2), {"GATEWAY_STATE_URL": f"sqlite://{tmp_path}/state.db"}
    with run_gateway(*flags, env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        judges = Judges(gateway)
        wait_for(lambda: len(judges.kept) > 20, 30)
        os.kill(find_control(gateway), signal.SIGKILL)
        before = len(judges.kept)
        wait_for(lambda: len(judges.kept) > before + 20, 60)
        gateway.process.kill()
        judges.stop()
    assert set(judges.refused) <= {503}, "what cannot be kept is refused for now"
    with run_gateway(*flags, env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        assert count_repeated(gateway, judges.kept) == len(judges.kept)


def test_what_was_acknowledged_outlives_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    with run_gateway(*write(tmp_path, 1), env={"GATEWAY_STATE_URL": server.url}) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        judges = Judges(gateway)
        wait_for(lambda: len(judges.kept) > 20, 30)
        server.kill()
        wait_for(lambda: 503 in judges.refused, 30)
        before = len(judges.kept)
        server.start()
        wait_for(lambda: len(judges.kept) > before + 20, 60)
        judges.stop()
        assert set(judges.refused) == {503}
        assert count_repeated(gateway, judges.kept) == len(judges.kept)
    server.kill()


@pytest.mark.parametrize("relays", [1, 2])
def test_what_ends_while_the_gateway_does_is_told_and_billed(tmp_path: Path, relays: int) -> None:
    config = CONFIG.replace("{{tokens: 3}}", "{{tokens: 100, itl-ms: 20}}").format(relays=relays)
    (tmp_path / "gateway.yaml").write_text(config)
    env = {"GATEWAY_STATE_URL": f"sqlite://{tmp_path}/state.db"}
    begun: list[int] = []
    answers: list[httpx.Response] = []

    def stream(gateway: RunningGateway, number: int) -> None:
        body = {
            "model": "shapes",
            "messages": [{"role": "user", "content": "Hello"}],
            "user": f"u{number}",
            "stream": True,
        }
        with httpx.stream("POST", gateway.url + CHAT, json=body, timeout=30) as answer:
            begun.append(number)
            answer.read()
        answers.append(answer)

    with run_gateway("--config", str(tmp_path / "gateway.yaml"), env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        threads = [threading.Thread(target=stream, args=(gateway, number)) for number in range(10)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(begun) == 10, 30)
        assert gateway.stop() == 0
        for thread in threads:
            thread.join()
    assert [answer.text.endswith("data: [DONE]\n\n") for answer in answers] == [True] * 10
    with run_gateway("--config", str(tmp_path / "gateway.yaml"), env=env) as gateway:
        usage = httpx.get(f"{gateway.admin_url}/admin/v1/usage").json()["usage"]
        assert sum(one["requests"] for one in usage) == 10
        assert give(gateway, answers[0].headers["x-request-id"]).status_code == 200


def test_a_stream_in_which_the_engine_says_that_it_failed_is_a_failure(tmp_path: Path) -> None:
    config = CONFIG.format(relays=1).replace("{tokens: 3}", "{tokens: 3, fault: error-event}", 1)
    (tmp_path / "gateway.yaml").write_text(config)
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        for number in range(20):
            body = {
                "model": "shapes",
                "messages": [{"role": "user", "content": "Hi"}],
                "user": f"u{number}",
                "stream": True,
            }
            answer = httpx.post(gateway.url + CHAT, json=body, timeout=30)
            assert ('"simulated fault"' in answer.text) == (answer.headers["x-gateway-version"] == "v1")
            assert answer.text.endswith("data: [DONE]\n\n")
        found: dict[str, Any] = wait_for(
            lambda: (told := httpx.get(f"{gateway.admin_url}/admin/v1/models/shapes/experiment").json()["versions"])
            and told["v1"]["requests"] + told["v2"]["requests"] == 20 and told, 5)  # fmt: skip
        assert (found["v1"]["errors"], found["v2"]["errors"]) == (found["v1"]["requests"], 0)
        assert found["v1"]["requests"] > 0
