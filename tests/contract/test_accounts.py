"""What is told of requests afterwards: a line in the request log and the counts that Prometheus reads."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "shapes:v1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6}


class Counted:
    """A gateway with a request log."""

    def __init__(self, gateway: RunningGateway, log: Path) -> None:
        self.gateway = gateway
        self.http = gateway.http
        self.log = log

    def line(self, request_id: str) -> dict[str, str]:
        """The fields of a request's one line, `path` among them."""
        [line] = wait_for(lambda: self.lines(request_id), 10, lambda: self.log.read_text()[-2000:])
        _, _, path, *fields = line.split()
        return {"path": path} | dict(field.split("=", 1) for field in fields)

    def lines(self, request_id: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[1] == request_id]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        text = httpx.get(f"{self.gateway.admin_url}/metrics", timeout=10).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    folder = tmp_path_factory.mktemp("accounts")
    log = folder / "logs" / "requests.log"
    (folder / "gateway.yaml").write_text(f"""
server: {{host: 127.0.0.1, drain_grace_s: 0.2, access_log_path: logs/{log.name}}}
models:
  - name: shapes
    split: {{v1: 1, slow: 0, broken: 0}}
    versions:
      - {{name: v1, engine: simulated}}
      - {{name: slow, engine: simulated, engine_args: {{itl-ms: 30, tokens: 500}}}}
      - {{name: broken, engine: simulated, engine_args: {{fault: "cut-stream:3"}}}}
""")
    with run_gateway("--config", str(folder / "gateway.yaml")) as running:
        running.await_states(60, v1="ready", slow="ready", broken="ready")
        yield Counted(running, log)


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_is_told_with_the_engines_own_count(counted: Counted, is_stream: bool) -> None:
    labels = {"model": "shapes", "version": "v1"}
    before = counted.value("gateway_tokens_total", direction="out", estimated="false", **labels)
    name = f"done-{is_stream}"
    answer = counted.http.post(CHAT, json=BODY | {"stream": is_stream}, headers={"x-request-id": name})
    assert "usage" in answer.text or is_stream  # hidden from a stream that did not ask, and counted all the same
    line = counted.line(name)
    assert (line["path"], line["model"], line["version"], line["replica"]) == (CHAT, "shapes", "v1", "v1-0")
    assert (line["status"], line["outcome"], line["out"]) == ("200", "done", "6")
    assert int(line["in"]) > 0
    assert 0 < float(line["first_byte_ms"]) <= float(line["total_ms"])
    after = counted.value("gateway_tokens_total", direction="out", estimated="false", **labels)
    assert after - before == 6


def test_a_stream_that_its_client_left_is_told_with_an_estimate(counted: Counted) -> None:
    labels = {"version": "slow"}
    body = BODY | {"model": "shapes:slow", "stream": True, "max_tokens": 400, "ignore_eos": True}
    with counted.http.stream("POST", CHAT, json=body, headers={"x-request-id": "left"}) as answer:
        events = (line for line in answer.iter_lines() if line.startswith("data:"))
        for _ in range(6):
            next(events)
        assert counted.value("gateway_requests_running") == 1
    line = counted.line("left")
    assert (line["status"], line["outcome"], line["in"]) == ("499", "hung_up", "-")
    assert line["out"].startswith("~")
    tokens = int(line["out"].removeprefix("~"))
    assert 4 <= tokens < 400
    assert counted.value("gateway_tokens_total", direction="out", estimated="true", **labels) == tokens
    assert counted.value("gateway_tokens_total", direction="out", estimated="false", **labels) == 0
    assert counted.value("gateway_requests_total", status="499", outcome="hung_up", **labels) == 1
    assert counted.value("gateway_requests_running") == 0


def test_an_answer_that_its_client_left_is_told_with_what_those_before_it_came_to(counted: Counted) -> None:
    body = BODY | {"model": "shapes:slow", "ignore_eos": True}
    answer = counted.http.post(CHAT, json=body | {"max_tokens": 20}, headers={"x-request-id": "before"})
    assert answer.json()["usage"]["completion_tokens"] == 20
    with pytest.raises(httpx.ReadTimeout):
        counted.http.post(CHAT, json=body | {"max_tokens": 400}, headers={"x-request-id": "left-whole"}, timeout=1.2)
    line = counted.line("left-whole")
    assert (line["status"], line["outcome"]) == ("499", "hung_up")
    assert line["in"] == f"~{answer.json()['usage']['prompt_tokens']}"
    assert 20 <= int(line["out"].removeprefix("~")) <= 60, "at 30 ms a token"


def test_a_stream_that_its_engine_left_is_told_with_an_estimate(counted: Counted) -> None:
    body = BODY | {"model": "shapes:broken", "stream": True}
    assert "engine_failed" in counted.http.post(CHAT, json=body, headers={"x-request-id": "broken"}).text
    line = counted.line("broken")
    assert (line["status"], line["outcome"]) == ("200", "broken")
    assert line["out"].startswith("~")


@pytest.mark.parametrize(
    ("body", "name", "status", "outcome", "model"),
    [
        ({"model": "other"}, "refused-1", 404, "model_not_found", "-"),
        (BODY | {"messages": "no list"}, "refused-2", 400, "engine_error", "shapes"),
        ([], "refused-3", 400, "invalid_request", "-"),
    ],
)
def test_a_refusal_is_told_with_its_code(
    counted: Counted, body: object, name: str, status: int, outcome: str, model: str
) -> None:
    assert counted.http.post(CHAT, json=body, headers={"x-request-id": name}).status_code == status
    line = counted.line(name)
    assert (line["status"], line["outcome"], line["model"], line["out"]) == (str(status), outcome, model, "-")
    assert counted.value("gateway_requests_total", outcome=outcome, status=str(status)) == 1


def test_every_request_is_in_the_histograms(counted: Counted) -> None:
    assert counted.value("gateway_request_seconds_count") == counted.value("gateway_requests_total") > 0
    assert counted.value("gateway_request_seconds_bucket", le="+Inf") == counted.value("gateway_requests_total")


def test_a_request_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gateway.yaml").write_text(
        "server: {access_log_path: file/requests.log}\n"
        "models: [{name: shapes, versions: [{name: v1, engine: simulated}]}]\n"
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(tmp_path / "gateway.yaml"), "--port", "0"]
    ended = subprocess.run([*command, "--admin-port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "server.access_log_path cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_prompts_and_header_values_are_not_written_and_stderr_has_no_request_lines(counted: Counted) -> None:
    body = BODY | {"messages": [{"role": "user", "content": "a prompt nobody may read"}], "user": "somebody"}
    headers = {"x-request-id": "silent", "x-session-id": "a-session", "authorization": "Bearer a-key"}
    assert counted.http.post(CHAT, json=body, headers=headers).status_code == 200
    counted.line("silent")
    written = "\n".join([counted.log.read_text(), *counted.gateway.lines])
    for secret in ("nobody may read", "somebody", "a-session", "a-key"):
        assert secret not in written
    assert not any("total_ms=" in line for line in counted.gateway.lines)


def test_the_last_lines_are_written_before_the_end(counted: Counted) -> None:
    body = BODY | {"model": "shapes:slow", "stream": True, "max_tokens": 400, "ignore_eos": True}
    with counted.http.stream("POST", CHAT, json=body, headers={"x-request-id": "last"}) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert counted.gateway.stop() == 0
        assert "data: [DONE]" in list(lines)
    [line] = counted.lines("last")
    assert "status=200 outcome=broken" in line
    assert "out=~" in line
