"""Reads settings: flag over environment over file over default, every problem reported together.

The only place that reads environment variables. Creates nothing on disk.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from gateway.settings.addresses import is_address, parse_address
from gateway.settings.checks import find_problems
from gateway.settings.lines import Document, parse
from gateway.settings.problems import Location, Problem, SettingsError, format_key
from gateway.settings.sources import Source, read_environment, read_flags
from gateway.settings.tree import NOT_IN_FILE, AdminSettings, Settings, VersionSettings
from gateway.settings.wording import explain

_DEMO = Path(__file__).parent.parent / "demo" / "gateway.yaml"


def load(
    path: Path | None, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings file at `path`, or none, under flags (dotted keys; None counts as not given) and variables.

    Folders in the file are relative to the file, others to the working folder. Raises SettingsError.
    """
    if path is None:
        return _build(Document("settings"), None, Path.cwd(), flags, environ)
    document = _read(path)
    if not document.problems and not document.data.get("models"):
        problem = Problem(document.find_line(("models",)), "models", "name at least one model to serve")
        document = Document(document.name, document.data, document.lines, (problem,))
    return _build(document, path.absolute(), path.absolute().parent, flags, environ)


def for_checkpoint(
    checkpoint: str | Path,
    name: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings that serve one checkpoint, a folder or an address, as version `v1` of a model.

    It is called `name`, else like the folder. Raises SettingsError.
    """
    given = str(checkpoint)
    place = given if is_address(given) else _resolve(given, Path.cwd())
    model_name = name if name is not None else _clean_name(_find_name(place))
    data = {"models": [{"name": model_name, "versions": [{"name": "v1", "checkpoint": place}]}]}
    return _build(Document("command line", data), None, Path.cwd(), flags, environ)


def for_demo(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings of the shipped demo. Raises SettingsError."""
    return load(_DEMO, flags, environ)


def for_version(data: object) -> VersionSettings:
    """One more version, from data that came at run time; its folders must be absolute. Raises SettingsError."""
    document = Document("request", {"models": [{"name": "model", "versions": [data]}]})
    for holder, key in _find_folders(document.data):
        if isinstance(holder[key], str) and not re.match(r"/|~|[a-z0-9+]+://", holder[key]):
            raise SettingsError([Problem("", key, f"should begin at the root of the gateway's machine: {holder[key]}")])
    try:
        return _build(document, None, Path("/"), None, {}).models[0].versions[0]
    except SettingsError as error:
        start = "models[0].versions[0]"
        problems = [Problem("", one.key.removeprefix(start).lstrip("."), one.message) for one in error.problems]
        raise SettingsError(problems) from error


def _read(path: Path) -> Document:
    try:
        return parse(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        return Document(str(path), problems=(Problem(str(path), "", f"is not UTF-8 text: {error.reason}"),))
    except OSError as error:
        return Document(str(path), problems=(Problem(str(path), "", f"cannot be read: {error.strerror}"),))


def _build(
    document: Document,
    path: Path | None,
    base: Path,
    flags: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None,
) -> Settings:
    variables = os.environ if environ is None else environ
    data = {key: value for key, value in document.data.items() if value is not None}
    problems = list(document.problems) + list(_refuse_internal(data, document))
    places: dict[Location, str] = {}
    for source in (read_environment(variables, _find_key_env(data)), read_flags(flags or {})):
        problems += source.problems
        places |= _overlay(data, source)
    _resolve_folders(data, base)
    _add_admin_key(data, variables)
    findings: list[tuple[Location, str]] = []
    settings: Settings | None = None
    try:
        known = {key: value for key, value in (flags or {}).items() if value is not None}
        settings = Settings.model_validate(data | {"path": path, "flags": known})
    except ValidationError as error:
        findings += explain(error)
    findings += find_problems(data if settings is None else settings.model_dump())
    for location, message in findings:
        problems.append(Problem(places.get(location) or document.find_line(location), format_key(location), message))
    if problems or settings is None:
        raise SettingsError(sorted(dict.fromkeys(problems), key=_find_order))
    return settings


def _find_order(problem: Problem) -> tuple[str, int]:
    place, _, line = problem.where.rpartition(":")
    return (place, int(line)) if line.isdigit() else ("", 0)


def _refuse_internal(data: dict[str, Any], document: Document) -> Iterator[Problem]:
    """Take out of `data` what only the program may set, and say so."""
    for location in NOT_IN_FILE:
        parent: Any = data
        for part in location[:-1]:
            parent = parent.get(part)
        if isinstance(parent, dict) and location[-1] in parent:
            del parent[location[-1]]
            hint = "; put the key into the variable that key_env names" if location == ("admin", "key") else ""
            yield Problem(document.find_line(location), format_key(location), f"is not a key of this file{hint}")


def _overlay(data: dict[str, Any], source: Source) -> dict[Location, str]:
    for (section, field), value in source.values.items():
        if isinstance(data.setdefault(section, {}), dict):
            data[section] = data[section] | {field: value}
    return {location: source.places[location] for location in source.values}


def _find_key_env(data: dict[str, Any]) -> str:
    admin = data.get("admin")
    value = admin.get("key_env") if isinstance(admin, dict) else None
    return value if isinstance(value, str) else AdminSettings().key_env


def _add_admin_key(data: dict[str, Any], variables: Mapping[str, str]) -> None:
    key = variables.get(_find_key_env(data))
    if key and isinstance(data.setdefault("admin", {}), dict):
        data["admin"] = data["admin"] | {"key": SecretStr(key)}


def _resolve_folders(data: dict[str, Any], base: Path) -> None:
    for holder, key in _find_folders(data):
        folder = holder[key]
        if isinstance(folder, str) and folder and not is_address(folder):
            holder[key] = _resolve(folder, base)


def _resolve(folder: str, base: Path) -> str:
    try:
        path = Path(folder).expanduser()
    except RuntimeError:  # nobody knows where this home is: the missing folder is reported as written
        path = Path(folder)
    return os.path.normpath(base / path)


def _find_folders(data: Any) -> Iterator[tuple[dict[str, Any], str]]:
    engines = data.get("engines")
    if isinstance(engines, dict) and "runtime_dir" in engines:
        yield engines, "runtime_dir"
    cache = data.get("cache")
    if isinstance(cache, dict) and "dir" in cache:
        yield cache, "dir"
    server = data.get("server")
    if isinstance(server, dict) and "access_log_path" in server:
        yield server, "access_log_path"
    models = data.get("models")
    for model in models if isinstance(models, list) else []:
        versions = model.get("versions") if isinstance(model, dict) else None
        for version in versions if isinstance(versions, list) else []:
            if isinstance(version, dict):
                yield from ((version, "checkpoint"),) if "checkpoint" in version else ()
                smoke = version.get("smoke")
                for question in smoke if isinstance(smoke, list) else []:
                    yield from ((question, "image"),) if isinstance(question, dict) and "image" in question else ()
                speculative = version.get("speculative")
                if isinstance(speculative, dict) and _is_path(speculative.get("model")):
                    yield speculative, "model"
                adapters = version.get("adapters")
                yield from ((adapters, name) for name in adapters) if isinstance(adapters, dict) else ()


def _is_path(draft: object) -> bool:
    """A draft may also be a name that the engine looks up, as `org/model`."""
    return isinstance(draft, str) and draft.startswith(("/", "./", "../", "~"))


def _find_name(place: str) -> str:
    try:
        return parse_address(place).name
    except ValueError:  # a folder, or what the checks refuse
        return Path(place).name


def _clean_name(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._") or "model"
