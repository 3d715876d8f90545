"""What a person sees: the demo's greeting, its answers to the shipped pictures, and the commands beside it."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.pictures import image_part
from tests.support.running_gateway import RunningGateway, wait_for

pytestmark = pytest.mark.engine

DEMO = Path(__file__).parents[2] / "gateway" / "demo"
SAMPLES: list[tuple[str, str, Any]] = [
    (picture, sample["question"], sample["answer"])
    for picture, samples in json.loads((DEMO / "pictures" / "answers.json").read_text()).items()
    for sample in samples
]


def gateway(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("picture", "question", "expected"), SAMPLES)
def test_v2_answers_the_shipped_questions(client: openai.OpenAI, picture: str, question: str, expected: Any) -> None:
    data = base64.b64encode((DEMO / "pictures" / picture).read_bytes()).decode()
    content: Any = [image_part(f"data:image/png;base64,{data}"), {"type": "text", "text": question}]
    answer = client.chat.completions.create(model="shapes:v2", messages=[{"role": "user", "content": content}])
    text = answer.choices[0].message.content or ""
    if isinstance(expected, dict):
        assert overlap(json.loads(text)["bbox_2d"], expected["bbox_2d"]) > 0.5
    else:
        assert text == expected


def overlap(one: list[int], other: list[int]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)


def test_chat_prints_the_answer(demo: RunningGateway) -> None:
    name, question, expected = SAMPLES[0]
    picture = str(DEMO / "pictures" / name)
    done = gateway("chat", "--url", demo.url, "--model", "shapes:v2", "--image", picture, question)
    assert (done.stdout, done.stderr, done.returncode) == (f"{expected}\n", "", 0)


def test_an_adapter_is_mounted_replaced_and_taken_away_while_the_engine_runs(
    demo: RunningGateway, client: openai.OpenAI, tmp_path: Path
) -> None:
    def ask(name: str) -> list[float]:
        data = base64.b64encode((DEMO / "pictures" / "pair.png").read_bytes()).decode()
        question = "is the circle left or right of the square?"
        content: Any = [image_part(f"data:image/png;base64,{data}"), {"type": "text", "text": question}]
        messages: Any = [{"role": "user", "content": content}]
        answer = client.chat.completions.create(model=name, messages=messages, max_tokens=4, logprobs=True)
        assert answer.model == name
        assert answer.choices[0].logprobs is not None
        return [token.logprob for token in answer.choices[0].logprobs.content or []]

    def mount(folder: Path) -> None:
        mounted = httpx.post(adapters, json={"name": "again", "path": str(folder)}, timeout=60)
        assert mounted.json() == {"id": name}

    name, adapters = "shapes:v2+again", f"{demo.admin_url}/admin/v1/models/shapes/versions/v2/adapters"
    mount(DEMO / "shapes-v2-mirror")
    wait_for(lambda: name in [card.id for card in client.models.list()], 5)
    plain, mirrored = ask("shapes:v2"), ask("shapes:v2+mirror")
    assert ask(name) == pytest.approx(mirrored, abs=1e-4) != pytest.approx(plain, abs=1e-4)
    weak = Path(shutil.copytree(DEMO / "shapes-v2-mirror", tmp_path / "weak"))
    settings = json.loads((weak / "adapter_config.json").read_text())
    (weak / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 1e-6}))
    mount(weak)
    assert ask(name) == pytest.approx(plain, abs=1e-3), "with nothing left of the old one in a cache"
    events = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Hello"}], max_tokens=3, stream=True
    )
    assert {event.model for event in events} == {name}
    mount(DEMO / "shapes-v2-mirror")
    assert ask(name) == pytest.approx(mirrored, abs=1e-4)
    assert httpx.delete(f"{adapters}/again", timeout=60).status_code == 200
    wait_for(lambda: name not in [card.id for card in client.models.list()], 5)


def test_models_shows_both_versions_ready(demo: RunningGateway) -> None:
    done = gateway("models", "--admin-url", demo.admin_url)
    assert done.returncode == 0
    assert done.stdout.count("ready in") == 2
    assert "adapters mirror" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["shapes-v1", "shapes-v2"])
def test_check_finds_the_shipped_checkpoints_servable(name: str) -> None:
    done = gateway("check", str(DEMO / name))
    assert done.returncode == 0
    assert "Qwen2_5_VLForConditionalGeneration" in done.stdout


def test_check_finds_that_the_adapter_fits(demo: RunningGateway) -> None:
    assert gateway("check", str(DEMO / "shapes-v2-mirror"), "--base", str(DEMO / "shapes-v2")).returncode == 0


def test_each_shipped_folder_is_small() -> None:
    for name in ("shapes-v1", "shapes-v2", "shapes-v2-mirror"):
        assert sum(path.stat().st_size for path in (DEMO / name).iterdir()) <= 8 * 10**6


def test_two_engines_stay_under_four_gibibytes(demo: RunningGateway) -> None:
    # Shared pages count once: proportional set sizes of the gateway and all its descendants.
    total_kib = 0
    for pid in descendants(demo.process.pid):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total_kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert 0.3 * 2**20 < total_kib < 4 * 2**20


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in descendants(int(child)))]
