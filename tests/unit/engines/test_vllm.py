import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.engines import vllm
from gateway.engines.engine import MountRefused
from gateway.engines.machine import Machine
from gateway.engines.placement import Need
from gateway.engines.vllm import (
    EngineArgsError,
    EngineRequest,
    build_launch_spec,
    can_doze,
    estimate_need,
    find_drafting,
    in_float32,
    is_forkable,
    let_doze,
    make_room,
    mount,
)
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import write_adapter, write_checkpoint, write_json, write_tensors

SMALL = Machine(cores=2, memory_bytes=24 * 2**30)
REQUEST = EngineRequest(
    model="shapes",
    version="v1",
    index=0,
    checkpoint=Path("/models/shapes-v1"),
    adapters={},
    engine_args={},
    speculative=None,
    uds=Path("/run/gw/0.sock"),
    cpu=True,
    drain_grace_s=12.5,
)


def flags(machine: Machine = SMALL, **changes: Any) -> dict[str, list[str]]:
    """The command line as flag → values."""
    found: dict[str, list[str]] = {}
    for word in build_launch_spec(replace(REQUEST, **changes), machine).args:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.setdefault(name, []).extend([value] if equals else [])
            last = name
        else:
            found[last].append(word)
    return found


def env(machine: Machine = SMALL, **changes: Any) -> dict[str, str]:
    return dict(build_launch_spec(replace(REQUEST, **changes), machine).env)


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_names_the_engine_and_where_it_listens() -> None:
    spec = build_launch_spec(REQUEST, SMALL)
    assert (spec.name, spec.module) == ("shapes:v1#0", "gateway.engines.launcher")
    found = flags()
    assert found["--model"] == ["/models/shapes-v1"]
    assert found["--served-model-name"] == ["shapes"]
    assert found["--uds"] == ["/run/gw/0.sock"]


def test_running_answers_get_the_grace_time_in_whole_seconds() -> None:
    assert flags()["--shutdown-timeout"] == ["13"]
    assert flags(drain_grace_s=0)["--shutdown-timeout"] == ["0"]


@pytest.mark.parametrize(
    ("args", "cache_bytes"),
    [
        ({}, 384 * 2**20), ({"kv-cache-memory-bytes": "1G"}, 2**30), ({"kv_cache_memory_bytes": "1.5g"}, 1_500_000_000),
        ({"kv-cache-memory-bytes": 7}, 7), ({"gpu-memory-utilization": 0.5}, 12 * 2**30), ({"kv-cache-memory-bytes": "?"}, 0),
    ],
)  # fmt: skip
def test_on_a_cpu_an_engine_takes_weights_cache_and_its_process(args: dict[str, Any], cache_bytes: int) -> None:
    need = estimate_need(replace(REQUEST, engine_args=args), SMALL, 5 * 2**30)
    assert need == Need(1, 6 * 2**30 + cache_bytes)


@pytest.mark.parametrize(
    ("args", "variables", "need"),
    [
        ({}, {}, Need(1, 920)),
        ({"gpu-memory-utilization": 0.4}, {}, Need(1, 400)),
        ({"tensor-parallel-size": 2, "pipeline_parallel_size": "2"}, {}, Need(4, 920)),
        ({"gpu-memory-utilization": "much", "tensor-parallel-size": None}, {}, Need(1, 920)),
        ({}, {"CUDA_VISIBLE_DEVICES": "1, 3"}, Need(1, 920, ("1", "3"))),
    ],
)
def test_on_a_gpu_an_engine_takes_the_share_that_it_is_told(
    args: dict[str, Any], variables: dict[str, str], need: Need
) -> None:
    assert estimate_need(replace(REQUEST, cpu=False, engine_args=args, env=variables), SMALL, 5 * 2**30) == need


def test_on_a_gpu_vllms_own_defaults_stand() -> None:
    assert set(flags(cpu=False)) == {
        "--model",
        "--served-model-name",
        "--uds",
        "--shutdown-timeout",
        "--enable-request-id-headers",
        "--enable-scale-out",
        "--disable-uvicorn-access-log",
    }
    assert set(env(cpu=False)) == {
        "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
    }  # fmt: skip


def test_on_a_cpu_it_is_made_small() -> None:
    assert flags()["--enforce-eager"] == []
    assert flags()["--max-model-len"] == ["auto"]
    assert env()["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(("memory_gib", "cache_mib"), [(2, 128), (24, 384), (256, 4096), (4096, 16384)])
def test_the_kv_cache_is_a_small_part_of_the_memory(memory_gib: int, cache_mib: int) -> None:
    machine = Machine(cores=2, memory_bytes=memory_gib * 2**30)
    assert flags(machine)["--kv-cache-memory-bytes"] == [str(cache_mib * 2**20)]


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (8, "4"), (64, "32")])
def test_threads_fit_the_cores(cores: int, threads: str) -> None:
    assert env(Machine(cores=cores, memory_bytes=2**34))["OMP_NUM_THREADS"] == threads


def test_asked_for_threads_win() -> None:
    assert env(threads=5)["OMP_NUM_THREADS"] == "5"


def test_the_users_flags_win_over_ours() -> None:
    found = flags(
        engine_args={
            "kv_cache_memory_bytes": "1G",
            "enforce-eager": False,
            "--max-model-len": 77,
            "shutdown-timeout": 1,
        }
    )
    assert found["--kv-cache-memory-bytes"] == ["1G"]
    assert found["--max-model-len"] == ["77"]
    assert found["--shutdown-timeout"] == ["1"]
    assert "--no-enforce-eager" in found
    assert "--enforce-eager" not in found


def test_a_share_of_memory_replaces_our_size_of_the_cache() -> None:
    assert "--kv-cache-memory-bytes" not in flags(engine_args={"gpu-memory-utilization": 0.3})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("enable-prefix-caching", True, ["--enable-prefix-caching"]),
        ("enable-prefix-caching", False, ["--no-enable-prefix-caching"]),
        ("disable-log-stats", True, ["--disable-log-stats"]),
        ("disable-log-stats", False, []),
        ("dtype", None, []),
        ("dtype", "float32", ["--dtype=float32"]),
        ("limit-mm-per-prompt", {"image": 2}, ['--limit-mm-per-prompt={"image": 2}']),
        ("allowed-media-domains", ["a.org", "b.org"], ["--allowed-media-domains", "a.org", "b.org"]),
        ("allowed-media-domains", [], []),
        ("allowed-origins", ["*"], ['--allowed-origins=["*"]']),
        ("middleware", ["a.B", "c.D"], ["--middleware", "a.B", "--middleware", "c.D"]),
        ("seed", -1, ["--seed=-1"]),
    ],
)
def test_every_kind_of_value_is_written_as_vllm_reads_it(name: str, value: Any, words: list[str]) -> None:
    base = build_launch_spec(replace(REQUEST, cpu=False), SMALL).args
    spec = build_launch_spec(replace(REQUEST, cpu=False, engine_args={name: value}), SMALL)
    assert list(spec.args[len(base) :]) == words


@pytest.mark.parametrize(
    "name", ["uds", "host", "port", "model", "served-model-name", "served_model_name", "--port", "api-key", "serv"]
)
def test_flags_by_which_the_gateway_reaches_the_engine_are_refused(name: str) -> None:
    with pytest.raises(EngineArgsError, match=r"engine_args: '.*' is set by the gateway itself"):
        flags(engine_args={name: "x"})


def test_flags_that_only_look_like_ours_are_passed_on() -> None:
    assert flags(engine_args={"model-impl": "vllm"})["--model-impl"] == ["vllm"]


def test_an_engine_that_guesses_on_a_cpu_gets_another_openmp_and_is_not_forked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vllm, "find_openmp", lambda: tmp_path / "libiomp5.so")
    guessing = replace(REQUEST, speculative={"method": "ngram"})
    assert env(speculative={"method": "ngram"})["LD_PRELOAD"] == str(tmp_path / "libiomp5.so")
    assert not is_forkable(guessing)
    assert is_forkable(REQUEST)
    assert "LD_PRELOAD" not in env()
    assert "LD_PRELOAD" not in env(cpu=False, speculative={"method": "ngram"})
    monkeypatch.setattr(vllm, "find_openmp", lambda: None)
    assert is_forkable(guessing)
    assert "LD_PRELOAD" not in env(speculative={"method": "ngram"})


def test_admission_is_told_how_an_engine_guesses(tmp_path: Path) -> None:
    assert find_drafting(REQUEST) is None
    drafting = find_drafting(replace(REQUEST, speculative={"method": "qwen3_5_mtp", "model": str(tmp_path)}))
    assert drafting is not None
    assert (drafting.method, drafting.draft, drafting.is_cached) == ("mtp", tmp_path, True)
    for arguments in ({"enable_prefix_caching": False}, {"no-enable-prefix-caching": True}):
        found = find_drafting(replace(REQUEST, speculative={"method": "ngram"}, engine_args=arguments))
        assert found is not None
        assert not found.is_cached
    assert not drafting.may_have_other_words
    translated = {"method": "draft_model", "model": str(tmp_path), "use_heterogeneous_vocab": True}
    found = find_drafting(replace(REQUEST, speculative=translated))
    assert found is not None
    assert found.may_have_other_words


def test_speculative_decoding_is_passed_as_json() -> None:
    wanted = {"method": "ngram", "num_speculative_tokens": 3}
    assert json.loads(flags(speculative=wanted)["--speculative-config"][0]) == wanted


def test_adapters_are_served_under_their_public_ids(tmp_path: Path) -> None:
    adapters = {
        "shapes:v1+colours": adapter(tmp_path / "a", r=4),
        "shapes:v1+big": adapter(tmp_path / "b", r=12, rank_pattern={"lm_head": 20}),
    }
    found = flags(adapters=adapters)
    assert found["--enable-lora"] == []
    assert found["--max-loras"] == ["2"]
    assert found["--max-lora-rank"] == ["32"]
    assert [json.loads(module) for module in found["--lora-modules"]] == [
        {"name": "shapes:v1+colours", "path": str(tmp_path / "a"), "base_model_name": "shapes"},
        {"name": "shapes:v1+big", "path": str(tmp_path / "b"), "base_model_name": "shapes"},
    ]


def test_adapters_are_mounted_where_the_engine_has_room(tmp_path: Path) -> None:
    small, big = adapter(tmp_path / "a", r=4), adapter(tmp_path / "b", r=12)
    request = make_room(replace(REQUEST, adapters={"shapes:v1+a": big}))
    (tmp_path / "b" / "adapter_config.json").unlink()  # what is mounted may be gone by now
    mounted = mount(request, {"shapes:v1+b": small})
    found = build_launch_spec(mounted, SMALL)
    assert "--max-lora-rank=16" in found.args, "as it was started"
    emptied = mount(mounted, {})
    assert "--enable-lora" in build_launch_spec(emptied, SMALL).args, "adapters may come again"
    with pytest.raises(MountRefused, match="does not say the adapter's rank"):
        mount(emptied, {"shapes:v1+a": big})
    assert make_room(replace(REQUEST, adapters={"shapes:v1+a": big})).engine_args == REQUEST.engine_args


def test_adapters_are_refused_where_it_has_none(tmp_path: Path) -> None:
    big = adapter(tmp_path / "b", r=20)
    with pytest.raises(MountRefused, match=r"without enable-lora: set engine_args \{enable-lora: true\}"):
        mount(REQUEST, {"shapes:v1+b": big})
    request = replace(REQUEST, engine_args={"enable_lora": True})
    with pytest.raises(MountRefused, match=r"its rank is 20, and the engine was started for 16.*max-lora-rank: 32\}"):
        mount(make_room(request), {"shapes:v1+b": big})
    roomy = replace(REQUEST, engine_args={"enable-lora": True, "max-lora-rank": 32})
    assert mount(make_room(roomy), {"shapes:v1+b": big}).adapters == {"shapes:v1+b": big}


def test_an_engine_is_told_of_adapters_that_change_how_a_model_sees(tmp_path: Path) -> None:
    write_adapter(tmp_path / "words")
    write_adapter(tmp_path / "eyes")
    module = "base_model.model.model.visual.blocks.0.attn.proj"
    shapes = {f"{module}.lora_A.weight": (4, 8), f"{module}.lora_B.weight": (8, 4)}
    write_tensors(tmp_path / "eyes" / "adapter_model.safetensors", shapes)
    assert "--enable-tower-connector-lora" not in flags(adapters={"words": tmp_path / "words"})
    assert "--enable-tower-connector-lora" in flags(adapters={"words": tmp_path / "words", "eyes": tmp_path / "eyes"})


@pytest.mark.parametrize("content", [None, "no json", "{}", "[]", '{"r": "many"}'])
def test_an_adapter_without_a_rank_is_an_error_that_names_the_file(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(EngineArgsError, match=r"adapter_config\.json does not say the adapter's rank"):
        flags(adapters={"a": tmp_path})


def test_nothing_is_looked_up_online_for_a_folder(tmp_path: Path) -> None:
    assert env(checkpoint=tmp_path)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in env(checkpoint=tmp_path / "nowhere")
    draft = {"method": "draft_model", "model": "org/draft"}
    assert "HF_HUB_OFFLINE" not in env(checkpoint=tmp_path, speculative=draft)
    assert env(checkpoint=tmp_path, speculative={"method": "ngram"})["HF_HUB_OFFLINE"] == "1"


def test_the_kv_cache_variable_is_never_set() -> None:
    assert "VLLM_CPU_KVCACHE_SPACE" not in env()


def test_the_versions_environment_wins() -> None:
    assert env(env={"OMP_NUM_THREADS": "3", "X": "y"})["OMP_NUM_THREADS"] == "3"
    assert env(env={"X": "y"})["X"] == "y"


def test_only_single_engines_on_the_cpu_are_forked() -> None:
    assert is_forkable(REQUEST)
    assert not is_forkable(replace(REQUEST, cpu=False))
    parallel = replace(REQUEST, engine_args={"tensor_parallel_size": 2})
    assert not is_forkable(parallel)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in build_launch_spec(parallel, SMALL).env


def test_local_files_are_refused_by_allowing_an_empty_folder_only() -> None:
    assert "--allowed-local-media-path" not in flags()
    assert flags(empty_dir=Path("/run/gw/empty"))["--allowed-local-media-path"] == ["/run/gw/empty"]


def test_the_users_environment_wins() -> None:
    found = env(env={"OMP_NUM_THREADS": "7", "MINE": "1"})
    assert (found["OMP_NUM_THREADS"], found["MINE"], found["VLLM_NO_USAGE_STATS"]) == ("7", "1", "1")


@pytest.mark.parametrize(("value", "expected"), [(1, True), ("1", True), (None, True), (2, False), ("auto", False)])
def test_whether_an_engine_may_be_forked_never_fails(value: Any, expected: bool) -> None:
    assert is_forkable(replace(REQUEST, engine_args={"tensor-parallel-size": value})) is expected


def test_engines_that_may_sleep_have_sleep_mode_where_vllm_has_it() -> None:
    on_gpu = let_doze(replace(REQUEST, cpu=False))
    assert can_doze(on_gpu)
    launch = build_launch_spec(on_gpu, SMALL)
    assert "--enable-sleep-mode" in launch.args
    assert launch.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert not can_doze(let_doze(REQUEST)), "on a CPU it would not start"
    off = replace(REQUEST, cpu=False, engine_args={"enable_sleep_mode": False})
    assert (let_doze(off), can_doze(off)) == (off, False)
    assert "VLLM_SERVER_DEV_MODE" not in build_launch_spec(off, SMALL).env


def test_bounds_for_pictures_are_told_once(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, is_visual=True)
    write_json(folder / "preprocessor_config.json", {"patch_size": 14, "merge_size": 2})
    bounds = {"min_pixels": 100, "max_pixels": 9000}
    found = flags(checkpoint=folder, pictures=bounds)
    told = {"images_kwargs": {"size": {"shortest_edge": 100, "longest_edge": 9000}}}
    assert [json.loads(value) for value in found["--mm-processor-kwargs"]] == [told]
    assert found["--trust-request-mm-kwargs"] == []
    with pytest.raises(EngineArgsError, match="engine_args has mm-processor-kwargs too"):
        flags(checkpoint=folder, pictures=bounds, engine_args={"mm_processor_kwargs": {}})
    with pytest.raises(EngineArgsError, match="has no bounds of its own"):
        flags(checkpoint=folder, pictures={"max_pixels": 5})


def test_a_parser_of_thinking_is_one_that_the_engine_has() -> None:
    assert flags(reasoning_parser="qwen3")["--reasoning-parser"] == ["qwen3"]
    assert "--reasoning-parser" not in flags()
    with pytest.raises(EngineArgsError, match=r"has no parser 'deepseek-r1': did you mean deepseek_r1"):
        flags(reasoning_parser="deepseek-r1")
    with pytest.raises(EngineArgsError, match="take one of cohere_command3, "):
        flags(reasoning_parser="zzzzzz")


def test_a_checkpoint_in_parts_brings_flags_of_its_own(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "nvila")
    found = flags(checkpoint=folder)
    assert found["--tokenizer"] == [str(folder / "llm")]
    assert found["--chat-template-content-format"] == ["openai"]
    own = flags(checkpoint=folder, engine_args={"chat_template": "/mine.jinja"})
    assert own["--chat-template"] == ["/mine.jinja"]
    assert "--chat-template-content-format" not in own


def test_in_float32_the_cache_holds_as_many_tokens() -> None:
    wide = in_float32(replace(REQUEST, engine_args={"dtype": "bfloat16", "kv_cache_memory_bytes": "128M"}))
    assert wide.engine_args == {"dtype": "float32", "kv-cache-memory-bytes": 256 * 2**20}
    assert in_float32(REQUEST).engine_args == {"dtype": "float32"}
