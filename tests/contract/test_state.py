"""What is changed at run time is durable, shared by the gateways of one state, and no client's concern."""

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
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
auth: {{required: {auth}}}
models:
  - name: shapes
    split: {split}
    versions: [{versions}]
"""
VERSION = "{{name: {name}, engine: simulated, engine_args: {{tokens: 3}}}}"


def write(
    folder: Path, *names: str, split: str = "{v1: 9, v2: 1}", relays: int = 1, auth: str = "false"
) -> tuple[str, str]:
    versions = ", ".join(VERSION.format(name=name) for name in names or ("v1", "v2"))
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=relays, split=split, versions=versions, auth=auth))
    return "--config", str(folder / "gateway.yaml")


def admin(gateway: RunningGateway, method: str, path: str, body: object = None) -> httpx.Response:
    return httpx.request(method, f"{gateway.admin_url}/admin/v1/{path}", json=body, timeout=30)


def ask(gateway: RunningGateway, user: str, **headers: str) -> httpx.Response:
    body = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "user": user}
    return httpx.post(gateway.url + CHAT, json=body, headers=headers, timeout=30)


def versions(gateway: RunningGateway, count: int = 40) -> dict[str, str]:
    """Which user gets which version."""
    return {f"u{n}": ask(gateway, f"u{n}").headers["x-gateway-version"] for n in range(count)}


class Load:
    """Clients that ask without a pause; `answers` counts what they got, by version or error."""

    def __init__(self, *gateways: RunningGateway) -> None:
        self.answers: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(one, n)) for n in range(2) for one in gateways]
        for thread in self._threads:
            thread.start()

    def _ask_on(self, gateway: RunningGateway, number: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=30) as client:
            while not self._is_over.is_set():
                number += 7
                body = {"model": "shapes", "messages": [{"role": "user", "content": "Hi"}], "user": f"u{number}"}
                answer = client.post(CHAT, json=body)
                self.answers[answer.headers["x-gateway-version"] if answer.status_code == 200 else answer.text] += 1

    def stop(self) -> Counter[str]:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        return self.answers


@pytest.mark.parametrize("relays", [1, 2])
def test_what_was_changed_is_there_after_a_restart(tmp_path: Path, relays: int) -> None:
    flags, env = write(tmp_path, relays=relays), {"GATEWAY_STATE_URL": f"sqlite://{tmp_path}/state.db"}
    with run_gateway(*flags, env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        first = versions(gateway)
        assert (
            admin(gateway, "POST", "models/shapes/versions", {"name": "v3", "engine": "simulated"}).status_code == 202
        )
        gateway.await_states(60, v3="ready")
        admin(gateway, "PUT", "models/shapes/split", {"v1": 70, "v2": 10, "v3": 20})
        changed = versions(gateway)
        moved = {(old, new) for (old, new) in zip(first.values(), changed.values(), strict=True) if old != new}
        assert moved == {("v1", "v3")}
        assert gateway.stop() == 0
    with run_gateway(*flags, env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready", v3="ready")
        assert versions(gateway) == changed
        events = admin(gateway, "GET", "events").json()["events"]
        assert [event["kind"] for event in events if event["kind"] in ("split", "version_loaded")] == [
            "split", "version_loaded"]  # fmt: skip
        gateway.process.kill()
    with run_gateway(*flags, env=env) as gateway:
        gateway.await_states(60, v1="ready", v2="ready", v3="ready")
        assert versions(gateway) == changed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def fleet(tmp_path: Path, server: RedisServer) -> Iterator[list[RunningGateway]]:
    """Two gateways of one Redis, one of them with two relays."""
    with ExitStack() as stack:
        gateways = []
        for relays in (1, 2):
            folder = tmp_path / str(relays)
            folder.mkdir()
            flags = write(folder, relays=relays)
            gateways.append(stack.enter_context(run_gateway(*flags, env={"GATEWAY_STATE_URL": server.url})))
        for gateway in gateways:
            gateway.await_states(60, v1="ready", v2="ready")
        yield gateways


def read_split(gateway: RunningGateway) -> Any:
    return admin(gateway, "GET", "models/shapes/split").json()["split"]


def test_gateways_of_one_state_agree_whatever_happens_to_it(fleet: list[RunningGateway], server: RedisServer) -> None:
    one, other = fleet
    assert versions(one) == versions(other)
    load = Load(one, other)
    admin(one, "PUT", "models/shapes/split", {"v1": 1, "v2": 1})
    wait_for(lambda: read_split(other) == {"v1": 0.5, "v2": 0.5}, 1)
    assert versions(one) == versions(other)
    there = wait_for(lambda: len(found := admin(one, "GET", "gateways").json()["gateways"]) == 2 and found, 10)
    assert sorted(gateway["ready"] for gateway in there) == [["shapes:v1", "shapes:v2"]] * 2

    server.kill()
    for gateway in fleet:
        gateway.await_line("Redis, which has the state, cannot be asked", 10)
        refused = admin(gateway, "PUT", "models/shapes/split", {"v1": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "state_unavailable")
        assert "retry-after" in refused.headers
        assert read_split(gateway) == {"v1": 0.5, "v2": 0.5}
    assert versions(one) == versions(other)

    server.start()
    wait_for(lambda: admin(other, "PUT", "models/shapes/split", {"v2": 1}).status_code == 200, 2)
    wait_for(lambda: read_split(one) == {"v1": 0.0, "v2": 1.0}, 1)
    assert set(versions(one).values()) == set(versions(other).values()) == {"v2"}
    assert set(load.stop()) == {"v1", "v2"}, "no client has noticed anything"


def test_a_gateway_that_starts_without_its_state_serves_by_its_file_and_changes_when_it_can(
    tmp_path: Path, server: RedisServer
) -> None:
    server.kill()
    with run_gateway(*write(tmp_path), env={"GATEWAY_STATE_URL": server.url}) as gateway:
        gateway.await_line("starting without the state", 20)
        gateway.await_states(60, v1="ready", v2="ready")
        assert ask(gateway, "anna").status_code == 200
        assert admin(gateway, "PUT", "models/shapes/split", {"v1": 1}).status_code == 503
        server.start()
        gateway.await_line("the state is back", 5)
        assert admin(gateway, "PUT", "models/shapes/split", {"v1": 1}).status_code == 200


def test_keys_let_in_from_when_they_are_made_until_they_are_removed(tmp_path: Path) -> None:
    with run_gateway(*write(tmp_path, auth="true", relays=2)) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        assert ask(gateway, "anna").status_code == 401
        made = admin(gateway, "POST", "keys", {"name": "ci", "may_pin": False})
        shown = {"authorization": f"Bearer {made.json()['key']}"}
        wait_for(lambda: ask(gateway, "anna", **shown).status_code == 200, 2)
        pinned = ask(gateway, "anna", **shown, **{"x-gateway-version": "v2"})
        assert (pinned.status_code, pinned.json()["error"]["code"]) == (403, "not_allowed")
        admin(gateway, "DELETE", "keys/ci")
        wait_for(lambda: ask(gateway, "anna", **shown).status_code == 401, 2)
        assert made.json()["key"] not in "\n".join(gateway.lines)


def test_what_explain_says_is_what_happens(fleet: list[RunningGateway]) -> None:
    for user, version in versions(fleet[0], 12).items():
        for gateway in fleet:
            told = admin(gateway, "POST", "explain", {"body": {"model": "shapes", "user": user}}).json()
            assert (told["version"], told["how"]) == (version, "split")


@pytest.mark.parametrize("relays", [1, 2])
@pytest.mark.parametrize("way", ["signal", "admin port"])
def test_a_changed_file_is_served_without_dropping_a_request(tmp_path: Path, relays: int, way: str) -> None:
    with run_gateway(*write(tmp_path, relays=relays)) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        load = Load(gateway)
        write(tmp_path, "v2", "v3", split="{v3: 1}", relays=relays)
        if way == "signal":
            gateway.process.send_signal(signal.SIGHUP)
        else:
            answer = admin(gateway, "POST", "reload")
            assert (answer.status_code, answer.json()["loading"]) == (202, ["shapes:v3"])
        wait_for(lambda: read_split(gateway) == {"v2": 0.0, "v3": 1.0}, 30)
        wait_for(lambda: set(versions(gateway, 5).values()) == {"v3"}, 10)
        time.sleep(0.2)
        assert set(load.stop()) <= {"v1", "v2", "v3"}
        wait_for(lambda: "shapes:v1#0" not in gateway.engines(), 30)


def test_a_changed_file_outlives_the_control_that_has_read_it(tmp_path: Path) -> None:
    path, digest = tmp_path / "gateway.yaml", hashlib.sha256(b"old-key").hexdigest()
    flags = write(tmp_path, "v1", split="{v1: 1}", relays=2, auth=f"true, keys: [{{name: old, sha256: {digest}}}]")
    shown = {"authorization": "Bearer old-key"}
    with run_gateway(*flags) as gateway:
        gateway.await_states(60, v1="ready")
        assert ask(gateway, "anna", **shown).headers["x-gateway-version"] == "v1"
        os.kill(find_control(gateway), signal.SIGKILL)
        assert ask(gateway, "anna", **shown).status_code == 200
        write(tmp_path, "v2", split="{v2: 1}", relays=2, auth="true")
        path.write_text(path.read_text().replace("tokens: 3", "tokens: 3, fault: [slow-start:8]"))
        assert wait_for(lambda: reload(gateway), 30) == ["shapes:v2"]
        wait_for(lambda: ask(gateway, "anna", **shown).status_code == 401, 5)
        os.kill(find_control(gateway), signal.SIGKILL)
        wait_for(lambda: read_split(gateway) == {"v2": 1.0}, 60)
        assert ask(gateway, "anna", **shown).status_code == 401, "a key that was removed stays so"
        kinds = wait_for(lambda: [one["kind"] for one in admin(gateway, "GET", "events").json()["events"]], 5)
        assert kinds.count("reloaded") == 1


def reload(gateway: RunningGateway) -> list[str]:
    """Read the file again; what it waits for, nothing while control is away."""
    try:
        answer = admin(gateway, "POST", "reload")
    except httpx.HTTPError:
        return []
    return answer.json()["loading"] if answer.status_code == 202 else []


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    with run_gateway(*write(tmp_path)) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        write(tmp_path, split="{v7: 1}")
        answer = admin(gateway, "POST", "reload")
        assert answer.status_code == 400
        assert "gateway.yaml:6: models[0].split: no version is called v7" in answer.json()["error"]["message"]
        gateway.process.send_signal(signal.SIGHUP)
        gateway.await_line("Nothing has changed", 10)
        assert read_split(gateway) == {"v1": 0.9, "v2": 0.1}


def test_more_engines_of_a_version_come_and_go_with_the_file(tmp_path: Path) -> None:
    flags = write(tmp_path, "v1", split="{v1: 1}")
    path = tmp_path / "gateway.yaml"
    with run_gateway(*flags) as gateway:
        gateway.await_states(60, v1="ready")
        path.write_text(path.read_text().replace("engine: simulated", "engine: simulated, replicas: 3"))
        admin(gateway, "POST", "reload")
        wait_for(lambda: [one["state"] for one in gateway.engines().values()] == ["ready"] * 3, 30)
        pid = gateway.engines()["shapes:v1#0"]["pid"]
        path.write_text(path.read_text().replace("replicas: 3", "replicas: 1"))
        admin(gateway, "POST", "reload")
        wait_for(lambda: list(gateway.engines()) == ["shapes:v1#0"], 30)
        assert gateway.engines()["shapes:v1#0"]["pid"] == pid, "the one that stays was not touched"
