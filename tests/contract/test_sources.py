"""Checkpoints that lie elsewhere, from the address in the settings to the answer: the real program, a Hub on loopback."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for
from tests.support.safetensors_files import write_adapter, write_checkpoint
from tests.support.stores import HubStore, checkpoint_files

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
cache: {{dir: cache}}
models:
  - name: shapes
    versions:
      - {{name: v1, engine: simulated, replicas: 2, checkpoint: "hf://org/name/base", adapters: {{a: "hf://org/name/lora"}}}}
      - {{name: gone, engine: simulated, checkpoint: "hf://org/none"}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStore]:
    base = checkpoint_files(write_checkpoint(tmp_path / "base"))
    lora = checkpoint_files(write_adapter(tmp_path / "lora"))
    files = {f"base/{name}": data for name, data in base.items()} | {
        f"lora/{name}": data for name, data in lora.items()
    }
    with HubStore(files) as store:
        yield store


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(relays=request.param))
    return path


def ask(gateway: RunningGateway, name: str) -> httpx.Response:
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    return gateway.http.post(CHAT, json=body)


def test_from_an_address_to_an_answer_and_again_without_the_hub(hub: HubStore, config: Path) -> None:
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    with run_gateway("--config", str(config), env=env) as gateway:
        gateway.await_states(60, v1="ready", gone="failed")
        assert ask(gateway, "shapes:v1").status_code == ask(gateway, "shapes:v1+a").status_code == 200
        reason = gateway.engines()["shapes:gone#0"]["reason"]
        assert reason == "there is no hf://org/none, or this account may not see it: check the name, or set HF_TOKEN"
        assert [name for name, _ in hub.asked].count("base/model.safetensors") == 1, "two replicas, one download"

        adapters = f"{gateway.admin_url}/admin/v1/models/shapes/versions/v1/adapters"
        mounted = httpx.post(adapters, json={"name": "b", "path": "hf://org/name@main/lora"}, timeout=60)
        assert (mounted.status_code, mounted.json()) == (200, {"id": "shapes:v1+b"})
        wait_for(lambda: ask(gateway, "shapes:v1+b").status_code == 200, 5)
        hub.faults.status = 503
        stale = httpx.post(adapters, json={"name": "b", "path": "hf://org/name@main/lora"}, timeout=60)
        assert (stale.status_code, "the Hub answered 503" in stale.text) == (503, True), "old weights are not new ones"
        hub.faults.status = None
        refused = httpx.post(adapters, json={"name": "c", "path": "hf://org/none"}, timeout=60)
        assert (refused.status_code, "there is no hf://org/none" in refused.text) == (400, True)

    hub.close()
    with run_gateway("--config", str(config), env=env) as gateway:
        gateway.await_states(60, v1="ready")
        assert ask(gateway, "shapes:v1+a").status_code == 200
        gateway.await_line("the Hub does not answer at .* what was fetched before is used, revision", 5)


def test_a_download_shows_how_far_it_is_and_ends_when_the_gateway_does(hub: HubStore, config: Path) -> None:
    hub.files["base/model.safetensors"] += b"\0" * 5_000_000
    pause = threading.Event()

    def slow_down() -> None:
        if hub.sent_bytes > 2_000_000:
            pause.wait(0.5)

    hub.faults.before_piece = slow_down
    with run_gateway("--config", str(config), env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}) as gateway:

        def find_fetching() -> object:
            engine = gateway.engines()["shapes:v1#0"]
            return engine["state"] == "starting" and 0.1 < (engine["progress"] or 0) < 0.6 and engine["phase"]

        assert wait_for(find_fetching, 60) == "fetching hf://org/name/base"
        assert gateway.stop(timeout_s=25) == 0
    assert not list(config.parent.rglob("cache/**/model.safetensors"))
