"""`gateway load`: load one more version while the gateway serves, and wait until it does or cannot."""

import argparse
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.live import Live

from gateway.cli.admin import AdminFailed, AdminPort, add_flags
from gateway.cli.models import make_console, render

_LOOK_EVERY_S = 0.3


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("load", help="load one more version of a model while the gateway serves")
    parser.add_argument("model", help="the public name")
    parser.add_argument("version", help="the name of the new version")
    parser.add_argument("checkpoint", type=Path, metavar="DIR", help="its checkpoint, on the gateway's machine")
    parser.add_argument("--replaces", metavar="VERSION", help="take its share when ready, and unload it")
    parser.add_argument("--no-wait", action="store_true", help="return at once")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Load it, and show its engines until they are ready. Exit code 1 if one of them failed."""
    asked = {"name": args.version, "checkpoint": str(args.checkpoint.expanduser().absolute())}
    asked |= {"replaces": args.replaces} if args.replaces else {}
    name = port.ask("POST", f"models/{quote(args.model)}/versions", asked)["id"]
    if args.no_wait:
        print(f"{name} is being loaded")
        return 0
    return _wait(port, args.model, args.version)


def _wait(port: AdminPort, model: str, version: str) -> int:
    console = make_console()
    was_there = False
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not _is_settled(found := _look(port, model, version)):
            if was_there and not _list_states(found):
                raise AdminFailed(f"{model}:{version} was unloaded before it was ready")
            was_there |= bool(_list_states(found))
            live.update(render(found, has_bars=console.is_terminal), refresh=True)
            time.sleep(_LOOK_EVERY_S)
    console.print(render(found, has_bars=False))
    if "failed" not in _list_states(found):
        return 0
    print(f"{model}:{version} gets no traffic, and stays to be looked at: gateway unload {model} {version}")
    return 1


def _look(port: AdminPort, model: str, version: str) -> list[dict[str, Any]]:
    """The model with this version alone."""
    models = [one for one in port.ask("GET", "models")["models"] if one["name"] == model]
    return [one | {"versions": [own for own in one["versions"] if own["name"] == version]} for one in models]


def _is_settled(models: list[dict[str, Any]]) -> bool:
    """True once all of its engines are up, or one has failed."""
    states = _list_states(models)
    return "failed" in states or (bool(states) and set(states) <= {"ready", "asleep"})


def _list_states(models: list[dict[str, Any]]) -> list[str]:
    return [engine["state"] for model in models for version in model["versions"] for engine in version["engines"]]
