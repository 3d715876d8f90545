from pathlib import Path
from typing import Any

import pytest

from gateway.settings.checks import find_problems
from gateway.settings.problems import format_key


def find(data: dict[str, Any]) -> dict[str, str]:
    return {format_key(location): message for location, message in find_problems(data)}


def make(version: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"models": [{"name": "m", "versions": [version or {"name": "v1", "engine": "simulated"}]} | fields]}


def test_nothing_is_wrong_with_a_simulated_version() -> None:
    assert find(make()) == {}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"server": {"relays": 2}}, "server.relays"),
        ({"server": {"relays": "2"}}, "server.relays"),
        ({"state": {"url": "redis://host:6379/0"}}, "state.url"),
        ({"auth": {"required": True}}, "auth.required"),
        ({"auth": {"required": "true"}}, "auth.required"),
        (make(shadow={"version": "v1", "percent": 5}), "models[0].shadow"),
        (make({"name": "v1", "endpoints": ["http://h:1"]}), "models[0].versions[0].endpoints"),
        (make({"name": "v1", "checkpoint": "hf://org/m"}), "models[0].versions[0].checkpoint"),
        (make({"name": "v1", "checkpoint": "s3://b/m"}), "models[0].versions[0].checkpoint"),
        (
            make({"name": "v1", "engine": "simulated", "adapters": {"a": "gs://b/m"}}),
            "models[0].versions[0].adapters.a",
        ),
    ],
)
def test_what_this_release_cannot_do_is_refused_by_name(data: dict[str, Any], key: str) -> None:
    messages = find(data)
    assert list(messages) == [key]
    assert "not possible yet" in messages[key]


def test_what_is_refused_later_may_be_written_as_switched_off() -> None:
    assert find({"server": {"relays": 1}, "auth": {"required": False}} | make(shadow=None)) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_a_loopback_admin_port_needs_no_key(host: str) -> None:
    assert find({"admin": {"host": host}}) == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com"])
def test_an_open_admin_port_needs_a_key(host: str) -> None:
    assert "set MY_KEY" in find({"admin": {"host": host, "key_env": "MY_KEY"}})["admin.host"]
    assert find({"admin": {"host": host, "key": "s"}}) == {}


@pytest.mark.parametrize("url", ["sqlite://x", "sqlite:///", "postgres://user:hush@h/db", "state.db"])
def test_bad_state_urls_are_refused_and_not_repeated(url: str) -> None:
    assert find({"state": {"url": url}}) == {"state.url": "should be sqlite:///FILE"}


def test_folders_must_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    adapters = {"a": str(tmp_path / "file"), "b": str(tmp_path / "folder")}
    messages = find(make({"name": "v1", "checkpoint": str(tmp_path / "gone"), "adapters": adapters}))
    assert messages == {
        "models[0].versions[0].checkpoint": f"there is no such folder: {tmp_path / 'gone'}",
        "models[0].versions[0].adapters.a": f"is not a folder: {tmp_path / 'file'}",
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
        {"admin": {"host": 3}, "state": {"url": 4}},
    ],
)
def test_values_of_the_wrong_type_are_stepped_over(data: dict[str, Any]) -> None:
    assert find(data) == {}
