"""Several relays on one port, with the real program: what dies, what is replaced, and what clients notice of it."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    with run_gateway("--config", config(tmp_path)) as running:
        running.await_states(30, v1="ready", slow="ready")
        yield running


def config(folder: Path, relays: int = 2, more: str = "") -> str:
    path = folder / "gateway.yaml"
    path.write_text(f"""
server: {{host: 127.0.0.1, relays: {relays}{more}}}
models:
  - name: m
    split: {{v1: 1, slow: 0}}
    versions:
      - {{name: v1, engine: simulated, replicas: 2}}
      - {{name: slow, engine: simulated, engine_args: {{tokens: 100, itl-ms: 20}}}}
""")
    return str(path)


def pids(gateway: RunningGateway, role: str) -> list[int]:
    """The living processes of a role, children of the main process."""
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if is_alive(pid) and f"gateway.app.{role}\0" in command_of(pid)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def ask(gateway: RunningGateway, **more: Any) -> int:
    """One request on a connection of its own, so that any relay may get it."""
    return httpx.post(gateway.url + CHAT, json=BODY | more, timeout=20).status_code


def value(gateway: RunningGateway, name: str, **labels: str) -> float:
    text = httpx.get(f"{gateway.admin_url}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


class Load:
    """Clients that ask all the time, each on new connections and on a kept one; every failure is noted."""

    def __init__(self, gateway: RunningGateway, clients: int = 4) -> None:
        self.gateway = gateway
        self.answers = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keeps: bool) -> None:
        with httpx.Client(timeout=20, limits=httpx.Limits(max_keepalive_connections=1 if keeps else 0)) as client:
            while not self._stopping.is_set():
                try:
                    status = client.post(self.gateway.url + CHAT, json=BODY).status_code
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                self.answers += 1
                if status != 200:
                    self.failures.append(str(status))


def test_relays_share_the_port_and_their_counts_add_up(gateway: RunningGateway) -> None:
    assert len(pids(gateway, "relay")) == 2
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: ask(gateway), range(60))) == {200}
    assert value(gateway, "gateway_requests_total", model="m", version="v1", status="200") == 60
    one, other = pids(gateway, "relay")
    used = {pid: cpu_ticks(pid) for pid in (one, other)}
    for _ in range(200):
        ask(gateway)
    assert all(cpu_ticks(pid) > used[pid] for pid in (one, other))  # the kernel spreads connections over both
    wait_for(lambda: value(gateway, "gateway_requests_total", model="m", version="v1", status="200") == 260, 5)
    os.kill(one, signal.SIGSTOP)
    try:
        # Only the other one can report now; the first counts with what it said before.
        assert value(gateway, "gateway_requests_total", model="m", version="v1", status="200") == 260
    finally:
        os.kill(one, signal.SIGCONT)


def test_a_relay_that_dies_is_replaced_takes_no_other_down_and_its_counts_stay(gateway: RunningGateway) -> None:
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(stream, gateway) for _ in range(12)]
        time.sleep(0.7)
        for _ in range(20):
            ask(gateway)
        time.sleep(1.2)  # a relay reports each second
        victim, survivor = pids(gateway, "relay")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(pids(gateway, "relay")) == 2, 20)
        ended = [future.result(30) for future in streams]
    assert survivor in pids(gateway, "relay")
    assert "whole" in ended  # those of the other relay went on
    assert set(ended) <= {"whole", "lost"}
    gateway.await_line(r"relay \d ended by signal 9: it is started again", 5)
    assert value(gateway, "gateway_requests_total", version="v1", status="200") >= 20
    assert value(gateway, "gateway_relay_starts_total") == 3
    # Nobody is refused meanwhile or afterwards: what connects waits for the new one.
    os.kill(pids(gateway, "relay")[0], signal.SIGKILL)
    assert [ask(gateway) for _ in range(30)] == [200] * 30


def stream(gateway: RunningGateway) -> str:
    body = BODY | {"model": "m:slow", "stream": True, "max_tokens": 100}
    try:
        with httpx.stream("POST", gateway.url + CHAT, json=body, timeout=30) as answer:
            lines = [line for line in answer.iter_lines() if line]
    except httpx.HTTPError:
        return "lost"
    return "whole" if lines[-1] == "data: [DONE]" and "error" not in lines[-2] else "cut"


def test_no_client_notices_that_control_dies_and_comes_back(gateway: RunningGateway) -> None:
    engines = {name: engine["pid"] for name, engine in gateway.engines().items()}
    with Load(gateway) as load:
        time.sleep(0.5)
        for _ in range(2):
            [control] = pids(gateway, "control")
            os.kill(control, signal.SIGKILL)
            wait_for(lambda gone=control: pids(gateway, "control") not in ([], [gone]), 20)
            wait_for(lambda: is_answering(gateway), 20)
            time.sleep(0.5)
    assert load.failures == []
    assert load.answers > 50
    assert {name: engine["pid"] for name, engine in gateway.engines().items()} == engines  # none was started anew
    assert value(gateway, "gateway_requests_total", version="v1", status="200") == load.answers


def is_answering(gateway: RunningGateway) -> bool:
    try:
        return httpx.get(f"{gateway.admin_url}/metrics", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_happens_while_control_is_away_is_caught_up_with(gateway: RunningGateway) -> None:
    [control] = pids(gateway, "control")
    os.kill(control, signal.SIGSTOP)
    try:
        for relay in pids(gateway, "relay"):
            os.kill(relay, signal.SIGKILL)
        # New relays go by the last snapshot, which the main process has kept.
        assert [ask(gateway) for _ in range(10)] == [200] * 10
        victim = next(int(pid) for pid in children_of(gateway) if "gateway.simulator" in command_of(int(pid)))
        os.kill(victim, signal.SIGKILL)
    finally:
        os.kill(control, signal.SIGCONT)
    gateway.await_line(r"m:\w+#0 failed", 10)
    gateway.await_states(20, v1="ready", slow="ready")
    wait_for(lambda: sum(engine["restarts"] for engine in gateway.engines().values()) == 1, 10)
    assert ask(gateway) == 200


def children_of(gateway: RunningGateway) -> list[str]:
    return Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()


def test_route_changes_reach_every_relay_within_a_tenth_of_a_second(gateway: RunningGateway) -> None:
    delays = []
    with Load(gateway, clients=2):
        for _ in range(3):
            victim = next(int(pid) for pid in children_of(gateway) if "gateway.simulator" in command_of(int(pid)))
            os.kill(victim, signal.SIGKILL)
            time.sleep(2.5)
            delays += [value(gateway, "gateway_routes_delay_seconds", relay=relay) for relay in ("0", "1")]
    assert 0 < max(delays) < 0.1, delays


def test_a_term_drains_every_relay_and_nothing_is_left(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path)) as gateway:
        gateway.await_states(30, v1="ready", slow="ready")
        everybody = [*map(int, children_of(gateway))]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            streams = [pool.submit(stream, gateway) for _ in range(6)]
            time.sleep(0.7)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_line("draining: [1-6] answers", 5)
            assert ask(gateway) == 503
            assert [future.result(20) for future in streams] == ["whole"] * 6
        assert gateway.process.wait(15) == 0
        assert not any(map(is_alive, everybody))
        assert not any("failed" in line or "ERROR" in line for line in gateway.lines)


def test_a_signal_that_reaches_every_process_of_ours_drains_like_one(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path)) as gateway:
        gateway.await_states(30, v1="ready", slow="ready")
        ours = [*pids(gateway, "relay"), *pids(gateway, "control"), gateway.process.pid]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            streams = [pool.submit(stream, gateway) for _ in range(6)]
            time.sleep(0.7)
            for pid in ours:
                os.kill(pid, signal.SIGTERM)
            assert [future.result(20) for future in streams] == ["whole"] * 6
        assert gateway.process.wait(15) == 0
        assert not any("Traceback" in line for line in gateway.lines)


def test_no_relay_answers_before_control_has_said_what_there_is(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path)) as gateway:
        # The gateway says that it answers once all of it does: the first request already finds its model.
        assert ask(gateway) in (200, 503)


def test_a_second_signal_ends_the_wait(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path)) as gateway:
        gateway.await_states(30, slow="ready")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            streams = [pool.submit(stream, gateway) for _ in range(2)]
            time.sleep(0.5)
            gateway.process.send_signal(signal.SIGINT)
            gateway.await_line("draining: [12] answers", 5)
            started_s = time.monotonic()
            assert gateway.stop(signal.SIGINT, timeout_s=15) == 0
            assert time.monotonic() - started_s < 10
            assert [future.result(10) for future in streams] == ["cut"] * 2


def test_nobody_outlives_the_main_process(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path)) as gateway:
        gateway.await_states(30, v1="ready", slow="ready")
        everybody = [*map(int, children_of(gateway))]
        assert len(everybody) == 6
        gateway.stop(signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, everybody)), 10)


def test_nobody_but_control_knows_the_admin_key(tmp_path: Path) -> None:
    path = Path(config(tmp_path))
    path.write_text(path.read_text() + "admin: {key_env: MY_KEY}\n")
    with run_gateway("--config", str(path), env={"MY_KEY": "admin-secret"}) as gateway:
        wait_for(lambda: len(pids(gateway, "relay")) == 2, 10)
        for pid in map(int, children_of(gateway)):
            assert "admin-secret" not in Path(f"/proc/{pid}/environ").read_text()
        headers = {"authorization": "Bearer admin-secret"}
        assert httpx.get(f"{gateway.admin_url}/admin/v1/models", headers=headers).status_code == 200
        assert httpx.get(f"{gateway.admin_url}/admin/v1/models").status_code == 401


def test_all_relays_write_whole_lines_into_one_request_log(tmp_path: Path) -> None:
    with run_gateway("--config", config(tmp_path, more=", access_log_path: requests.log")) as gateway:
        gateway.await_states(30, v1="ready")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(gateway), range(40))) == {200}
        log = tmp_path / "requests.log"
        lines = wait_for(lambda: found if len(found := log.read_text().splitlines()) == 40 else None, 5)
        assert all(re.fullmatch(r"\S+ [0-9a-f]{32} /v1/chat/completions model=m .* out=3", line) for line in lines)


@pytest.mark.parametrize("port", ["public", "admin"])
def test_a_port_that_is_taken_ends_the_start(tmp_path: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        flags = (
            ["--port", str(number), "--admin-port", "0"]
            if port == "public"
            else ["--port", "0", "--admin-port", str(number)]
        )
        ended = start_and_wait(config(tmp_path), flags)
    assert ended.returncode == 1
    assert f"nothing can listen on 127.0.0.1:{number}" in ended.stderr


def start_and_wait(path: str, flags: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", "serve", "--config", path, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
