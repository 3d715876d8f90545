import hashlib
import math

import pytest
from pydantic import ValidationError

from gateway.settings.tree import (
    AuthSettings,
    KeySettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SpeculativeSettings,
    VersionSettings,
    find_name_fault,
    normalise_split,
)


def make_model(**fields: object) -> ModelSettings:
    return ModelSettings.model_validate({"name": "m", "versions": [{"name": "v1"}, {"name": "v2"}]} | fields)


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.server.host, settings.server.port, settings.server.relays) == ("0.0.0.0", 8000, 1)
    assert settings.server.max_body_bytes == 64 * 1024 * 1024
    assert (settings.admin.host, settings.admin.port, settings.admin.key_env) == (
        "127.0.0.1",
        9000,
        "GATEWAY_ADMIN_KEY",
    )
    assert settings.state.url == "sqlite:///var/lib/gateway/state.db"
    assert (settings.auth.required, settings.auth.keys) == (False, ())
    assert (settings.server.access_log, settings.server.access_log_path) == (True, None)
    assert (settings.engines.fork, settings.engines.start_timeout_s) == ("auto", 900.0)
    assert make_model().sticky_by == ("header:x-session-id", "user", "api_key", "client_ip")


def test_the_tree_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "size"),
    [("64MiB", 2**26), ("1 GiB", 2**30), ("1.5KiB", 1536), ("10MB", 10**7), ("7", 7), (7, 7), ("12B", 12)],
)
def test_sizes(value: object, size: int) -> None:
    assert ServerSettings.model_validate({"max_body_bytes": value}).max_body_bytes == size


@pytest.mark.parametrize("value", ["64 miles", "MiB", "-1MiB", "0", 0, -5, True, [], "1e3", "64mib"])
def test_bad_sizes(value: object) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate({"max_body_bytes": value})


@pytest.mark.parametrize(
    "fields",
    [
        {"port": -1},
        {"port": 65536},
        {"port": True},
        {"relays": 0},
        {"relays": 65},
        {"drain_grace_s": -1},
        {"idle_timeout_s": 0},
        {"idle_timeout_s": math.inf},
        {"first_byte_timeout_s": math.nan},
        {"idle_timeout_s": False},
        {"access_log": "maybe"},
        {"host": ""},
        {"hots": "x"},
    ],
)
def test_bad_server_values(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate(fields)


def test_a_key_without_a_value_counts_as_absent() -> None:
    assert Settings.model_validate({"server": {"port": None}, "auth": None}) == Settings()


@pytest.mark.parametrize("name", ["shapes", "org/shapes-7b.v2", "A_b", "0"])
def test_model_names(name: str) -> None:
    assert make_model(name=name).name == name


@pytest.mark.parametrize("name", ["a:b", "a+b", "", "/a", "-a", "a b", "a\n", "ü", "a" * 201, 5])
def test_bad_model_names(name: object) -> None:
    with pytest.raises(ValidationError):
        make_model(name=name)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a+b", "", "-v", "v1\n"])
def test_bad_version_and_adapter_names(name: str) -> None:
    with pytest.raises(ValidationError):
        VersionSettings(name=name)
    with pytest.raises(ValidationError):
        VersionSettings(name="v1", adapters={name: "x"})


def test_a_key_is_known_by_the_hash_that_sha256sum_prints() -> None:
    digest = hashlib.sha256(b"sk-secret").hexdigest()
    auth = AuthSettings.model_validate({"required": True, "keys": [{"name": "laptop", "sha256": digest.upper()}]})
    assert auth.keys == (KeySettings(name="laptop", sha256=digest),)


@pytest.mark.parametrize("value", ["sk-secret", "", "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", 7, None])
def test_what_is_no_hash_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        KeySettings.model_validate({"name": "laptop", "sha256": value})
    assert "secret" not in str(caught.value.errors()[0]["msg"])


def test_sticky_keys_are_read_in_lower_case() -> None:
    assert make_model(sticky_by=["header:X-User", "api_key"]).sticky_by == ("header:x-user", "api_key")


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["cookie"],
        ["header:"],
        ["header:a b"],
        "user",
        [3],
        ["header:X-Request-Id"],
        ["header:content-length"],
        ["header:traceparent"],
        ["header:tracestate"],
    ],
)
def test_bad_sticky_keys(keys: object) -> None:
    with pytest.raises(ValidationError):
        make_model(sticky_by=keys)


def test_numbers_in_env_become_text_but_truth_does_not() -> None:
    assert VersionSettings.model_validate({"name": "v", "env": {"A": 1, "B": 0.5}}).env == {"A": "1", "B": "0.5"}
    with pytest.raises(ValidationError):
        VersionSettings.model_validate({"name": "v", "env": {"A": True}})
    with pytest.raises(ValidationError):
        VersionSettings.model_validate({"name": "v", "env": {"A=B": "x"}})


def test_free_maps_keep_their_values_unchanged_nulls_too() -> None:
    free = {"max-model-len": 4096, "limit": {"image": None}, "x": [1, "a", True], "t": 0.5}
    version = VersionSettings.model_validate({"name": "v", "engine_args": free, "defaults": free})
    assert version.engine_args == free
    assert version.defaults == free


def test_a_model_needs_a_version() -> None:
    with pytest.raises(ValidationError, match="needs at least one"):
        make_model(versions=[])


def test_a_split_becomes_fractions_over_all_versions() -> None:
    assert make_model(split={"v1": 90, "v2": 10}).split == {"v1": 0.9, "v2": 0.1}
    assert make_model(split={"v2": 3}).split == {"v1": 0.0, "v2": 1.0}
    assert make_model().split == {"v1": 0.5, "v2": 0.5}
    assert make_model(split=None).split == {"v1": 0.5, "v2": 0.5}
    assert list(make_model(split={"v2": 1, "v1": 1}).split) == ["v1", "v2"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"v1": 1, "v3": 1}, "no version is called v3; there are v1, v2"),
        ({"v1": -1, "v2": 2}, "from 0 up"),
        ({"v1": 0}, "above 0"),
        ({"v1": math.nan}, "from 0 up"),
        ({"v1": math.inf}, "from 0 up"),
        ({"v1": 1e308, "v2": 1e308}, "above 0"),
    ],
)
def test_bad_splits(split: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalise_split(split, ["v1", "v2"])


def test_of_speculation_the_engine_gets_what_is_not_ours() -> None:
    data = {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 3,
        "min_acceptance": 0.4,
        "parity": True,
    }
    section = SpeculativeSettings.model_validate(data)
    assert (section.min_acceptance, section.parity) == (0.4, True)
    assert section.engine_config == {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
    again = SpeculativeSettings.model_validate_json(section.model_dump_json())
    assert again.engine_config == section.engine_config, "as it goes from one process to another"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", ""), ("method", 3), ("num_speculative_tokens", 0), ("num_speculative_tokens", 65),
        ("num_speculative_tokens", True), ("num_speculative_tokens", 2.5), ("min_acceptance", 0), ("min_acceptance", 1),
        ("min_acceptance", True), ("parity", "perhaps"), ("model", 7),
    ],
)  # fmt: skip
def test_bad_values_of_speculation(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        SpeculativeSettings.model_validate({"method": "ngram", key: value})


@pytest.mark.parametrize(
    ("name", "is_fine"), [("v1", True), ("a.b-c_d", True), ("", False), ("a b", False), ("-a", False)]
)
def test_names_are_told_what_they_should_be(name: str, is_fine: bool) -> None:
    fault = find_name_fault(name)
    assert (fault is None) == is_fine
    assert is_fine or str(fault).startswith("should be letters, digits")
