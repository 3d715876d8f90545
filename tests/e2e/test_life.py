"""Life and death of gateways and engines, with the real program over simulated engines that fail on demand."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def config(folder: Path, *versions: str, server: str = "host: 127.0.0.1") -> str:
    lines = "".join(
        f"      - {{name: v{number}, engine: simulated{args}}}\n" for number, args in enumerate(versions, 1)
    )
    path = folder / "gateway.yaml"
    path.write_text(f"server: {{{server}}}\nmodels:\n  - name: m\n    versions:\n{lines}")
    return str(path)


def slow(tokens: int = 100, itl_ms: int = 20) -> str:
    return f", engine_args: {{tokens: {tokens}, itl-ms: {itl_ms}}}"


def fault(kind: str) -> str:
    return f", engine_args: {{fault: ['{kind}'], tokens: 50, itl-ms: 10}}"


def pid_of(gateway: RunningGateway, version: str = "v1") -> int:
    pid: int = gateway.engines()[f"m:{version}#0"]["pid"]
    return pid


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read_stream(gateway: RunningGateway, **more: Any) -> list[str]:
    with gateway.http.stream("POST", CHAT, json=BODY | more) as answer:
        return [line for line in answer.iter_lines() if line]


def test_a_term_lets_running_answers_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, slow())) as gateway:
        gateway.await_states(20, v1="ready")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(read_stream, gateway, max_tokens=100)
            gateway_has_work = "answers under way"
            time.sleep(0.5)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_line(f"draining: 1 {gateway_has_work}", 5)
            refused = gateway.http.post(CHAT, json=BODY)
            lines = running.result(20)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "draining"
        assert lines[-1] == "data: [DONE]"
        assert len(lines) > 90
        assert not any("error" in line for line in lines)
        assert gateway.process.wait(15) == 0


def test_answers_that_outlast_the_grace_time_end_with_an_error(tmp_path: Path) -> None:
    server = "host: 127.0.0.1, drain_grace_s: 1"
    with run_gateway("--config", config(tmp_path, slow(tokens=5000), server=server)) as gateway:
        gateway.await_states(20, v1="ready")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(read_stream, gateway, max_tokens=5000)
            time.sleep(0.5)
            started_s = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            lines = running.result(20)
        assert gateway.process.wait(15) == 0
        assert time.monotonic() - started_s < 12
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["message"]
        assert lines[-1] == "data: [DONE]"


def test_a_second_signal_ends_the_wait(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, slow(tokens=5000))) as gateway:
        gateway.await_states(20, v1="ready")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(read_stream, gateway, max_tokens=5000)
            time.sleep(0.3)
            gateway.process.send_signal(signal.SIGINT)
            gateway.await_line("draining: 1", 5)
            assert gateway.stop(signal.SIGINT, timeout_s=15) == 0
            assert '"error"' in running.result(10)[-2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_engine_outlives_the_gateway(tmp_path: Path, number: int) -> None:
    with run_gateway("--config", config(tmp_path, "", "")) as gateway:
        gateway.await_states(20, v1="ready", v2="ready")
        pids = [pid_of(gateway, "v1"), pid_of(gateway, "v2")]
        assert all(is_alive(pid) for pid in pids)
        gateway.stop(number)
        wait_for(lambda: not any(is_alive(pid) for pid in pids), 5)


def test_a_crashed_engine_comes_back_and_its_reason_is_shown(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, "", "")) as gateway:
        gateway.await_states(20, v1="ready", v2="ready")
        os.kill(pid_of(gateway), signal.SIGKILL)
        found = gateway.await_line(r"m:v1#0 failed: (.+)", 10)
        assert "kill" in found[1].lower()
        assert gateway.engines()["m:v2#0"]["state"] == "ready"
        gateway.await_states(20, v1="ready")
        assert gateway.engines()["m:v1#0"]["restarts"] == 1
        assert read_stream(gateway, model="m:v1")[-1] == "data: [DONE]"


def test_an_engine_that_ends_with_0_in_mid_answer_has_failed(tmp_path: Path) -> None:
    # The second generation dies half-way; the first was the readiness probe's.
    with run_gateway("--config", config(tmp_path, fault("die-after:1"))) as gateway:
        gateway.await_states(20, v1="ready")
        lines = read_stream(gateway)
        assert lines[-1] == "data: [DONE]"
        assert any('"error"' in line for line in lines)
        gateway.await_line(r"m:v1#0 failed", 10)


def test_a_cut_stream_ends_with_an_error_event(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, fault("cut-stream:5"))) as gateway:
        gateway.await_states(20, v1="ready")
        lines = read_stream(gateway)
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["type"] == "upstream_error"
        assert lines[-1] == "data: [DONE]"


def test_an_open_port_without_tokens_is_not_ready(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, fault("no-token"), "")) as gateway:
        gateway.await_states(20, v1="failed", v2="ready")
        assert "500" in gateway.engines()["m:v1#0"]["reason"]
        assert gateway.http.post(CHAT, json=BODY | {"model": "m:v1"}).status_code == 503
        assert gateway.http.post(CHAT, json=BODY | {"model": "m:v2", "stream": False}).status_code == 200


def test_one_that_cannot_start_says_why_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, fault("die-at-start:3"), "")) as gateway:
        gateway.await_states(20, v1="failed", v2="ready")
        status = gateway.engines()["m:v1#0"]
        assert status["reason"]
        assert any("die-at-start" in line for line in status["tail"])


def test_an_engine_that_hangs_on_term_is_killed_in_time(tmp_path: Path) -> None:
    server = "host: 127.0.0.1, drain_grace_s: 0.2"
    with run_gateway("--config", config(tmp_path, fault("hang-on-sigterm"), server=server)) as gateway:
        gateway.await_states(20, v1="ready")
        pid = pid_of(gateway)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(read_stream, gateway, max_tokens=5000)
            time.sleep(0.3)
            assert gateway.stop(timeout_s=25) == 0
            running.result(10)
        assert not is_alive(pid)


def test_an_engine_that_hangs_is_answered_with_504(tmp_path: Path) -> None:
    server = "host: 127.0.0.1, first_byte_timeout_s: 0.5"
    with run_gateway("--config", config(tmp_path, fault("hang:1"), server=server)) as gateway:
        gateway.await_states(20, v1="ready")
        answer = gateway.http.post(CHAT, json=BODY)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "engine_timeout"


def test_a_port_in_use_is_told_and_code_1(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, "")) as gateway:
        port = httpx.URL(gateway.url).port
        command = [sys.executable, "-m", "gateway", "serve", "--config", config(tmp_path, ""), "--port", str(port)]
        found = subprocess.run([*command, "--admin-port", "0"], capture_output=True, text=True, timeout=30, check=False)
        assert found.returncode == 1
        assert f"{port}" in found.stderr
