"""`gateway events`: what was changed and decided, newest first."""

import argparse
import json
import time
from typing import Any

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("events", help="show what was changed and decided, newest first")
    parser.add_argument("--model", help="of one model only")
    parser.add_argument("-n", "--number", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer, with all details")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Print one line each."""
    query = {"limit": str(args.number)} | ({"model": args.model} if args.model else {})
    events: list[dict[str, Any]] = port.ask("GET", "events", query=query)["events"]
    if args.json:
        print(json.dumps(events, indent=2))
        return 0
    for event in events:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
        print(f"{when}  {event['kind']:<18} {event['text']}")
    return 0
