import pytest

from gateway.settings.lines import parse


def test_lines_are_those_of_the_keys_and_list_items() -> None:
    document = parse("server:\n  port: 1\n\nmodels:\n- name: a\n  versions:\n  - name: v1\n", "g.yaml")
    assert document.data["models"][0]["versions"] == [{"name": "v1"}]
    assert document.find_line(("server", "port")) == "g.yaml:2"
    assert document.find_line(("models", 0, "versions", 0, "name")) == "g.yaml:7"


def test_a_place_that_is_not_in_the_file_has_the_line_of_its_parent() -> None:
    document = parse("server:\n  port: 1\n", "g.yaml")
    assert document.find_line(("server", "host", 0)) == "g.yaml:1"
    assert document.find_line(("models",)) == "g.yaml"


def test_a_key_given_twice_is_a_problem_and_its_contents_are_not_compared() -> None:
    document = parse("a:\n  x: 1\nb: 2\na:\n  x: 3\n  y: 1\n  y: 2\n", "g.yaml")
    assert [str(problem) for problem in document.problems] == ["g.yaml:4: a: is given twice, first on line 1"]


def test_merged_keys_are_no_duplicates_and_keep_the_line_they_were_written_on() -> None:
    document = parse("base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  x: 3\n", "g.yaml")
    assert document.problems == ()
    assert document.data["use"] == {"x": 3, "y": 2}
    assert document.find_line(("use", "y")) == "g.yaml:3"
    assert document.find_line(("use", "x")) == "g.yaml:6"


def test_an_alias_that_points_at_itself_does_not_hang() -> None:
    assert parse("a: &a\n  b: *a\n", "g.yaml").find_line(("a", "b")) == "g.yaml:2"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("server: {port: 1\nmodels: ]", "g.yaml:2"),
        ("a: 1\n\tb: 2\n", "g.yaml:2"),
        ("a: 1\n---\nb: 2\n", "g.yaml:2"),
        ("a: !!python/object:os.system x\n", "g.yaml:1"),
        ("a: 1\nb: \x01\n", "g.yaml:2"),
        ("? [a]\n: 1\n", "g.yaml:1"),
        ("a: *nowhere\n", "g.yaml:1"),
        ("- a\n", "g.yaml:1"),
        ("just words\n", "g.yaml:1"),
        ("[" * 5000, "g.yaml:1"),
        (f"a: {'9' * 5000}\n", "g.yaml:1"),
    ],
)
def test_bad_text_is_one_problem_with_its_line(text: str, where: str) -> None:
    (problem,) = parse(text, "g.yaml").problems
    assert problem.where == where
    assert problem.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_no_problem_here(text: str) -> None:
    document = parse(text, "g.yaml")
    assert (document.data, document.problems) == ({}, ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E5", 200000.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("12", 12),
        ("1e", "1e"),
        ("e5", "e5"),
        ("128M", "128M"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("true", True),
        ("~", None),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    read = parse(f"a: {text}\n", "g.yaml").data["a"]
    assert read == value
    assert type(read) is type(value)
