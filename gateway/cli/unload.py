"""`gateway unload`: serve a version no longer; its engines end with their last answer."""

import argparse
from urllib.parse import quote

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("unload", help="serve a version no longer; its engines end with their last answer")
    parser.add_argument("model", help="the public name")
    parser.add_argument("version", help="the version, which must have no share of the traffic any more")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Unload it."""
    name = port.ask("DELETE", f"models/{quote(args.model)}/versions/{quote(args.version, safe='')}")["id"]
    print(f"{name} is served no longer; its engines end with their last answer")
    return 0
