import pytest

from gateway.settings.sources import list_scalars, read_environment, read_flags

KEY_ENV = "GATEWAY_ADMIN_KEY"


def test_every_key_of_every_section_has_a_variable_but_the_admin_key() -> None:
    variables = list_scalars()
    assert variables["server", "max_body_bytes"] == "GATEWAY_SERVER_MAX_BODY_BYTES"
    assert {section for section, _ in variables} == {"server", "admin", "state", "auth", "engines", "cache"}
    assert ("admin", "key") not in variables


def test_variables_are_read_with_their_place() -> None:
    source = read_environment({"GATEWAY_SERVER_PORT": "81", "HOME": "/", "GATEWAY_ADMIN_KEY": "s"}, KEY_ENV)
    assert source.values == {("server", "port"): "81"}
    assert source.places == {("server", "port"): "environment GATEWAY_SERVER_PORT"}
    assert source.problems == ()


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:8000", "TCP://[::1]:80", "udp://10.0.0.1:53", ""])
def test_what_kubernetes_injects_and_empty_values_count_as_absent(value: str) -> None:
    assert read_environment({"GATEWAY_SERVER_PORT": value}, KEY_ENV).values == {}


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_SERVER_SERVICE_PORT",
        "GATEWAY_SERVER_SERVICE_HOST",
        "GATEWAY_SERVER_SERVICE_PORT_HTTP",
        "GATEWAY_SERVER_PORT_8000_TCP_ADDR",
        "GATEWAY_SOMETHING_ELSE",
        "GATEWAY_ADMIN_KEYS",
        "SERVER_PROT",
    ],
)
def test_other_names_are_left_alone(name: str) -> None:
    source = read_environment({name: "1"}, "GATEWAY_ADMIN_KEYS")
    assert (source.values, source.problems) == ({}, ())


def test_a_misspelt_variable_is_a_problem() -> None:
    (problem,) = read_environment({"GATEWAY_SERVER_PROT": "1"}, KEY_ENV).problems
    assert str(problem) == "environment: GATEWAY_SERVER_PROT: is unknown; did you mean GATEWAY_SERVER_PORT?"


def test_flags_by_dotted_key() -> None:
    source = read_flags({"server.port": 5, "server.host": None, "server.relay": 1, "admin.key": "s", "port": 1})
    assert source.values == {("server", "port"): 5}
    assert source.places == {("server", "port"): "flag"}
    assert [problem.key for problem in source.problems] == ["server.relay", "admin.key", "port"]
