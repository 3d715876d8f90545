from pathlib import Path
from typing import Any

import pytest

from gateway.settings.checks import MEASURED, find_problems
from gateway.settings.problems import format_key
from gateway.telemetry.samples import Metric


def find(data: dict[str, Any]) -> dict[str, str]:
    return {format_key(location): message for location, message in find_problems(data)}


def make(version: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"models": [{"name": "m", "versions": [version or {"name": "v1", "engine": "simulated"}]} | fields]}


def test_nothing_is_wrong_with_a_simulated_version() -> None:
    assert find(make()) == {}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (make({"name": "v1", "endpoints": ["https://h:1"]}), "models[0].versions[0].endpoints[0]"),
        (make({"name": "v1", "endpoints": ["http://h:1", "dns+http://h:1"]}), "models[0].versions[0].endpoints[1]"),
    ],
)
def test_what_this_release_cannot_do_is_refused_by_name(data: dict[str, Any], key: str) -> None:
    messages = find(data)
    assert list(messages) == [key]
    assert "possible yet" in messages[key]


@pytest.mark.parametrize(
    ("version", "place"),
    [
        ({"defaults": {"stop": ["a", "\ud83d"]}}, "defaults.stop[1]"),
        ({"defaults": {"\udc00": 1}}, "defaults"),
        ({"env": {"A": "x\ud800y"}}, "env.A"),
        ({"speculative": {"method": "ngram", "num_speculative_tokens": 3, "other": "\ud800"}}, "speculative.other"),
    ],
)
def test_half_characters_are_refused_wherever_they_stand(version: dict[str, Any], place: str) -> None:
    found = find(make({"name": "v1", "engine": "simulated"} | version))
    assert found[f"models[0].versions[0].{place}"] == "has half of a character in it: write whole ones"
    assert find(make({"name": "v1", "engine": "simulated", "defaults": {"stop": ["\N{CAT FACE}"]}})) == {}


def test_addresses_are_fine_where_folders_are() -> None:
    version = {"name": "v1", "checkpoint": "hf://org/m@v1", "adapters": {"a": "gs://bucket/m"}}
    assert (
        find(
            make(
                version
                | {"speculative": {"method": "draft_model", "model": "s3://bucket/draft", "num_speculative_tokens": 3}}
            )
        )
        == {}
    )


@pytest.mark.parametrize("key", ["checkpoint", "adapters.a", "speculative.model"])
def test_what_is_no_address_is_refused_at_the_start(key: str) -> None:
    first, _, second = key.partition(".")
    version = {"name": "v1", "engine": "simulated", first: {second: "s3://k:secret@b/m"} if second else "ftp://h/m"}
    messages = find(make(version))
    assert list(messages) == [f"models[0].versions[0].{key}"]
    assert "should be" in messages[f"models[0].versions[0].{key}"]
    assert "secret" not in str(messages)


def test_a_shadow_is_one_of_the_versions() -> None:
    assert find(make(shadow={"version": "v1", "percent": 5}) | {"server": {"relays": 1}}) == {}
    assert find(make(shadow=None)) == {}
    messages = find(make(shadow={"version": "v9", "percent": 5}))
    assert messages == {"models[0].shadow.version": "no version is called 'v9'; there are v1"}


KEY = {"name": "laptop", "sha256": "a" * 64}


@pytest.mark.parametrize("auth", [{}, {"required": False}, {"required": False, "keys": []}, {"keys": [KEY]}])
def test_keys_are_not_needed_where_they_are_not_asked_for(auth: dict[str, Any]) -> None:
    assert find({"auth": auth}) == {}


def test_keys_may_be_made_when_the_gateway_runs() -> None:
    assert find({"auth": {"required": True, "keys": []}}) == {}


def test_keys_have_names_of_their_own() -> None:
    messages = find({"auth": {"required": True, "keys": [KEY, KEY | {"name": "ci"}, KEY]}})
    assert messages == {"auth.keys[2].name": "there are two called 'laptop'"}


@pytest.mark.parametrize(
    "url", ["http://h", "http://h:8000", "http://10.0.0.5:8000/", "http://[::1]:8000", "http://a-b.c:1"]
)
def test_endpoints(url: str) -> None:
    assert find(make({"name": "v1", "endpoints": [url]})) == {}


@pytest.mark.parametrize(
    "url",
    [
        "h:8000", "10.0.0.5", "http://", "http://:80", "http:///x", "http://h:8000/v1", "http://h?x", "http://h#x",
        "http://h:0", "http://h:65536", "http://h:eighty", "http://me:hush@h:1", "http://h :1", "unix:///run/e.sock",
        "ftp://h", "http://[::1:8000", " http://h",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused_and_not_repeated(url: str) -> None:
    assert find(make({"name": "v1", "endpoints": ["http://h:1", url]})) == {
        "models[0].versions[0].endpoints[1]": "should be http://HOST:PORT"
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adapters", {"mirror": "/"}),
        ("engine_args", {"max-model-len": 4096}),
        ("speculative", {"method": "ngram", "num_speculative_tokens": 3}),
        ("replicas", 2),
        ("env", {"A": "b"}),
        ("pictures", {"max_pixels": 9}),
        ("reasoning", {"parser": "qwen3"}),
    ],
)
def test_what_only_our_own_engines_can_be_told_is_refused_with_endpoints(key: str, value: object) -> None:
    far = {"name": "v1", "endpoints": ["http://h:1"]}
    assert "set up where they run" in find(make(far | {key: value}))[f"models[0].versions[0].{key}"]
    silent = {"adapters": {}, "engine_args": {}, "speculative": None, "replicas": 1, "env": {}}
    assert find(make(far | silent)) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_a_loopback_admin_port_needs_no_key(host: str) -> None:
    assert find({"admin": {"host": host}}) == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"])
def test_an_open_admin_port_needs_a_key(host: str) -> None:
    assert "set MY_KEY" in find({"admin": {"host": host, "key_env": "MY_KEY"}})["admin.host"]
    assert find({"admin": {"host": host, "key": "s"}}) == {}


@pytest.mark.parametrize("url", ["sqlite://x", "sqlite:///", "postgres://user:hush@h/db", "state.db"])
def test_bad_state_urls_are_refused_and_not_repeated(url: str) -> None:
    said = "should be sqlite:///FILE, redis://HOST:PORT/DB, or sqlite:// for memory"
    assert find({"state": {"url": url}}) == {"state.url": said}


@pytest.mark.parametrize("url", ["sqlite:///var/lib/state.db", "sqlite://", "redis://h:6379/0", "rediss://h:6379/0"])
def test_states_that_can_be_had(url: str) -> None:
    assert find({"state": {"url": url}}) == {}


def test_redis_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.settings.checks.find_spec", lambda name: None)
    said = "needs the package for Redis: pip install 'nim-gateway[redis]'"
    assert find({"state": {"url": "redis://h:6379/0"}}) == {"state.url": said}


def test_folders_must_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    adapters = {"a": str(tmp_path / "file"), "b": str(tmp_path / "folder")}
    messages = find(make({"name": "v1", "checkpoint": str(tmp_path / "gone"), "adapters": adapters}))
    assert messages == {
        "models[0].versions[0].checkpoint": f"there is no such folder: {tmp_path / 'gone'}",
        "models[0].versions[0].adapters.a": f"is not a folder: {tmp_path / 'file'}",
    }


def test_one_checkpoint_of_a_run_may_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert find(make({"name": "v1", "checkpoint": f"{tmp_path}/run@best"})) == {}
    assert "there is no such folder" in str(find(make({"name": "v1", "checkpoint": f"{tmp_path}/gone@best"})))


def test_a_draft_is_a_folder_or_a_name(tmp_path: Path) -> None:
    def of(draft: str) -> dict[str, str]:
        speculative = {"method": "draft_model", "model": draft, "num_speculative_tokens": 3}
        return find(make({"name": "v1", "checkpoint": str(tmp_path), "speculative": speculative}))

    assert of(str(tmp_path)) == of("org/draft") == {}
    assert of("/gone") == {"models[0].versions[0].speculative.model": "there is no such folder: /gone"}


def test_the_least_pixels_are_no_more_than_the_most() -> None:
    version = {"name": "v1", "engine": "simulated"}
    found = find(make(version | {"pictures": {"min_pixels": 10, "max_pixels": 9}}))
    assert found == {"models[0].versions[0].pictures.min_pixels": "is more than max_pixels, 9"}
    for pictures in ({"min_pixels": 9, "max_pixels": 9}, {"min_pixels": 9}, {"max_pixels": 9}, None):
        assert find(make(version | {"pictures": pictures})) == {}


@pytest.mark.parametrize(
    ("defaults", "pictures", "place"),
    [
        ({"mm_processor_kwargs": {"max_pixels": 50}}, {"max_pixels": 90}, None),
        ({"mm_processor_kwargs": {}, "media_io_kwargs": {}}, {"max_pixels": 90}, None),
        ({"mm_processor_kwargs": {"max_pixels": 91}}, {"max_pixels": 90}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": {"max_pixels": 4}}, {"min_pixels": 5, "max_pixels": 90}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": {"min_pixels": 9, "max_pixels": 8}}, {"max_pixels": 90}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": {"num_crops": 4}}, {"max_pixels": 90}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": {"max_pixels": True}}, {"max_pixels": 90}, "mm_processor_kwargs"),
        ({"mm_processor_kwargs": 3}, {"max_pixels": 90}, "mm_processor_kwargs"),
        ({"media_io_kwargs": {"video": {}}}, {"max_pixels": 90}, "media_io_kwargs"),
        ({"media_io_kwargs": {"video": {}}}, None, "media_io_kwargs"),
        ({"mm_processor_kwargs": {"max_pixels": 50}}, {"min_pixels": 5}, "mm_processor_kwargs"),
    ],
)
def test_defaults_that_would_lock_a_version_are_refused(
    tmp_path: Path, defaults: dict[str, Any], pictures: dict[str, int] | None, place: str | None
) -> None:
    version = {"name": "v1", "checkpoint": str(tmp_path), "defaults": defaults, "pictures": pictures}
    assert list(find(make(version))) == ([] if place is None else [f"models[0].versions[0].defaults.{place}"])


def test_what_the_settings_trust_requests_with_they_may_default_to(tmp_path: Path) -> None:
    defaults = {"mm_processor_kwargs": {"num_crops": 4}}
    trusting = {"name": "v1", "checkpoint": str(tmp_path), "engine_args": {"trust-request-mm-kwargs": True}}
    for version in (trusting, {"name": "v1", "engine": "simulated"}, {"name": "v1", "endpoints": ["http://a:1"]}):
        assert find(make(version | {"defaults": defaults})) == {}


def test_what_a_method_of_speculation_lacks_is_told() -> None:
    version = {"name": "v1", "engine": "simulated", "speculative": {"method": "ngram", "model": "org/draft"}}
    start = "models[0].versions[0].speculative"
    assert find(make(version)) == {
        f"{start}.model": "ngram makes nothing of a draft: take it out, or use draft_model",
        f"{start}.num_speculative_tokens": "ngram needs to know how many tokens to guess at a time: try 3",
    }


def test_smoke_prompts_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "p.png").touch()
    smoke = [
        {"prompt": "a", "expect": "b", "image": str(tmp_path / "p.png"), "adapter": "mirror"},
        {"prompt": "a", "expect": "b", "image": str(tmp_path), "adapter": "other"},
    ]
    version = {"name": "v1", "checkpoint": str(tmp_path), "adapters": {"mirror": str(tmp_path)}, "smoke": smoke}
    start = "models[0].versions[0].smoke[1]"
    assert find(make(version)) == {
        f"{start}.image": f"there is no such file: {tmp_path}",
        f"{start}.adapter": "is none of the version's adapters: other",
    }


def test_a_version_needs_exactly_one_source(tmp_path: Path) -> None:
    both = {"name": "v1", "checkpoint": str(tmp_path), "endpoints": ["http://h:1"]}
    assert "needs a checkpoint" in find(make({"name": "v1"}))["models[0].versions[0]"]
    assert "not both" in str(list(find_problems(make(both))))


def test_names_are_unique_where_they_must_be() -> None:
    data = make()
    data["models"] += [data["models"][0], {"name": "other", "versions": data["models"][0]["versions"] * 2}]
    messages = find(data)
    assert messages["models[1].name"] == "there are two called 'm'"
    assert messages["models[2].versions[1].name"] == "there are two called 'v1'"


def test_a_split_names_versions_that_exist() -> None:
    assert "no version is called v2" in find(make(split={"v2": 1}))["models[0].split"]


def test_a_system_prompt_is_text() -> None:
    assert find(make({"name": "v1", "engine": "simulated", "defaults": {"system_prompt": 3}})) == {
        "models[0].versions[0].defaults.system_prompt": "should be text"
    }


@pytest.mark.parametrize(
    "data",
    [
        {"models": 3, "server": [], "admin": 1, "state": "x", "auth": None},
        {"models": [3, None, {"versions": 5, "split": 3}, {"name": [], "versions": [None, "x"]}]},
        make(split={"v1": "x"}),
        make(split={3: 1}),
        {"admin": {"host": 3}, "state": {"url": 4}, "auth": {"keys": 3}},
        {"auth": {"keys": [3, None, {}, {"name": []}]}},
        make({"name": "v1", "endpoints": [3, None]}),
        make({"name": "v1", "endpoints": "http://h:1"}),
    ],
)
def test_values_of_the_wrong_type_are_stepped_over(data: dict[str, Any]) -> None:
    assert find(data) == {}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"score": {"low": 5, "high": 1}}, {"models[0].metrics.score": "low should be below high"}),
        ({"score": {"low": 1}}, {"models[0].metrics.score": "low should be below high"}),
        ({"score": {"low": 1, "high": 5}, "thumb": {}}, {}),
        (
            {"ttft_s": {}},
            {"models[0].metrics.ttft_s": "is measured by the gateway itself: call the feedback something else"},
        ),
        ({"score": 3}, {}),
    ],
)
def test_scales_of_feedback(metrics: dict[str, Any], said: dict[str, str]) -> None:
    assert find(make(metrics=metrics)) == said


def test_what_the_gateway_measures_is_known_by_its_names() -> None:
    assert set(MEASURED) == {metric.value for metric in Metric}
