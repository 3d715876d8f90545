"""The table of architectures in docs/checkpoints.md, row by row: admitted, and served by real vLLM."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from gateway.checkpoints import check
from gateway.engines.launcher import adapt_torch
from gateway.merging.plan import plan_merge
from gateway.merging.writer import staging, write_merged
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.tiny_adapters import write_random_adapter
from tests.support.tiny_models import VISUAL, WRITERS, write_tiny

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
# On a CPU, vLLM's linear attention takes bfloat16 only.
DTYPES = {"qwen3.5": "bfloat16"}
# Adapters on attention and connector of the vision side, by the family's names for them.
EYES = {
    "qwen2.5-vl": r".*visual.*(attn\.qkv|attn\.proj|merger\.mlp\.[02])",
    "qwen3-vl": r".*visual.*(attn\.qkv|attn\.proj|linear_fc[12])",
    "qwen3.5": r".*visual.*(attn\.qkv|attn\.proj|linear_fc[12])",
}
PARTS = ("text", "picture", "video")


def version_of(family: str) -> str:
    return family.replace(".", "-")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    adapt_torch()
    root = tmp_path_factory.mktemp("tiny")
    return {family: write_tiny(family, root / family) for family in WRITERS}


@pytest.fixture(scope="module")
def served(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A version for each family, with an adapter on its eyes where these are mounted, and the same one merged."""
    root = tmp_path_factory.mktemp("served")
    versions: list[dict[str, Any]] = []
    for family, folder in checkpoints.items():
        version = {"name": version_of(family), "checkpoint": str(folder),
                   "engine_args": {"dtype": DTYPES.get(family, "float32")}}  # fmt: skip
        versions.append(version)
        if family in EYES:
            eyes = write_random_adapter(folder, root / f"{family}-eyes", target_modules=EYES[family])
            with staging(root / f"{family}-merged") as out:
                write_merged(plan_merge(folder, eyes), out, lambda *_: None)
            versions.append(
                version | {"name": f"{version['name']}-merged", "checkpoint": str(root / f"{family}-merged")}
            )
            version["adapters"] = {"eyes": str(eyes)}
    config = root / "gateway.yaml"
    config.write_text(yaml.safe_dump({"models": [{"name": "tiny", "versions": versions}]}))
    with run_gateway("--config", str(config)) as running:
        running.await_states(400, **{version["name"]: "ready" for version in versions})
        yield running


def show(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (112, 112), colour).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def ask(served: RunningGateway, name: str, part: str, *colours: str) -> tuple[int, list[float]]:
    """Tokens of the prompt, and the logarithms of how likely the first tokens of the answer were."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "what colour is it?"}]
    frames = ",".join(map(show, colours))
    if part == "picture":
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{frames}"}})
    elif part == "video":
        content.insert(0, {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}})
    body = {"model": f"tiny:{name}", "messages": [{"role": "user", "content": content}], "max_tokens": 4,
            "temperature": 0, "logprobs": True}  # fmt: skip
    answer = served.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["usage"]["prompt_tokens"], [token["logprob"] for token in found["choices"][0]["logprobs"]["content"]]


@pytest.mark.parametrize("family", WRITERS)
def test_what_trainers_save_is_admitted(checkpoints: dict[str, Path], family: str) -> None:
    report = check(checkpoints[family])
    assert report.findings == ()
    assert report.manifest.is_visual == (family in VISUAL)


@pytest.mark.parametrize("family", WRITERS)
def test_it_answers(served: RunningGateway, family: str) -> None:
    tokens, likely = ask(served, version_of(family), "text")
    assert tokens > 5
    assert len(likely) == 4


@pytest.mark.parametrize("family", VISUAL)
def test_it_sees_pictures_at_the_cost_that_was_told(
    served: RunningGateway, checkpoints: dict[str, Path], family: str
) -> None:
    name = version_of(family)
    without, _ = ask(served, name, "text")
    tokens, red = ask(served, name, "picture", "red")
    plan = check(checkpoints[family]).memory
    assert plan is not None
    assert plan.picture is not None
    # Where a picture begins and ends: InternVL's processor adds marks of its own, NVILA has none.
    markers = {"internvl": 4, "nvila-lite": 0}.get(family, 2)
    assert plan.picture.least_tokens <= tokens - without - markers <= plan.picture.most_tokens
    assert ask(served, name, "picture", "red")[1] == pytest.approx(red, abs=1e-3)
    assert ask(served, name, "picture", "blue")[1] != pytest.approx(red, abs=1e-3)


@pytest.mark.parametrize("family", VISUAL)
def test_it_sees_videos(served: RunningGateway, family: str) -> None:
    name = version_of(family)
    tokens, one = ask(served, name, "video", "red", "blue", "green", "white")
    assert tokens > ask(served, name, "text")[0] + 4
    assert ask(served, name, "video", "white", "green", "black", "red")[1] != pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("family", EYES)
def test_an_adapter_on_its_eyes_does_what_it_does_when_merged(served: RunningGateway, family: str) -> None:
    name = version_of(family)
    plain = ask(served, name, "picture", "red")[1]
    mounted = ask(served, f"{name}+eyes", "picture", "red")[1]
    assert mounted != pytest.approx(plain, abs=1e-2)
    tolerance = 0.2 if family in DTYPES else 1e-3  # bfloat16 rounds the merged weights
    assert mounted[0] == pytest.approx(ask(served, f"{name}-merged", "picture", "red")[1][0], abs=tolerance)
    assert ask(served, f"{name}+eyes", "text")[1] == pytest.approx(ask(served, name, "text")[1], abs=1e-3)


def test_every_family_that_is_tried_is_in_the_table() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    tried = set(re.findall(r"^\| .*\| `([a-z0-9.-]+)` \|$", page, re.MULTILINE))
    assert tried == set(WRITERS)
