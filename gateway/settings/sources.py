"""What flags and environment variables say, as values for the settings tree and the place each came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from gateway.settings.problems import Location, Problem
from gateway.settings.tree import NOT_IN_FILE, AdminSettings, Settings

PREFIX = "GATEWAY"

# Kubernetes puts variables like these into every pod, for each Service: one called "gateway-server" sets
# GATEWAY_SERVER_PORT=tcp://10.0.0.1:8000.
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*", re.IGNORECASE)
_SERVICE_VARIABLE = re.compile(r".*_(SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP|SCTP).*)")


@dataclass(frozen=True, slots=True)
class Source:
    """Values by (section, field), the place of each for messages, and names that mean nothing."""

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    places: dict[Location, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def list_scalars() -> dict[tuple[str, str], str]:
    """Every option that a variable can set, by (section, field), with the variable's name."""
    return {
        (section, name): f"{PREFIX}_{section}_{name}".upper()
        for section, info in Settings.model_fields.items()
        for name in getattr(info.annotation, "model_fields", {})
        if (section, name) not in NOT_IN_FILE
    }


def read_environment(environ: Mapping[str, str], key_env: str) -> Source:
    """Read `GATEWAY_SECTION_FIELD` variables; empty ones and addresses set by Kubernetes count as absent.

    A name that nearly is one of ours is a problem; `key_env`, which holds the admin key, never is.
    """
    variables = list_scalars()
    values = {
        location: environ[name]
        for location, name in variables.items()
        if environ.get(name) and not _SERVICE_ADDRESS.fullmatch(environ[name])
    }
    strangers = [
        name
        for name, value in sorted(environ.items())
        if name.startswith(f"{PREFIX}_")
        and name not in (key_env, AdminSettings().key_env, *variables.values())
        and not _SERVICE_VARIABLE.fullmatch(name)
        and not _SERVICE_ADDRESS.fullmatch(value)
    ]
    problems = tuple(
        Problem("environment", name, f"is unknown; did you mean {close}?")
        for name in strangers
        for close in get_close_matches(name, variables.values(), n=1, cutoff=0.87)
    )
    places: dict[Location, str] = {location: f"environment {variables[location]}" for location in values}
    return Source(values, places, problems)


def read_flags(flags: Mapping[str, Any]) -> Source:
    """Read flags by dotted key (`server.port`); None counts as not given."""
    variables = list_scalars()
    values: dict[tuple[str, str], Any] = {}
    problems = []
    for key, value in flags.items():
        section, _, name = key.partition(".")
        if (section, name) not in variables:
            problems.append(Problem("flag", key, "is unknown"))
        elif value is not None:
            values[section, name] = value
    return Source(values, dict.fromkeys(values, "flag"), tuple(problems))
