"""`gateway rollout`: move a model's traffic to a candidate in steps, by evidence; watch it, or take it in hand."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.console import Console
from rich.table import Table

from gateway.cli.admin import AdminFailed, AdminPort, add_flags
from gateway.cli.models import make_console

_LOOK_EVERY_S = 1.0
_ACTS = {
    "pause": "go no step further, but back if a guard is violated",
    "resume": "go on after a pause",
    "abort": "give the shares back that the versions had before",
    "promote": "give the candidate all of the traffic now, whatever is known",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("rollout", help="move a model's traffic to a new version in steps, by evidence")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    start = acts.add_parser("start", help="begin one")
    start.add_argument("model", nargs="?", help="the public name")
    start.add_argument("candidate", nargs="?", help="the version that is to get the traffic")
    start.add_argument("--file", type=Path, metavar="FILE", help="the plan in YAML, - is stdin; flags win over it")
    start.add_argument("--checkpoint", metavar="DIR", help="load the candidate from there first")
    start.add_argument("--baseline", metavar="VERSION", help="whose traffic it is (default: who has the most)")
    start.add_argument("--steps", type=_read_steps, metavar="PERCENTS", help="default: 1,5,25,50,100")
    start.add_argument("--min-time", type=_read_number, metavar="SECONDS", help="each step's least (default: 300)")
    start.add_argument("--min-users", type=int, metavar="N", help="of the candidate in each step (default: 200)")
    start.add_argument(
        "--guard", action="append", type=_read_guard, metavar="METRIC=MARGIN",
        help="by how much it may be worse (default: error_rate=0.005 and ttft_s=0.1, a tenth; what is given takes "
        "their place); may be given again",
    )  # fmt: skip
    start.add_argument(
        "--goal", action="append", type=_read_guard, metavar="METRIC=MARGIN",
        help="by how much it must be better, 0 for at all; may be given again",
    )  # fmt: skip
    start.add_argument("--alpha", type=_read_number, help="how often it may be wrong (default: 0.05)")
    start.add_argument("--wait", action="store_true", help="watch it to its end; exit code 1 unless it is promoted")
    add_flags(start, _start)
    listed = acts.add_parser("list", help="list those of a model, the latest first")
    listed.add_argument("model", help="the public name")
    listed.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(listed, _list)
    _add_named(acts, "show", "how its guards stand, and how long it may take", _show, has_json=True)
    _add_named(acts, "wait", "watch one to its end; exit code 1 unless it is promoted", _wait_for)
    for act, summary in _ACTS.items():
        _add_named(acts, act, summary, _act).set_defaults(act=act)


def _add_named(
    acts: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    run: Callable[[AdminPort, argparse.Namespace], int],
    *,
    has_json: bool = False,
) -> argparse.ArgumentParser:
    parser = acts.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("model", help="the public name")
    parser.add_argument("id", nargs="?", help="which rollout (default: the model's latest)")
    if has_json:
        parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(parser, run)
    return parser


def _start(port: AdminPort, args: argparse.Namespace) -> int:
    try:
        plan = _read_plan(args)
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"gateway rollout: {error}", file=sys.stderr)
        return 2
    model = str(plan.pop("model"))
    name = port.ask("POST", f"models/{quote(model)}/rollouts", plan)["id"]
    print(f"rollout {name} of {model} has begun")
    return _watch(port, model, name) if args.wait else 0


def _read_plan(args: argparse.Namespace) -> dict[str, Any]:
    """What the file says, and over it what the words of the command say."""
    plan: dict[str, Any] = {}
    if args.file is not None:
        text = sys.stdin.read() if str(args.file) == "-" else args.file.read_text()
        read = yaml.safe_load(text)
        if not isinstance(read, dict):
            raise ValueError(f"{args.file} should hold a plan, such as `candidate: v2`")
        plan = read
    said = {
        "model": args.model, "candidate": args.candidate, "baseline": args.baseline, "steps": args.steps,
        "min_time_s": args.min_time, "min_users": args.min_users, "alpha": args.alpha,
        "guards": args.guard and dict(args.guard), "goal": args.goal and dict(args.goal),
    }  # fmt: skip
    found = plan | {name: value for name, value in said.items() if value is not None}
    if args.checkpoint is not None and isinstance(found.get("candidate"), str):
        place = args.checkpoint if "://" in args.checkpoint else str(Path(args.checkpoint).expanduser().absolute())
        found["candidate"] = {"name": found["candidate"], "checkpoint": place}
    missing = [name for name in ("model", "candidate") if name not in found]
    if missing:
        raise ValueError(f"say which {missing[0]}: `gateway rollout start MODEL CANDIDATE`, or in the file")
    return found


def _list(port: AdminPort, args: argparse.Namespace) -> int:
    rollouts = port.ask("GET", f"models/{quote(args.model)}/rollouts")["rollouts"]
    if args.json:
        print(json.dumps(rollouts, indent=2))
        return 0
    table = _make_table("ID", "STATE", "CANDIDATE", "BASELINE", "SHARE", "BEGAN", "REASON")
    for one in rollouts:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["began"]))
        plan = one["plan"]
        row = (one["id"], one["state"], plan["candidate"], plan["baseline"], f"{one['percent']:g} %", began)
        table.add_row(*row, one["reason"])
    make_console().print(table)
    return 0


def _show(port: AdminPort, args: argparse.Namespace) -> int:
    shown = port.ask("GET", _find_path(port, args))
    if args.json:
        print(json.dumps(shown, indent=2))
        return 0
    print_rollout(make_console(), shown)
    return 0


def _wait_for(port: AdminPort, args: argparse.Namespace) -> int:
    return _watch(port, args.model, _find_path(port, args).rpartition("/")[2])


def _act(port: AdminPort, args: argparse.Namespace) -> int:
    shown = port.ask("POST", f"{_find_path(port, args)}/{args.act}")
    print(_say_state(shown))
    return 0


def _find_path(port: AdminPort, args: argparse.Namespace) -> str:
    """Of the rollout that is meant."""
    path = f"models/{quote(args.model)}/rollouts"
    if args.id is not None:
        return f"{path}/{quote(args.id)}"
    rollouts = port.ask("GET", path)["rollouts"]
    if not rollouts:
        raise AdminFailed(f"{args.model} has had no rollout")
    return f"{path}/{rollouts[0]['id']}"


def _watch(port: AdminPort, model: str, name: str) -> int:
    """Print each step as it comes."""
    said = None
    while True:
        shown = port.ask_patiently(f"models/{quote(model)}/rollouts/{quote(name)}")
        now = _say_state(shown)
        if now != said:
            print(f"{time.strftime('%H:%M:%S')}  {now}", flush=True)
            said = now
        if shown["ended"] is not None:
            return 0 if shown["state"] == "promoted" else 1
        time.sleep(_LOOK_EVERY_S)


def _say_state(shown: dict[str, Any]) -> str:
    """Where a rollout is, without what changes from second to second."""
    if "plan" not in shown:  # it could not be read
        return f"{shown['id']} of {shown['model']} is {shown['state']}"
    plan = shown["plan"]
    step = f", step {shown['step'] + 1} of {len(plan['steps'])}" if shown["ended"] is None else ""
    reason = f": {shown['reason']}" if shown["ended"] is not None else ""
    return (
        f"{shown['id']} of {shown['model']} is {shown['state']}{step}, "
        f"{plan['candidate']} has {shown['percent']:.4g} %{reason}"
    )


def print_rollout(console: Console, shown: dict[str, Any]) -> None:
    """A rollout for people: where it is and why, and how each guard and goal stands."""
    console.print(_say_state(shown))
    if shown["ended"] is None and shown["reason"]:
        console.print(shown["reason"])
    if not shown["findings"]:
        return
    waits = shown.get("seconds_to_decision", {})
    table = _make_table("METRIC", "ROLE", "VERDICT", "FOUND", "USERS", "DECISION IN")
    for one in shown["findings"]:
        users = f"{one['users']['candidate']:,} / {one['users']['baseline']:,}"
        wait = show_wait(waits.get(one["metric"])) if one["verdict"] == "open" else "-"
        found = one["text"].removeprefix(one["metric"]).lstrip(": ")
        table.add_row(one["metric"], "goal" if one["is_goal"] else "guard", one["verdict"], found, users, wait)
    console.print(table)


def show_wait(seconds: float | None) -> str:
    """How long something may take, in words."""
    if seconds is None:
        return "not in sight"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, math.ceil(seconds))} s"


def _make_table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _read_steps(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"should be percents, as 5,50,100, got {text!r}") from None


def _read_guard(text: str) -> tuple[str, dict[str, float]]:
    metric, equals, margin = text.partition("=")
    if not metric or not equals:
        raise argparse.ArgumentTypeError(f"should be METRIC=MARGIN, as error_rate=0.01, got {text!r}")
    return metric, {"margin": _read_number(margin)}


def _read_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"should be a number, got {text!r}")
    return number
