import json
from pathlib import Path
from typing import Any

import pytest

from gateway.control.plan import Planner, find_bounds
from gateway.engines.engine import EngineSpec, SmokePrompt
from gateway.engines.machine import Machine
from gateway.engines.remote import RemoteSpec
from gateway.settings import ModelSettings, VersionSettings, parse_address
from gateway.traffic.routes import PixelBounds
from tests.support.safetensors_files import write_adapter

MACHINE = Machine(cores=2, memory_bytes=8 * 2**30)


def plan_all(
    versions: list[dict[str, Any]], folder: Path, split: dict[str, float] | None = None
) -> list[EngineSpec | RemoteSpec]:
    model = ModelSettings.model_validate({"name": "shapes", "versions": versions, "split": split or {}})
    return list(Planner(folder, MACHINE, is_cpu=True, drain_grace_s=30).plan_all([model]))


def plan(versions: list[dict[str, Any]], folder: Path, split: dict[str, float] | None = None) -> list[EngineSpec]:
    return [spec for spec in plan_all(versions, folder, split) if isinstance(spec, EngineSpec)]


def test_a_version_becomes_an_engine_on_a_short_socket_path(tmp_path: Path) -> None:
    [spec] = plan([{"name": "v1", "checkpoint": "/models/one", "env": {"A": "b"}}], tmp_path)
    assert (spec.name, spec.served_name, spec.checkpoint) == ("shapes:v1#0", "shapes", Path("/models/one"))
    assert spec.socket == tmp_path / "0.sock"
    launch = spec.build_launch()
    assert launch.module == "gateway.engines.launcher"
    assert f"--uds={spec.socket}" in launch.args
    assert launch.env["A"] == "b"


def test_of_a_run_a_checkpoint_is_chosen_and_a_draft_is_known(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
    speculative = {"method": "draft_model", "model": str(tmp_path), "num_speculative_tokens": 3}
    version = {"name": "v1", "checkpoint": f"{tmp_path}/run@newest", "speculative": speculative}
    version |= {"adapters": {"a": f"{tmp_path}/run@newest"}, "engine_args": {"trust_remote_code": True}}
    [spec] = plan([version], tmp_path)
    assert spec.checkpoint == tmp_path / "run" / "checkpoint-10"
    assert spec.adapters == (("shapes:v1+a", tmp_path / "run" / "checkpoint-10"),)
    assert spec.trusts_code
    assert spec.drafting is not None
    assert (spec.drafting.method, spec.drafting.draft) == ("draft_model", tmp_path)
    [other] = plan([version | {"speculative": {**speculative, "model": f"{tmp_path}/run@newest"}}], tmp_path)
    assert other.drafting is not None
    assert other.drafting.draft == tmp_path / "run" / "checkpoint-10"
    [lost] = plan([{"name": "v1", "checkpoint": f"{tmp_path}/run@best"}], tmp_path)
    assert lost.checkpoint == tmp_path / "run@best", "admission says why not"
    assert (lost.drafting, lost.trusts_code) == (None, False)


def test_what_a_version_may_do_and_what_it_takes_is_planned(tmp_path: Path) -> None:
    real = {"name": "v1", "checkpoint": "/m", "sleep_after_s": 60, "engine_args": {"kv-cache-memory-bytes": "1G"}}
    made_up = {"name": "v2", "engine": "simulated", "engine_args": {"memory-bytes": 500}}
    first, second = plan([real, made_up], tmp_path)
    assert (first.sleep_after_s, first.estimate_need(2**30).amount) == (60, 3 * 2**30)
    assert (second.sleep_after_s, second.estimate_need(0).amount) == (None, 500)


def test_what_lies_elsewhere_is_named_and_put_in_its_place_later(tmp_path: Path) -> None:
    base, lora, draft = "hf://org/base@v1", "s3://bucket/lora", "gs://bucket/draft"
    adapter = write_adapter(tmp_path / "lora")
    speculative = {"method": "draft_model", "model": draft, "num_speculative_tokens": 3}
    version = {"name": "v1", "checkpoint": base, "adapters": {"a": lora, "b": str(adapter)}, "speculative": speculative}
    [spec] = plan([version], tmp_path)
    assert (spec.checkpoint, spec.drafting, spec.plain, spec.remake) == (None, None, None, None)
    assert [str(address) for address in spec.sources] == [base, lora, draft]
    assert spec.settle is not None
    folders = dict(zip(map(parse_address, (base, lora, draft)), (tmp_path / "b", adapter, tmp_path / "d"), strict=True))
    settled = spec.settle(folders)
    assert (settled.name, settled.socket, settled.sources, settled.settle) == (spec.name, spec.socket, (), None)
    assert settled.drafting is not None
    assert (settled.checkpoint, settled.drafting.draft) == (tmp_path / "b", tmp_path / "d")
    assert settled.plain is not None
    assert settled.plain.checkpoint == tmp_path / "b"
    assert [folder for _, folder in settled.adapters] == [adapter, adapter]
    assert [name for name, _ in settled.adapters] == [name for name, _ in spec.adapters]
    args = settled.build_launch().args
    assert f"--model={tmp_path / 'b'}" in args
    assert "--enable-lora" in args
    assert settled.remake is not None


def test_a_simulated_engine_has_its_sources_too(tmp_path: Path) -> None:
    [spec] = plan([{"name": "v1", "engine": "simulated", "checkpoint": "hf://org/base"}], tmp_path)
    assert [str(address) for address in spec.sources] == ["hf://org/base"]
    assert spec.settle is not None
    assert spec.settle({parse_address("hf://org/base"): tmp_path}).checkpoint is None


def test_smoke_prompts_are_asked_with_the_version_s_defaults(tmp_path: Path) -> None:
    version = {
        "name": "v1", "checkpoint": "/m", "adapters": {"mirror": "/a"},
        "defaults": {"top_k": 5, "system_prompt": "You look."},
        "smoke": [{"prompt": "what?", "expect": "circle", "image": "/p.png"},
                  {"prompt": "left?", "expect": "right", "adapter": "mirror"}],
    }  # fmt: skip
    [spec] = plan([version], tmp_path)
    assert spec.smoke == (
        SmokePrompt("what?", "circle", "shapes", Path("/p.png"), "You look.", {"top_k": 5}),
        SmokePrompt("left?", "right", "shapes:v1+mirror", None, "You look.", {"top_k": 5}),
    )


def test_each_replica_is_an_engine_of_its_own(tmp_path: Path) -> None:
    specs = plan([{"name": "v1", "checkpoint": "/m", "replicas": 2}], tmp_path)
    assert [spec.name for spec in specs] == ["shapes:v1#0", "shapes:v1#1"]
    assert len({spec.socket for spec in specs}) == 2


def test_the_version_with_the_most_traffic_comes_first(tmp_path: Path) -> None:
    versions = [{"name": "v1", "checkpoint": "/1"}, {"name": "v2", "checkpoint": "/2"}]
    assert [spec.version for spec in plan(versions, tmp_path, {"v1": 1, "v2": 9})] == ["v2", "v1"]


def test_adapters_go_by_their_public_id(tmp_path: Path) -> None:
    [spec] = plan([{"name": "v1", "checkpoint": "/1", "adapters": {"mirror": "/a"}}], tmp_path)
    assert spec.adapters == (("shapes:v1+mirror", Path("/a")),)


def test_a_simulated_engine_is_a_module_with_its_flags(tmp_path: Path) -> None:
    version = {"name": "v1", "engine": "simulated", "engine_args": {"ttft-ms": 5, "fault": ["hang", "no-token"]}}
    [spec] = plan([version], tmp_path)
    launch = spec.build_launch()
    assert launch.module == "gateway.simulator"
    assert launch.args[-6:] == ("--ttft-ms", "5", "--fault", "hang", "--fault", "no-token")
    assert not spec.can_fork


def test_arguments_that_are_ours_fail_at_the_launch_of_that_engine_only(tmp_path: Path) -> None:
    specs = plan(
        [{"name": "v1", "checkpoint": "/1", "engine_args": {"port": 1}}, {"name": "v2", "checkpoint": "/2"}], tmp_path
    )
    with pytest.raises(ValueError, match="port"):
        specs[0].build_launch()
    assert specs[1].build_launch()


def test_endpoints_are_engines_elsewhere_one_each_and_take_no_socket(tmp_path: Path) -> None:
    versions = [
        {"name": "far", "endpoints": ["http://a:1", "http://b:2/"]},
        {"name": "v1", "checkpoint": "/1"},
    ]
    *far, near = plan_all(versions, tmp_path, {"far": 9, "v1": 1})
    assert far == [
        RemoteSpec("shapes:far#0", "shapes", "far", 0, "http://a:1"),
        RemoteSpec("shapes:far#1", "shapes", "far", 1, "http://b:2"),
    ]
    assert isinstance(near, EngineSpec)
    assert near.socket == tmp_path / "0.sock"


def test_bounds_for_pictures_and_the_parser_reach_the_engine(tmp_path: Path) -> None:
    demo = Path(__file__).parents[3] / "gateway" / "demo" / "shapes-v2"
    version = {
        "name": "v1",
        "checkpoint": str(demo),
        "pictures": {"max_pixels": 9000},
        "reasoning": {"parser": "qwen3"},
    }
    [spec] = plan([version], tmp_path)
    words = spec.build_launch().args
    told = {"images_kwargs": {"size": {"shortest_edge": 7800, "longest_edge": 9000}}}
    assert f"--mm-processor-kwargs={json.dumps(told)}" in words
    assert {"--trust-request-mm-kwargs", "--reasoning-parser=qwen3"} <= set(words)


def test_requests_may_say_something_of_pictures_where_there_is_a_most() -> None:
    def find(**version: object) -> PixelBounds | None:
        return find_bounds(VersionSettings.model_validate({"name": "v1"} | version))

    assert find(pictures={"min_pixels": 5, "max_pixels": 9}) == PixelBounds(9, 5)
    assert find(pictures={"max_pixels": 9}) == PixelBounds(9)
    assert find(pictures={"min_pixels": 5}) is None
    assert find() is None


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_an_engine_that_guesses_has_a_plain_one_to_take_its_place(tmp_path: Path, engine: str) -> None:
    speculative = {"method": "ngram", "num_speculative_tokens": 4, "min_acceptance": 0.3}
    version = {"name": "v1", "engine": engine, "checkpoint": str(tmp_path), "replicas": 2, "speculative": speculative}
    specs = plan([version], tmp_path)
    plain = [spec.plain for spec in specs if spec.plain is not None]
    assert [(spec.name, spec.min_acceptance) for spec in specs] == [("shapes:v1#0", 0.3), ("shapes:v1#1", 0.3)]
    assert [(spec.name, spec.index, spec.drafting, spec.plain) for spec in plain] == [
        ("shapes:v1#2", 2, None, None), ("shapes:v1#3", 3, None, None),
    ]  # fmt: skip
    assert len({spec.socket for spec in (*specs, *plain)}) == 4
    told = [" ".join(spec.build_launch().args) for spec in (*specs, *plain)]
    assert ["speculative-config" in words for words in told] == [True, True, False, False]
    assert "min_acceptance" not in told[0]
    assert plan([{"name": "v1", "engine": "simulated"}], tmp_path)[0].plain is None


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_parity_is_tried_with_and_without_guesses(tmp_path: Path, engine: str) -> None:
    speculative = {"method": "ngram", "num_speculative_tokens": 4, "parity": True}
    version = {"name": "v1", "engine": engine, "checkpoint": str(tmp_path), "speculative": speculative}
    [spec] = plan([version | ({"engine_args": {"dtype": "bfloat16"}} if engine == "vllm" else {})], tmp_path)
    assert spec.trials is not None
    assert [trial.trials for trial in spec.trials] == [None, None]
    assert {trial.socket for trial in spec.trials} != {spec.socket}
    told = [" ".join(trial.build_launch().args) for trial in spec.trials]
    assert ["speculative-config" in words for words in told] == [True, False]
    if engine == "vllm":
        assert all("--dtype=float32" in words and "bfloat16" not in words for words in told)
    assert plan([version | {"speculative": {**speculative, "parity": False}}], tmp_path)[0].trials is None
