"""What a version says of its weights, its pictures and its thinking, on real vLLM: packed, bounded, told apart."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from gateway.checkpoints import check
from gateway.checkpoints.pictures import count_in_pixels
from gateway.engines.device import find_hardware
from gateway.engines.launcher import adapt_torch
from tests.support.packed_models import pack, unpack
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.safetensors_files import edit_json
from tests.support.thinking_model import ANSWER, THOUGHT, write_thinking
from tests.support.tiny_adapters import write_random_adapter
from tests.support.tiny_models import write_tiny

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

LEAST, MOST = 50_000, 100_000
# The side in pixels of what a token stands for.
SEEING = {"qwen2.5-vl": 28, "qwen3-vl": 32, "qwen3.5": 32}
PACKED = ("w8a8", "w8a8-fp8", "awq", "gptq", "w4a16", "fp8-blocks")
SIZES = [(640, 480), (1920, 1080), (64, 64)]

Version = dict[str, Any]


def version_of(family: str) -> str:
    return family.replace(".", "-")


def list_packed(root: Path) -> Iterator[Version]:
    """A version for each way of packing, and beside what this machine can load the same numbers unpacked."""
    plain = write_tiny("qwen3", root / "qwen3")
    adapters = {"mine": str(write_random_adapter(plain, root / "adapter"))}
    for scheme in PACKED:
        folder = pack(plain, root / scheme, scheme)
        mounted = {"adapters": adapters} if scheme == "w8a8-fp8" else {}
        yield {"name": scheme, "checkpoint": str(folder)} | mounted
        if check(folder, hardware=find_hardware()).is_servable:
            twin = unpack(plain, root / f"{scheme}-plain", scheme)
            yield {"name": f"{scheme}-plain", "checkpoint": str(twin)} | mounted
    yield {"name": "w8a8-mounted", "checkpoint": str(root / "w8a8"), "adapters": adapters}
    nf4 = pack(plain, root / "nf4", "w8a8")
    edit_json(nf4 / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    yield {"name": "nf4", "checkpoint": str(nf4), "adapters": adapters}


def list_seeing(root: Path) -> Iterator[Version]:
    for family in SEEING:
        yield {"name": version_of(family), "checkpoint": str(write_tiny(family, root / family)),
               "pictures": {"min_pixels": LEAST, "max_pixels": MOST}}  # fmt: skip
    tiles = {"name": "tiles", "checkpoint": str(write_tiny("internvl", root / "internvl"))}
    yield tiles | {"pictures": {"max_pixels": MOST}}


def list_thinking(root: Path) -> Iterator[Version]:
    thinks = {"checkpoint": str(write_thinking(root / "thinks")), "reasoning": {"parser": "qwen3"}}
    yield {"name": "thinks"} | thinks
    yield {"name": "quick", "defaults": {"chat_template_kwargs": {"enable_thinking": False}}} | thinks
    yield {"name": "misspelt"} | thinks | {"reasoning": {"parser": "quen3"}}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    adapt_torch()
    root = tmp_path_factory.mktemp("versions")
    every = [*list_packed(root), *list_seeing(root), *list_thinking(root)]
    return {version["name"]: version for version in every}


@pytest.fixture(scope="module")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def served(
    versions: dict[str, Version], runtime_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    config = tmp_path_factory.mktemp("served") / "gateway.yaml"
    config.write_text(yaml.safe_dump({"models": [{"name": "tiny", "versions": list(versions.values())}]}))
    refused = {"w8a8-mounted", "nf4", "tiles", "misspelt"} | {
        name for name in PACKED if f"{name}-plain" not in versions
    }
    with run_gateway("--config", str(config), env={"GATEWAY_ENGINES_RUNTIME_DIR": str(runtime_dir)}) as running:
        running.await_states(400, **{name: "failed" if name in refused else "ready" for name in versions})
        yield running


def ask(served: RunningGateway, name: str, picture: tuple[int, int] | None = None, **fields: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "what colour is it?"}]
    if picture is not None:
        file = io.BytesIO()
        Image.new("RGB", picture, "red").save(file, "JPEG")
        url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    known = {"model": f"tiny:{name}", "messages": [{"role": "user", "content": content}], "max_tokens": 8,
             "temperature": 0}  # fmt: skip
    answer = served.http.post("/v1/chat/completions", json=known | fields)
    return {"status": answer.status_code, **answer.json()}


def read_likely(served: RunningGateway, name: str) -> float:
    """The logarithm of how likely the first token of the answer was."""
    answer = ask(served, name, logprobs=True)
    return float(answer["choices"][0]["logprobs"]["content"][0]["logprob"])


def read_reason(served: RunningGateway, name: str) -> str:
    return str(served.engines()[f"tiny:{name}#0"]["reason"])


@pytest.mark.parametrize("scheme", PACKED)
def test_packed_weights_answer_as_the_same_unpacked_or_are_refused(
    served: RunningGateway, versions: dict[str, Version], scheme: str
) -> None:
    if f"{scheme}-plain" in versions:
        assert read_likely(served, scheme) == pytest.approx(read_likely(served, f"{scheme}-plain"), abs=0.2)
    else:
        assert "which this one lacks: serve it on a GPU" in read_reason(served, scheme)


def test_an_adapter_on_packed_weights_does_what_it_does_on_the_same_unpacked(served: RunningGateway) -> None:
    mounted = read_likely(served, "w8a8-fp8+mine")
    assert mounted == pytest.approx(read_likely(served, "w8a8-fp8-plain+mine"), abs=0.2)
    assert mounted != pytest.approx(read_likely(served, "w8a8-fp8"), abs=0.2)


def test_what_no_engine_here_can_load_is_refused_with_the_reason(served: RunningGateway) -> None:
    assert "bitsandbytes (NF4 or LLM.int8) are loaded by vLLM 0.32 on no device" in read_reason(served, "nf4")
    assert "mounts no adapter on it: serve it on a GPU" in read_reason(served, "w8a8-mounted")
    assert "has no parser 'quen3': did you mean qwen3" in read_reason(served, "misspelt")
    assert "mean nothing to InternVLForConditionalGeneration" in read_reason(served, "tiles")


@pytest.mark.parametrize("family", SEEING)
@pytest.mark.parametrize("picture", SIZES)
def test_a_picture_costs_what_the_bounds_make_it(served: RunningGateway, family: str, picture: tuple[int, int]) -> None:
    name, unit = version_of(family), SEEING[family]
    without = ask(served, name)["usage"]["prompt_tokens"]

    def count(asked: dict[str, int] | None = None) -> int:
        answer = ask(served, name, picture, **({"mm_processor_kwargs": asked} if asked is not None else {}))
        marks = 2  # where the picture begins and ends
        return int(answer["usage"]["prompt_tokens"] - without - marks)

    assert count() == count_in_pixels(*picture, unit, LEAST, MOST)
    assert count({"max_pixels": 60_000}) == count_in_pixels(*picture, unit, LEAST, 60_000)
    assert count({"min_pixels": 90_000, "max_pixels": MOST}) == count_in_pixels(*picture, unit, 90_000, MOST)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mm_processor_kwargs", {"max_pixels": MOST + 1}),
        ("mm_processor_kwargs", {"size": {"longest_edge": 10**9}}),
        ("mm_processor_kwargs", {"images_kwargs": {"max_pixels": 10**9}}),
        ("media_io_kwargs", {"video": {"num_frames": 10**6}}),
    ],
)
@pytest.mark.parametrize("name", ["qwen3-vl", "thinks"])
def test_more_is_refused_by_the_gateway_and_anything_where_there_are_no_bounds(
    served: RunningGateway, name: str, field: str, value: dict[str, Any]
) -> None:
    answer = ask(served, name, **{field: value})
    assert answer["status"] == 400
    assert answer["error"]["param"] == field


def test_thinking_is_told_from_the_answer(served: RunningGateway) -> None:
    answer = ask(served, "thinks")
    message = answer["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (THOUGHT, ANSWER)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


@pytest.mark.parametrize(
    ("name", "asked", "thinks"),
    [("thinks", None, True), ("thinks", False, False), ("quick", None, False), ("quick", True, True)],
)
def test_the_switch_is_the_requests_then_the_versions(
    served: RunningGateway, name: str, asked: bool | None, thinks: bool
) -> None:
    fields = {} if asked is None else {"chat_template_kwargs": {"enable_thinking": asked}}
    message = ask(served, name, **fields)["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (THOUGHT if thinks else None, ANSWER)


def test_a_stream_of_thinking_passes_as_it_is_and_is_counted(
    served: RunningGateway, versions: dict[str, Version], runtime_dir: Path
) -> None:
    body = {"model": "tiny:thinks", "messages": [{"role": "user", "content": "what?"}], "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    headers = {"x-request-id": "a-thinking-stream"}
    relayed = served.http.post("/v1/chat/completions", json=body, headers=headers).text
    socket = runtime_dir / f"{list(versions).index('thinks')}.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=60) as engine:
        straight = engine.post("/v1/chat/completions", json=body | {"model": "tiny"}, headers=headers).text
    assert join_stream(relayed.replace("tiny:thinks", "tiny")) == join_stream(straight)
    deltas = [choice["delta"] for line in relayed.splitlines() for choice in read_choices(line)]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == THOUGHT
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
    served.await_line(r"a-thinking-stream .* in=\d+ out=5\b", 10)


def join_stream(stream: str) -> dict[str, Any]:
    """A stream as one object: an engine that is quicker than its clients puts several tokens into one event."""
    joined: dict[str, Any] = {"end": stream.rstrip().rpartition("\n")[2]}
    for line in stream.splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            event = {name: value for name, value in json.loads(data).items() if name not in ("created", "choices")}
            joined |= event
        for choice in read_choices(line):
            for name, value in (*choice.pop("delta").items(), *choice.items()):
                is_text = isinstance(value, str) and name != "role"
                joined[name] = (joined.get(name) or "") + value if is_text else value
    return joined


def read_choices(line: str) -> list[dict[str, Any]]:
    """The choices in an event of a stream."""
    data = line.removeprefix("data: ")
    return json.loads(data)["choices"] if data.startswith("{") else []
