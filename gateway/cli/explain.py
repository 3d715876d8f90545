"""`gateway explain`: which version and replica a request would get, and why."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("explain", help="say which version and replica a request would get, and why")
    parser.add_argument("model", help="the name that the request asks for, as m or m:v")
    parser.add_argument("--user", help="the field `user`")
    parser.add_argument("--header", action="append", default=[], type=_read_header, metavar="'NAME: VALUE'")
    parser.add_argument("--client-ip", default="127.0.0.1", help="where it comes from (default: %(default)s)")
    parser.add_argument("--caller", help="the name of the key that it shows")
    parser.add_argument("--body", type=Path, metavar="FILE", help="the whole request as JSON; - is stdin")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Print what would happen; exit code 1 if the request would be refused."""
    body: dict[str, Any] = {"model": args.model}
    if args.body is not None:
        try:
            text = sys.stdin.read() if str(args.body) == "-" else args.body.read_text()
            given = json.loads(text)
            if not isinstance(given, dict):
                raise TypeError("a request is a JSON object")
            body = given | body
        except (OSError, ValueError, TypeError, RecursionError) as error:
            print(f"gateway explain: {args.body} cannot be read: {error}", file=sys.stderr)
            return 2
    if args.user is not None:
        body["user"] = args.user
    asked = {"body": body, "headers": dict(args.header), "client_ip": args.client_ip, "caller": args.caller}
    told = port.ask("POST", "explain", asked)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    print(f"version  {told['version']}: {told['why']}")
    if "point" in told:
        shares = ", ".join(f"{name} {share:.4g}" for name, share in told["split"].items())
        print(f"point    {told['point']:.6f} of {shares}")
    replicas = told["replica"] or " or ".join(told["replicas"]) or "none"
    print(f"replica  {replicas}: {told['replica_why']}")
    return 0


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"should be 'NAME: VALUE', got {text!r}")
    return name.strip(), value.strip()
