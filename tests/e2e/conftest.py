from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway


@pytest.fixture(scope="session")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def demo(runtime_dir: Path) -> Iterator[RunningGateway]:
    """`gateway serve --demo`: the shipped checkpoints in real vLLM engines, both ready."""
    with run_gateway("--demo", env={"GATEWAY_ENGINES_RUNTIME_DIR": str(runtime_dir)}) as running:
        running.await_states(240, v1="ready", v2="ready")
        yield running


@pytest.fixture(scope="session")
def engine(demo: RunningGateway, runtime_dir: Path) -> Iterator[httpx.Client]:
    """The engine of v1 itself, past the gateway; v1 has the most traffic and so the first socket."""
    transport = httpx.HTTPTransport(uds=str(runtime_dir / "0.sock"))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=120) as client:
        yield client


@pytest.fixture
def client(demo: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="any", max_retries=0, timeout=120) as made:
        yield made
