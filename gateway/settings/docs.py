"""The settings page, generated from the tree so that no option, type or default is written down twice.

`python -m gateway.settings.docs > docs/settings.md` writes it.
"""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from gateway.settings.checks import NOT_YET
from gateway.settings.problems import Location
from gateway.settings.sources import PREFIX
from gateway.settings.tree import NOT_IN_FILE, Settings

_HEAD = f"""# Settings

One YAML file, given with `gateway serve --config FILE`; `examples/gateway.yaml` shows every key. A flag wins over an
environment variable, that over the file, that over the default. Every key of a section, but not of the lists `models`
and `auth.keys`, has a variable called `{PREFIX}_SECTION_KEY`, as in `{PREFIX}_SERVER_PORT`. Unknown keys, bad values
and missing folders stop the start, all reported together with file and line. A key without a value counts as absent.

This page is generated from the program: `python -m gateway.settings.docs > docs/settings.md`.
"""

_NOT_YET_HEAD = """## Not in this release

These are known by name and refused at the start, so that nothing you ask for is silently ignored.
"""

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    JsonValue: "anything",
}


def render() -> str:
    """The whole page as Markdown."""
    not_yet = [f"- `{key.replace('.*', '[]', 2)}`: {message}" for key, _, message in NOT_YET]
    return "\n".join([_HEAD, *_render_section(Settings, ()), _NOT_YET_HEAD, *not_yet, ""])


def _render_section(section: type[BaseModel], place: Location) -> Iterator[str]:
    fields = {name: field for name, field in section.model_fields.items() if (*place, name) not in NOT_IN_FILE}
    parts = {name: _find_section(field.annotation) for name, field in fields.items()}
    if place:
        yield f"## `{'.'.join(map(str, place))}`\n"
        yield f"{section.__doc__}\n"
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        for name, field in fields.items():
            cells = (f"`{name}`", _name_type(field.annotation), _show_default(name, field), str(field.description))
            yield f"| {' | '.join(cells)} |"
        yield ""
    for name, part in parts.items():
        if part:
            suffix = {tuple: "[]", dict: ".NAME"}.get(get_origin(fields[name].annotation), "")  # type: ignore[arg-type]
            yield from _render_section(part, (*place, name + suffix))


def _find_section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_find_section(argument) for argument in get_args(annotation))
    return next((section for section in found if section), None)


def _name_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return _name_type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_name_type(argument) for argument in arguments if argument is not types.NoneType)
    if origin is tuple:
        return f"list of {_name_type(arguments[0])}"
    if origin is dict:
        return f"map of names to {_name_type(arguments[1])}"
    return "section"


def _show_default(name: str, field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is None or value in ({}, ()) or isinstance(value, BaseModel):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_bytes"):
        return f"`{value // 2**20}MiB`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
