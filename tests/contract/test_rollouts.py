"""Rollouts over simulated engines: evidence moves the traffic, forward or back, whatever dies meanwhile."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.test_versions import find_control
from tests.support.redis_server import RedisServer
from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models:
  - name: shapes
    split: {{v1: 1}}
    versions:
      - {{name: v1, engine: simulated, engine_args: {{tokens: 3, ttft-ms: 1, itl-ms: 1}}}}
      - {{name: v2, engine: simulated, engine_args: {{tokens: 3, ttft-ms: 1, itl-ms: 1}}}}
"""
QUICK = {"min_time_s": 0, "min_users": 20, "guards": {"error_rate": {"margin": 0.1}}}


def write(folder: Path, relays: int = 1) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=relays))
    return "--config", str(folder / "gateway.yaml")


def admin(gateway: RunningGateway, method: str, path: str, body: object = None) -> httpx.Response:
    return httpx.request(method, f"{gateway.admin_url}/admin/v1/{path}", json=body, timeout=30)


class Crowd:
    """Users that ask and say how it went, by what `succeed` makes of the version; one in four has been there before.

    `got` counts answers by version; `moved_back` names who had the candidate, and then the baseline.
    """

    def __init__(self, succeed: Callable[[str], float], *gateways: RunningGateway, threads: int = 3) -> None:
        self.got: Counter[str] = Counter()
        self.kept: list[str] = []
        self.moved_back: list[str] = []
        self.users: set[str] = set()
        self.failed: list[str] = []
        self._succeed = succeed
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(gateway, f"{number}-{place}"), daemon=True)
            for number in range(threads)
            for place, gateway in enumerate(gateways)
        ]
        for thread in self._threads:
            thread.start()

    def _go_on(self, gateway: RunningGateway, name: str) -> None:
        luck, count, seen = random.Random(name), 0, dict[str, str]()
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while not self._is_over.is_set():
                count += 1
                user = luck.choice(list(seen)) if seen and count % 4 == 0 else f"{name}-{count}"
                body = {"model": "shapes", "messages": [{"role": "user", "content": "Hi"}], "user": user}
                try:
                    answer = client.post(CHAT, json=body | {"stream": count % 2 == 0})
                    version = answer.headers.get("x-gateway-version", "-")
                    self.got[version] += 1
                    if (seen.get(user), version) == ("v2", "v1"):
                        self.moved_back.append(user)
                    seen[user] = version
                    self.users.add(user)
                    if answer.status_code != 200:
                        self.failed.append(answer.text)
                        continue
                    success = luck.random() < self._succeed(version)
                    said = {"request_id": answer.headers["x-request-id"], "metric": "success", "value": success}
                    if client.post("/v1/feedback", json=said).status_code == 200:
                        self.kept.append(said["request_id"])
                except httpx.HTTPError as error:
                    self.failed.append(str(error))
                    time.sleep(0.05)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *how: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def relays() -> int:
    return 2


@pytest.fixture
def gateway(relays: int, tmp_path: Path) -> Iterator[RunningGateway]:
    with run_gateway(*write(tmp_path, relays)) as running:
        running.await_states(60, v1="ready", v2="ready")
        yield running


def start(gateway: RunningGateway, **plan: Any) -> str:
    answer = admin(gateway, "POST", "models/shapes/rollouts", {"candidate": "v2"} | QUICK | plan)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def show(gateway: RunningGateway, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = admin(gateway, "GET", f"models/shapes/rollouts/{name}").json()
    return shown


def await_end(gateway: RunningGateway, name: str, state: str, timeout_s: float = 60) -> dict[str, Any]:
    found: dict[str, Any] = wait_for(
        lambda: (shown := show(gateway, name))["ended"] and shown, timeout_s, lambda: str(show(gateway, name))
    )
    assert found["state"] == state, found
    return found


@pytest.mark.parametrize("relays", [1, 2])
def test_a_better_candidate_gets_everything_step_by_step(gateway: RunningGateway) -> None:
    with Crowd(lambda version: 0.9 if version == "v2" else 0.5, gateway) as crowd:
        name = start(gateway, steps=[10, 50, 100], goal={"success": {"margin": 0.1}})
        shown = await_end(gateway, name, "promoted")
        wait_for(lambda: admin(gateway, "GET", "models/shapes/split").json()["split"] == {"v1": 0.0, "v2": 1.0}, 5)
        crowd.stop()
        assert (crowd.failed, crowd.moved_back) == ([], [])
        assert [finding["verdict"] for finding in shown["findings"]] == ["kept", "kept"]
        events = admin(gateway, "GET", "events?model=shapes").json()["events"]
        kinds = [event["kind"] for event in reversed(events) if event["kind"].startswith("rollout")]
        assert kinds == ["rollout_started", "rollout_step", "rollout_step", "rollout_promoted"]
        assert events[0]["details"]["findings"][0]["users"]["candidate"] > 20
        answer = admin(gateway, "PUT", "models/shapes/split", {"v1": 1})
        assert answer.status_code == 200, "it has no say any more"


def test_a_worse_candidate_loses_everything(gateway: RunningGateway) -> None:
    with Crowd(lambda version: 0.3 if version == "v2" else 0.9, gateway) as crowd:
        name = start(gateway, steps=[50, 90, 100], guards={"success": {"margin": 0.1}})
        shown = await_end(gateway, name, "rolled_back")
        crowd.stop()
        assert shown["reason"].startswith("success worse by +0.")
        assert admin(gateway, "GET", "models/shapes/split").json()["split"] == {"v1": 1.0, "v2": 0.0}
        assert crowd.failed == []


def test_while_it_runs_it_has_the_say_and_a_person_the_last_word(gateway: RunningGateway) -> None:
    with Crowd(lambda version: 0.5, gateway, threads=1) as crowd:
        name = start(gateway, steps=[20, 40, 100], min_users=10**6)
        wait_for(lambda: show(gateway, name)["percent"] == 20, 10)
        for method, path, body in (
            ("PUT", "models/shapes/split", {"v1": 1}),
            ("DELETE", "models/shapes/versions/v2", None),
            ("POST", "models/shapes/rollouts", {"candidate": "v2"}),
            ("POST", "models/shapes/versions", {"name": "v3", "engine": "simulated", "replaces": "v1"}),
        ):
            refused = admin(gateway, method, path, body)
            assert (refused.status_code, f"The rollout {name} moves" in refused.text) == (409, True), refused.text
        assert admin(gateway, "POST", f"models/shapes/rollouts/{name}/pause").json()["state"] == "paused"
        assert admin(gateway, "POST", f"models/shapes/rollouts/{name}/pause").status_code == 409
        assert admin(gateway, "POST", f"models/shapes/rollouts/{name}/resume").json()["state"] == "running"
        assert admin(gateway, "POST", f"models/shapes/rollouts/{name}/fly").status_code == 404
        assert admin(gateway, "POST", "models/shapes/rollouts/r99/abort").status_code == 404
        aborted = admin(gateway, "POST", f"models/shapes/rollouts/{name}/abort").json()
        assert (aborted["state"], admin(gateway, "GET", "models/shapes/split").json()["split"]) == (
            "aborted", {"v1": 1.0, "v2": 0.0})  # fmt: skip
        second = start(gateway, steps=[20, 40, 100], min_users=10**6)
        wait_for(lambda: show(gateway, second)["state"] == "running", 10)
        assert admin(gateway, "POST", f"models/shapes/rollouts/{second}/promote").json()["percent"] == 100
        assert admin(gateway, "GET", "models/shapes/split").json()["split"] == {"v1": 0.0, "v2": 1.0}
        assert [one["id"] for one in admin(gateway, "GET", "models/shapes/rollouts").json()["rollouts"]] == [
            second,
            name,
        ]
        crowd.stop()


PLANS_THAT_CANNOT_BE: list[tuple[dict[str, Any], str]] = [
    ({}, "Object missing required field `candidate`"),
    ({"candidate": "v9"}, "shapes has no version 'v9', but v1, v2"),
    ({"candidate": "v1"}, "has no traffic to give"),
    ({"candidate": "v2", "baseline": "v2"}, "the candidate is the baseline"),
    ({"candidate": "v2", "steps": [5, 50]}, "end at 100"),
    ({"candidate": "v2", "steps": ["x", 100]}, "steps[0].percent"),
    ({"candidate": "v2", "guards": {"latency": {"margin": -1}}}, "guards"),
    ({"candidate": "v2", "guards": {"Bad Name": {}}}, "no metric is called 'Bad Name'"),
    ({"candidate": "v2", "speed": 5}, "unknown field `speed`"),
]


def test_a_plan_that_cannot_be_is_refused(gateway: RunningGateway) -> None:
    for plan, said in PLANS_THAT_CANNOT_BE:
        answer = admin(gateway, "POST", "models/shapes/rollouts", plan)
        assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), answer.text
    assert admin(gateway, "GET", "models/shapes/rollouts").json()["rollouts"] == []


def test_an_experiment_tells_what_is_known_of_the_versions(gateway: RunningGateway) -> None:
    admin(gateway, "PUT", "models/shapes/split", {"v1": 1, "v2": 1})
    with Crowd(lambda version: 0.9 if version == "v2" else 0.3, gateway) as crowd:
        wait_for(lambda: len(crowd.kept) > 150, 60)
        crowd.stop()
        time.sleep(1)
        shown = admin(gateway, "GET", "models/shapes/experiment?baseline=v1").json()
        assert shown["stage"]["shares"] == {"v1": 0.5, "v2": 0.5}
        assert not shown["sample_ratio"]["alarm"]
        assert sum(one["users"] for one in shown["versions"].values()) == len(crowd.users)
        found = {(one["metric"], one.get("quantile")): one for one in shown["comparisons"]["v2"]}
        success = found["success", None]
        assert (success["verdict"], success["better"]) == ("better", "higher")
        assert 0.2 < success["low"] < 0.6 < success["high"] < 0.9
        assert found["error_rate", None]["estimate"] == 0
        assert {("ttft_s", 0.5), ("ttft_s", 0.95), ("itl_s", 0.5), ("total_s", 0.5)} <= found.keys()
        assert admin(gateway, "GET", "models/shapes/experiment?baseline=v9").status_code == 400
        assert admin(gateway, "GET", "models/shapes/experiment?stage=7").status_code == 404
        assert admin(gateway, "GET", "models/none/experiment").status_code == 404


def test_a_rollout_outlives_redis_control_and_gateways_and_loses_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    with ExitStack() as stack:
        env = {"GATEWAY_STATE_URL": server.url}
        one = stack.enter_context(run_gateway(*write(tmp_path / "1"), env=env))
        two = stack.enter_context(run_gateway(*write(tmp_path / "2", relays=2), env=env))
        for gateway in (one, two):
            gateway.await_states(60, v1="ready", v2="ready")
        with Crowd(lambda version: 0.9 if version == "v2" else 0.6, two, threads=2) as crowd:
            # Such small guards that it takes its time.
            name = start(two, steps=[20, 40, 60, 100], min_users=150, goal={"success": {"margin": 0.15}})
            wait_for(lambda: show(two, name)["percent"] == 20, 20)

            one.process.kill()  # perhaps the one that acts
            wait_for(lambda: show(two, name)["percent"] == 40, 60, lambda: str(show(two, name)))
            server.kill()
            time.sleep(1)
            server.start()
            wait_for(lambda: show(two, name).get("percent") in (40, 60), 20)
            os.kill(find_control(two), signal.SIGKILL)
            before = len(crowd.kept)
            wait_for(lambda: len(crowd.kept) > before + 30, 60)
            shown = await_end(two, name, "promoted", 120)
            crowd.stop()
            assert (crowd.failed, crowd.moved_back) == ([], [])
            assert len(shown["stages"]) == 3
            with httpx.Client(base_url=two.url) as client:
                for request_id in crowd.kept:
                    again = {"request_id": request_id, "metric": "success", "value": 1}
                    assert client.post("/v1/feedback", json=again).status_code == 409, "what was acknowledged is there"
        server.kill()
