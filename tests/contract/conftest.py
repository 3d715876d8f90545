from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_gateway import RunningGateway, run_gateway

CONFIG = """
server: {{host: 127.0.0.1, max_body_bytes: 8MiB, relays: {relays}}}
models:
  - name: shapes
    split: {{v1: 90, v2: 10}}
    versions:
      - name: v1
        engine: simulated
        defaults: {{temperature: 0.0, repetition_penalty: 1.05, system_prompt: "You look at shapes."}}
      - name: v2
        engine: simulated
        adapters: {{mirror: mirror}}
        engine_args: {{itl-ms: 30, tokens: 50}}
"""


@pytest.fixture(scope="session")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session", params=[1, 2], ids=["one relay", "two relays"])
def gateway(
    request: pytest.FixtureRequest, runtime_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """The real program over simulated engines, ready: all in one process, and with relays of their own."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "mirror").mkdir()
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=request.param))
    env = {"GATEWAY_ENGINES_RUNTIME_DIR": str(runtime_dir)}
    with run_gateway("--config", str(folder / "gateway.yaml"), env=env) as running:
        running.await_states(30, v1="ready", v2="ready")
        yield running
