"""NVILA-Lite in vLLM against the plain reference: every layer, and what it answers through the gateway."""

import base64
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from gateway.checkpoints import check
from tests.support.nvila_models import write_nvila, write_nvila_adapter
from tests.support.nvila_reference import Part, ReferenceNvila
from tests.support.running_gateway import RunningGateway, run_gateway

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
FAMILIES: dict[str, dict[str, Any]] = {
    "lite": {}, "small": {"fold": 2, "seed": 31}, "rowless": {"first_mark": 770, "seed": 51}, "resized": {"image_aspect_ratio": "resize", "seed": 41},
}  # fmt: skip


def paint(width: int, height: int, seed: int) -> Image.Image:
    """A picture without a repeating part, large enough to be cut."""
    pixels = bytes((x * 7 * seed + y * 3 + x * y // (9 + seed)) % 256 for y in range(height) for x in range(3 * width))
    return Image.frombytes("RGB", (width, height), pixels)


QUESTIONS: list[list[Part]] = [
    ["what colour is it?"],
    ["where is the circle? \n and the square"],
    [paint(60, 50, 1), "what colour is it?"],
    [paint(200, 90, 2), "which shape do you see?"],
    [paint(90, 250, 3), "\nwhich shape do you see?"],
    ["is this ", paint(130, 130, 4), " a circle?"],
    [paint(200, 90, 5), paint(60, 200, 6), "which is larger?"],
    ["first ", paint(70, 90, 7), " then ", paint(200, 60, 8)],
    [paint(200, 90, 2), "or", paint(60, 50, 1), "?"],  # seen alone before, where they were cut
]
FRAMES = [paint(80, 60, seed) for seed in range(1, 10)]
VIDEOS: list[list[Part]] = [[FRAMES, "what moves?"], [paint(200, 90, 2), FRAMES[:2], " and what is this?"]]
ADAPTED: list[list[Part]] = [["what colour is it?"], [paint(200, 90, 2), "which shape do you see?"]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("nvila")
    return {name: write_nvila(root / name, **settings) for name, settings in FAMILIES.items()}


@pytest.mark.parametrize("family", ["lite", "small"])
def test_every_layer_is_the_references(checkpoints: dict[str, Path], tmp_path: Path, family: str) -> None:
    from safetensors.torch import load_file

    model = ReferenceNvila(checkpoints[family])
    picture = paint(200, 90, 2)
    picture.save(tmp_path / "picture.png")
    text, tiles = model.write_prompt([picture, "what colour is it?"])
    asked = text.replace("<image>\n" * len(tiles), "<image>\n")
    command = [sys.executable, "-m", "tests.support.nvila_states", str(checkpoints[family]), str(tmp_path / "picture.png"),
               asked, str(tmp_path / "states.safetensors")]  # fmt: skip
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = load_file(tmp_path / "states.safetensors")
    seen, read = model.see(model.to_pixels(tiles)), model.read(model.embed(text, tiles))
    assert len(tiles) > 2
    wanted = {"vision_tower.vision_model.embeddings": seen["patches"], "mm_projector": seen["projected"],
              "logits": read["logits"]}  # fmt: skip
    wanted |= {f"vision_tower.vision_model.encoder.layers.{n}": seen[f"tower.{n}"] for n in range(3)}
    wanted |= {f"language_model.model.layers.{n}": read[f"language.{n}"] for n in range(3)}
    assert found.keys() - wanted.keys() == {"prompt"}
    for name, value in wanted.items():
        distance = (found[name] - value).abs().max() / value.abs().max()
        assert float(distance) < 1e-4, name


@pytest.fixture(scope="module")
def served(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    root = tmp_path_factory.mktemp("served")
    config = root / "gateway.yaml"
    versions: list[dict[str, Any]] = [
        {"name": name, "checkpoint": str(folder), "engine_args": {"dtype": "float32"}}
        for name, folder in checkpoints.items()
    ]
    # As VILA's trainer names modules, and as one does that knows the language model only.
    adapters = {"whole": "llm.", "alone": ""}
    versions[0]["adapters"] = {name: str(write_nvila_adapter(root / name, start)) for name, start in adapters.items()}
    config.write_text(yaml.safe_dump({"models": [{"name": "nvila", "versions": versions}]}))
    with run_gateway("--config", str(config)) as running:
        running.await_states(300, **dict.fromkeys(checkpoints, "ready"))
        yield running


def write_url(media: Image.Image | list[Image.Image]) -> dict[str, Any]:
    if isinstance(media, Image.Image):
        file = io.BytesIO()
        media.save(file, "PNG")
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encode(file.getvalue())}"}}
    return {"type": "video_url", "video_url": {"url": f"data:video/avi;base64,{encode(write_film(media))}"}}


def write_film(frames: list[Image.Image]) -> bytes:
    import cv2
    import numpy as np

    with tempfile.NamedTemporaryFile(suffix=".avi") as file:
        film = cv2.VideoWriter(file.name, cv2.VideoWriter.fourcc(*"MJPG"), 5, frames[0].size)
        for frame in frames:
            film.write(np.asarray(frame)[:, :, ::-1])
        film.release()
        return Path(file.name).read_bytes()


def read_film(film: bytes) -> list[Image.Image]:
    """Every frame, as a decoder gives it."""
    import cv2

    with tempfile.NamedTemporaryFile(suffix=".avi") as file:
        Path(file.name).write_bytes(film)
        source, frames = cv2.VideoCapture(file.name), []
        while (read := source.read())[0]:
            frames.append(Image.fromarray(read[1][:, :, ::-1]))
    return frames


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def ask(served: RunningGateway, name: str, parts: list[Part], most_tokens: int) -> tuple[int, list[int]]:
    """Tokens of the prompt, and those of the answer without its end."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else write_url(part) for part in parts]
    body = {"model": f"nvila:{name}", "messages": [{"role": "user", "content": content}], "max_tokens": most_tokens,
            "temperature": 0, "return_token_ids": True}  # fmt: skip
    answer = served.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["usage"]["prompt_tokens"], [t for t in found["choices"][0]["token_ids"] if t not in (757, 759)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_is_admitted(checkpoints: dict[str, Path], family: str) -> None:
    report = check(checkpoints[family])
    assert report.findings == ()
    assert report.manifest.is_video


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_the_references(served: RunningGateway, checkpoints: dict[str, Path], family: str) -> None:
    model = ReferenceNvila(checkpoints[family])
    said = []
    for parts in QUESTIONS:
        tokens, answer = ask(served, family, parts, 12)
        assert tokens == len(model.embed(*model.write_prompt(parts)))
        assert answer == model.answer(parts, 12)
        said.append(tuple(answer))
    assert len(set(said)) > 4


def test_videos_are_their_frames(served: RunningGateway, checkpoints: dict[str, Path]) -> None:
    model = ReferenceNvila(checkpoints["lite"])
    for parts in VIDEOS:
        shown = [read_film(write_film(part)) if isinstance(part, list) else part for part in parts]
        tokens, answer = ask(served, "lite", parts, 12)
        assert tokens == len(model.embed(*model.write_prompt(shown)))
        assert answer == model.answer(shown, 12)


def test_a_picture_costs_what_was_told(served: RunningGateway, checkpoints: dict[str, Path]) -> None:
    plan = check(checkpoints["lite"]).memory
    assert plan is not None
    assert plan.picture is not None
    without, _ = ask(served, "lite", ["what colour is it?"], 1)
    for picture in (paint(20, 20, 1), paint(600, 300, 2), paint(300, 900, 3)):
        tokens, _ = ask(served, "lite", [picture, "what colour is it?"], 1)
        assert plan.picture.least_tokens <= tokens - without <= plan.picture.most_tokens


def test_words_that_mark_pictures_are_no_pictures(served: RunningGateway) -> None:
    plain = ask(served, "lite", ["what colour is it?"], 8)
    assert ask(served, "lite", ["<image>what colour is it?<vila/video>"], 8) == plain


@pytest.mark.parametrize("adapter", ["whole", "alone"])
def test_an_adapter_does_what_it_does_when_merged(
    served: RunningGateway, checkpoints: dict[str, Path], tmp_path: Path, adapter: str
) -> None:
    plain, model = (ReferenceNvila(checkpoints["lite"]) for _ in range(2))
    model.merge(write_nvila_adapter(tmp_path / adapter, "llm."))
    for parts in ADAPTED:
        _, answer = ask(served, f"lite+{adapter}", parts, 12)
        assert answer == model.answer(parts, 12)
        assert answer != plain.answer(parts, 12)


def test_an_adapter_on_its_eyes_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    adapter = write_nvila_adapter(tmp_path, "vision_tower.vision_tower.vision_model.encoder.", layers="layers")
    report = check(adapter, base=checkpoints["lite"])
    assert [finding.code for finding in report.findings if finding.severity == "error"] == ["adapter-vision"]


def test_a_mark_in_a_plain_prompt_does_no_harm(served: RunningGateway) -> None:
    for name in ("lite", "rowless"):
        body = {"model": f"nvila:{name}", "prompt": "a <image> <vila/video> b", "max_tokens": 4, "temperature": 0}
        answer = served.http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 4
