"""`gateway experiment`: what is known of a model's versions, each compared with the baseline."""

import argparse
import json
from typing import Any
from urllib.parse import quote

from rich.table import Table

from gateway.cli.admin import AdminPort, add_flags
from gateway.cli.models import make_console
from gateway.cli.rollout import show_wait


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("experiment", help="compare a model's versions by what was measured of them")
    parser.add_argument("model", help="the public name")
    parser.add_argument("--baseline", metavar="VERSION", help="compare with this one (default: the largest)")
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="how often bounds may be wrong (default: %(default)s)"
    )
    parser.add_argument("--stage", type=int, metavar="N", help="an earlier stage: the shares of then")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Print what each version has done, and how the others compare."""
    query = {"baseline": args.baseline, "alpha": str(args.alpha), "stage": args.stage}
    given = {name: str(value) for name, value in query.items() if value is not None}
    shown = port.ask("GET", f"models/{quote(args.model)}/experiment", query=given)
    if args.json:
        print(json.dumps(shown, indent=2))
        return 0
    console = make_console()
    console.print(_list_versions(shown))
    if shown["sample_ratio"]["alarm"]:
        console.print("[bold red]The versions have not got the users that their shares say: find out why first.[/]")
    for version, comparisons in shown["comparisons"].items():
        console.print(f"\n[bold]{version}[/] against {shown['baseline']}, bounds that hold whenever one looks:")
        console.print(_compare(comparisons))
    return 0


def _list_versions(shown: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("VERSION", "SHARE", "USERS", "REQUESTS", "ERRORS"):
        table.add_column(title, justify="left" if title == "VERSION" else "right")
    for name, one in shown["versions"].items():
        table.add_row(name, f"{one['share']:.4g}", f"{one['users']:,}", f"{one['requests']:,}", f"{one['errors']:,}")
    return table


def _compare(comparisons: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("METRIC", "CANDIDATE", "BASELINE", "CHANGE", "BOUNDS", "USERS", "VERDICT", "DECISION IN"):
        table.add_column(title)
    for one in comparisons:
        name = f"{one['metric']} p{one['quantile'] * 100:g}" if "quantile" in one else one["metric"]
        change, low, high = (_show(one[key], one["compared"]) for key in ("estimate", "low", "high"))
        values = ("?" if one[key] is None else f"{one[key]:.4g}" for key in ("candidate", "baseline"))
        users = f"{one['users']['candidate']:,} / {one['users']['baseline']:,}"
        wait = show_wait(one["seconds_to_decision"]) if one["verdict"] == "open" else "-"
        table.add_row(name, *values, change, f"{low} .. {high}", users, one["verdict"], wait)
    return table


def _show(change: float | None, compared: str) -> str:
    """A change, `?` where it is not known."""
    if change is None:
        return "?"
    return f"{change * 100:+.4g} %" if compared == "ratio" else f"{change:+.4g}"
