"""Turns validation errors of the settings tree into sentences for the person who wrote the settings."""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gateway.settings.problems import Location
from gateway.settings.tree import NOT_IN_FILE, Settings

_SECRET_KEYS = ("env", "key", "keys")


def explain(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """The place and the sentence for every single error; values of secrets are never shown."""
    for detail in error.errors(include_url=False):
        location = tuple(part for part in detail["loc"] if part != "[key]")
        match detail["type"]:
            case "extra_forbidden":
                message = _explain_unknown(location)
            case "missing":
                message = "is missing"
            case "value_error":
                message = str(detail["ctx"]["error"])
            case _:
                message = _lower_first(detail["msg"].replace("Input should", "should")) + _show(detail)
        yield location, message


def _explain_unknown(location: Location) -> str:
    known = [name for name in list_keys(location[:-1]) if (*location[:-1], name) not in NOT_IN_FILE]
    close = get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return f"is an unknown key; {hint}"


def list_keys(location: Location) -> list[str]:
    """The keys that the section of the tree at `location` knows."""
    model: Any = Settings
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(iter(_find_models(annotation)))
    return list(model.model_fields)


def _find_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _find_models(argument)


def _show(detail: Any) -> str:
    if any(part in _SECRET_KEYS for part in detail["loc"]):
        return ""
    value = detail["input"]
    text = json.dumps(value, default=str, ensure_ascii=False)
    return f", got {text if len(text) <= 60 else text[:57] + '...'}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
