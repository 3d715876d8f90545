"""`gateway models`: models, versions and engines as they are; a live view while engines load."""

import argparse
import json
import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.cli.admin import AdminPort, add_flags

_STYLES = {
    "ready": "green", "failed": "bold red", "starting": "yellow", "warming": "yellow", "draining": "magenta",
    "asleep": "dim", "stopped": "dim",
}  # fmt: skip
_SETTLED = ("ready", "asleep", "failed", "stopped")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("models", help="show models, versions and the state of their engines")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    parser.add_argument("--watch", action="store_true", help="go on showing changes until interrupted")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Show once, or live: on a terminal until every engine is ready or failed. Exit code 1 if one has failed."""
    console = make_console()
    models = _fetch(port)
    if args.json:
        print(json.dumps(models, indent=2))
    elif args.watch or (console.is_terminal and not _is_settled(models)):
        models = show_live(console, port, models, is_endless=args.watch)
    else:
        console.print(render(models, has_bars=False))
    return 1 if any(engine["state"] == "failed" for engine in _engines(models)) else 0


def make_console() -> Console:
    """Where the table goes. A pipe has no width of its own; its lines are not to be folded."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 400)


def render(models: list[dict[str, Any]], *, has_bars: bool) -> RenderableType:
    """The table of engines, and below it what each failed one said last."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("MODEL", "VERSION", "SHARE", "ENGINE", "STATE", "SINCE", "RESTARTS", "DETAIL"):
        table.add_column(title, no_wrap=title != "DETAIL", overflow="fold")
    notes: list[RenderableType] = []
    for model in models:
        if model.get("rollout"):
            notes.append(Text(f"rollout {model['rollout']} moves the traffic of {model['name']}: gateway rollout show"))
        if (shadow := model.get("shadow")) and shadow["percent"]:
            percent, version = f"{shadow['percent']:g} %", shadow["version"]
            notes.append(Text(f"{percent} of the requests to {model['name']} are copied to {version}"))
        for version in model["versions"]:
            if version.get("is_out") and version["share"]:
                notes.append(Text(f"others stand in for {model['name']}:{version['name']}, which cannot answer now"))
            for engine in version["engines"]:
                table.add_row(
                    model["name"], version["name"], f"{version['share']:.0%}", engine["name"].rpartition("#")[2],
                    Text(engine["state"], _STYLES.get(engine["state"], "")), _age(engine["seconds_in_state"]),
                    str(engine["restarts"]), _detail(engine, version, has_bars=has_bars),
                )  # fmt: skip
                if engine["state"] == "failed" and engine["tail"]:
                    notes.append(Text(f"\nlast lines of {engine['name']}:", "bold"))
                    notes += [Text(f"  {line}", "dim") for line in engine["tail"]]
    return Group(table, *notes)


def _detail(engine: dict[str, Any], version: dict[str, Any], *, has_bars: bool) -> RenderableType:
    if engine["state"] == "ready":
        length = f"context {engine['max_model_len']}" if engine["max_model_len"] else ""
        adapters = f"adapters {', '.join(version['adapters'])}" if version["adapters"] else ""
        digest = f"digest {engine['digests']['']:.12}" if engine["digests"].get("") else ""
        # Of a run's folder, `RUN@best`, the checkpoint that was chosen.
        loaded = engine["checkpoint"] or ""
        chosen = loaded.rpartition("/")[2] if loaded != version["checkpoint"] else ""
        guesses = engine["note"] or _tell_guesses(engine["drafts"])
        took = f"ready in {engine['ready_after_s']:.1f} s" if engine["ready_after_s"] else ""
        return Text(", ".join(part for part in (took, length, guesses, adapters, chosen, digest) if part))
    if engine["state"] == "failed":
        again = engine["next_try_at"]
        wait = f" (next try in {max(0, again - time.time()):.0f} s)" if again else ""
        return Text(f"{engine['reason']}{wait}", "red")
    if engine["state"] == "asleep":
        return Text("the next request starts it")
    if has_bars and engine["progress"] is not None:
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=1.0, completed=engine["progress"], width=20), Text(engine["phase"]))
        return row
    percent = f"{engine['progress']:.0%} " if engine["progress"] is not None else ""
    retried = f" (after: {engine['reason']})" if engine["reason"] else ""
    return Text(f"{percent}{engine['phase']}{retried}")


def _tell_guesses(drafts: dict[str, Any] | None) -> str:
    if not drafts or not drafts["guessed"]:
        return ""
    return f"guesses {drafts['acceptance']:.0%} right, {drafts['tokens_per_step']:.2f} tokens a step"


def show_live(
    console: Console, port: AdminPort, models: list[dict[str, Any]], *, is_endless: bool
) -> list[dict[str, Any]]:
    """Show changes until every engine is ready or failed, or for ever; returns what was seen last."""
    has_bars = console.is_terminal
    with Live(render(models, has_bars=has_bars), console=console, auto_refresh=False) as live:
        while is_endless or not _is_settled(models):
            time.sleep(0.3)
            models = _fetch(port)
            live.update(render(models, has_bars=has_bars), refresh=True)
    return models


def _fetch(port: AdminPort) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = port.ask("GET", "models")["models"]
    return models


def _engines(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [engine for model in models for version in model["versions"] for engine in version["engines"]]


def _is_settled(models: list[dict[str, Any]]) -> bool:
    return all(engine["state"] in _SETTLED for engine in _engines(models))


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
