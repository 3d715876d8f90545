"""YAML text to plain data, remembering the line of every key. Knows nothing of what the keys mean."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.settings.problems import Location, Problem, format_key


class _Loader(yaml.SafeLoader):
    """The safe loader with two surprises taken out: `1e-3` is a number, and a date stays the text it was."""


_FLOAT = re.compile(
    r"(?:[-+]?(?:\d[\d_]*\.[\d_]*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN))$"
)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _FLOAT if tag.endswith(":float") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """One file as read: its data, the line of every place in it, and what was wrong with it as YAML."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[Location, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def find_line(self, location: Location) -> str:
        """Where `location` stands, as `file:line`; for a place the file does not have, its nearest parent."""
        for end in range(len(location), 0, -1):
            if line := self.lines.get(location[:end]):
                return f"{self.name}:{line}"
        return self.name


def parse(text: str, name: str) -> Document:
    """Read YAML text; never raises for bad text, the document says what is wrong."""
    try:
        return _parse(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.problem, error.context) if part)
        return _refuse(name, mark.line + 1 if mark else 1, f"not valid YAML: {message}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _refuse(name, line, f"not valid YAML: character {error.character!r} is not allowed")
    except (ValueError, RecursionError) as error:
        return _refuse(name, 1, f"not valid YAML: {error}")


def _parse(text: str, name: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(name)
        duplicates = tuple(_find_duplicates(node, name))
        data = loader.construct_document(node)
        if data is None:
            return Document(name)
        if not isinstance(data, dict):
            return _refuse(name, node.start_mark.line + 1, "should be keys with values, like `server: {port: 8000}`")
        # Constructing has put merged keys (`<<`) in place, so the lines are looked up only now.
        return Document(name, data, dict(_walk(node, (), ())), duplicates)
    finally:
        loader.dispose()


def _refuse(name: str, line: int, message: str) -> Document:
    return Document(name, problems=(Problem(f"{name}:{line}", "", message),))


def _find_duplicates(root: yaml.Node, name: str) -> Iterator[Problem]:
    first_lines: dict[Location, int] = {}
    repeated: Location | None = None
    for location, line in _walk(root, (), ()):
        if repeated and location[: len(repeated)] == repeated and len(location) > len(repeated):
            continue
        repeated = None
        if location in first_lines:
            repeated = location
            message = f"is given twice, first on line {first_lines[location]}"
            yield Problem(f"{name}:{line}", format_key(location), message)
        first_lines.setdefault(location, line)


def _walk(node: yaml.Node, location: Location, parents: tuple[yaml.Node, ...]) -> Iterator[tuple[Location, int]]:
    """Every place below `node` with its line; `parents` ends the walk where an alias points back at itself."""
    if node in parents:
        return
    parents = (*parents, node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                place = (*location, key.value)
                yield place, key.start_mark.line + 1
                yield from _walk(value, place, parents)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*location, index), item.start_mark.line + 1
            yield from _walk(item, (*location, index), parents)
