"""The settings page is what the program generates, and the example shows every key and loads."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from gateway.settings import ModelSettings, Settings, ShadowSettings, VersionSettings, load
from gateway.settings.docs import render
from gateway.settings.tree import NOT_IN_FILE

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gateway.yaml"


def list_parts(part: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield part
    for field in part.model_fields.values():
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from list_parts(annotation)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("shapes-v1", "shapes-v2", "shapes-v2-mirror"):
        (tmp_path / "gateway" / "demo" / name).mkdir(parents=True)
    (tmp_path / "gateway" / "demo" / "pictures").mkdir()
    (tmp_path / "gateway" / "demo" / "pictures" / "circle.png").touch()
    (tmp_path / "examples").mkdir()
    return Path(shutil.copy(EXAMPLE, tmp_path / "examples"))


def test_the_settings_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == render(), "run: python -m gateway.settings.docs > docs/settings.md"


def test_every_part_of_the_tree_is_found() -> None:
    assert {ModelSettings, VersionSettings, ShadowSettings} < set(list_parts(Settings))


@pytest.mark.parametrize("part", list(list_parts(Settings)))
def test_every_key_has_a_meaning_and_stands_in_the_example(part: type[BaseModel]) -> None:
    internal = {location[-1] for location in NOT_IN_FILE}
    for name, field in part.model_fields.items():
        assert field.description, name
        if name not in internal:
            assert re.search(rf"^(#-? *| *)(- )?{name}:", EXAMPLE.read_text(), re.MULTILINE), name


def test_the_example_loads(checkout: Path) -> None:
    settings = load(checkout, {}, {})
    assert [version.name for version in settings.models[0].versions] == ["v1", "v2"]


def test_values_said_to_be_defaults_are_the_defaults(checkout: Path) -> None:
    example: dict[str, Any] = load(checkout, {}, {}).model_dump(exclude={"models", "path"})
    assert example == Settings().model_dump(exclude={"models", "path"})
