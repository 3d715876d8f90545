from pathlib import Path

import pytest

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import list_folder
from gateway.checkpoints.templates import Templates, find_names, read_templates
from tests.support.safetensors_files import write_json

GOOD = "{%- for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m.content | tojson }}{% endfor %}"


def read(folder: Path, config: dict[str, object] | None = None) -> Templates:
    (folder / "other").write_text("x")
    return read_templates(list_folder(folder), Fields(config or {}))


def test_places_in_their_order(tmp_path: Path) -> None:
    assert not read(tmp_path).is_present
    assert read(tmp_path, {"chat_template": "c"}).file == "tokenizer_config.json"
    write_json(tmp_path / "processor_config.json", {"chat_template": "p"})
    assert read(tmp_path, {"chat_template": "c"}).file == "processor_config.json"
    write_json(tmp_path / "chat_template.json", {"chat_template": "j"})
    assert read(tmp_path).texts == (("default", "j"),)
    (tmp_path / "chat_template.jinja").write_text("f")
    assert read(tmp_path).texts == (("default", "f"),)


@pytest.mark.parametrize(
    "value",
    [[{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}, 5], {"rag": "r", "default": "d", "x": 1}],
)
def test_named_templates(tmp_path: Path, value: object) -> None:
    assert read(tmp_path, {"chat_template": value}).texts == (("default", "d"), ("rag", "r"))


def test_tags_of_the_field_are_known(tmp_path: Path) -> None:
    text = GOOD + "{% generation %}{{ raise_exception('no') }}{% endgeneration %}{{ strftime_now('%d') }}"
    assert read(tmp_path, {"chat_template": text}).findings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% endfor %}", "line 1"),
        ("{{ x | nofilter }}", "unknown filter 'nofilter'"),
        ("{{ x is notest }}", "unknown test 'notest'"),
        ("{% generation %}", "line 1"),
        ("   ", "is empty"),
        ("{{ " + "(" * 20_000, "chat template"),
    ],
)
def test_broken_template(tmp_path: Path, text: str, said: str) -> None:
    (finding,) = read(tmp_path, {"chat_template": text}).findings
    assert finding.code == "template-broken"
    assert said in finding.message


def test_constants_are_not_computed(tmp_path: Path) -> None:
    assert read(tmp_path, {"chat_template": "{{ 'a' * 10 ** 12 }}{{ range(10 ** 12) | list }}"}).findings == ()


def test_names_that_a_template_reads() -> None:
    text = "{% set a = b %}{% for c in d %}{{ c.e }}{% endfor %}{% generation %}{{ f }}{% endgeneration %}{# g #}h"
    assert find_names(text) == {"b", "c", "d", "f"}
    for broken in ("{% if", "{{ " + "(" * 100_000):
        assert find_names(broken) == frozenset()
