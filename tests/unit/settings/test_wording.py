from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings.problems import format_key
from gateway.settings.tree import Settings
from gateway.settings.wording import explain, list_keys


def explain_data(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(data)
    return {format_key(location): message for location, message in explain(caught.value)}


def test_an_unknown_key_gets_its_nearest_neighbour() -> None:
    version = {"name": "v1", "checkpont": "x"}
    messages = explain_data({"sever": {}, "models": [{"name": "m", "versions": [version], "shadow": {"procent": 1}}]})
    assert messages["sever"] == "is an unknown key; did you mean server?"
    assert messages["models[0].versions[0].checkpont"] == "is an unknown key; did you mean checkpoint?"
    assert messages["models[0].shadow.procent"] == "is an unknown key; did you mean percent?"
    assert messages["models[0].shadow.version"] == "is missing"


def test_an_unknown_key_without_a_neighbour_gets_the_list_without_internal_keys() -> None:
    assert explain_data({"admin": {"zzz": 1}})["admin.zzz"] == "is an unknown key; known here: host, port, key_env"


def test_wrong_values_are_shown_and_cut() -> None:
    messages = explain_data({"server": {"port": "x", "host": ["y" * 100]}})
    assert messages["server.port"].endswith('got "x"')
    assert len(messages["server.host"]) < 120


def test_values_that_may_be_secret_are_not_shown() -> None:
    version = {"name": "v1", "env": {"TOKEN": ["hush"]}}
    messages = explain_data({"models": [{"name": "m", "versions": [version]}]})
    assert "hush" not in str(messages)
    assert messages["models[0].versions[0].env.TOKEN"] == "should be a valid string"


def test_a_bad_name_of_a_mapping_is_located_at_that_name() -> None:
    messages = explain_data({"models": [{"name": "m", "versions": [{"name": "v", "adapters": {"a:b": "x"}}]}]})
    assert "letters, digits" in messages["models[0].versions[0].adapters.a:b"]


def test_keys_of_a_section() -> None:
    assert list_keys(("models", 3, "shadow")) == ["version", "percent", "concurrency", "cross_score", "keep_texts"]
