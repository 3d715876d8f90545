from gateway.settings.problems import Problem, SettingsError, format_key


def test_a_key_is_written_as_people_write_it() -> None:
    assert format_key(("models", 0, "versions", 12, "checkpoint")) == "models[0].versions[12].checkpoint"
    assert format_key(("server", "port")) == "server.port"
    assert format_key(()) == ""
    assert format_key((None, "x")) == "None.x", "YAML has keys that are no texts"


def test_an_error_prints_one_line_per_problem_and_leaves_out_empty_parts() -> None:
    error = SettingsError([Problem("g.yaml:3", "server.port", "is wrong"), Problem("g.yaml", "", "cannot be read")])
    assert str(error).splitlines() == ["g.yaml:3: server.port: is wrong", "g.yaml: cannot be read"]
    assert len(error.problems) == 2
