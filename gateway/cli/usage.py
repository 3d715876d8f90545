"""`gateway usage`: what each caller has used of each version, by day."""

import argparse
import json
from typing import Any

from rich.table import Table

from gateway.cli.admin import AdminPort, add_flags
from gateway.cli.models import make_console


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("usage", help="show what each caller has used of each version, by day")
    parser.add_argument("--since", metavar="DAY", help="from this day on, as 2026-11-26 (UTC)")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Print a table."""
    usage: list[dict[str, Any]] = port.ask("GET", "usage", query={"since": args.since} if args.since else {})["usage"]
    if args.json:
        print(json.dumps(usage, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("DAY", "KEY", "VERSION", "REQUESTS", "FAILED", "TOKENS IN", "TOKENS OUT", "COST"):
        table.add_column(title, justify="left" if title in ("DAY", "KEY", "VERSION") else "right")
    for one in usage:
        table.add_row(
            one["day"], one["caller"] or "-", f"{one['model']}:{one['version']}", f"{one['requests']:,}",
            f"{one['failed']:,}", f"{one['tokens_in'] + one['estimated_in']:,}",
            f"{one['tokens_out'] + one['estimated_out']:,}", f"{one['cost']:,.4f}" if one["cost"] else "-",
        )  # fmt: skip
    make_console().print(table)
    return 0
