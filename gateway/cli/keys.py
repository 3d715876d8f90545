"""`gateway keys`: the keys that clients may show; list, make and remove them."""

import argparse
import sys
from urllib.parse import quote

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("keys", help="list, make and remove the keys that clients may show")
    acts = parser.add_subparsers(dest="act", metavar="list|add|remove", required=True)
    add_flags(acts.add_parser("list", help="the keys that are known"), _list)
    adding = acts.add_parser("add", help="make a key and print it; nobody is shown it again")
    adding.add_argument("name", help="for logs and counts")
    adding.add_argument("--no-pin", action="store_true", help="its requests may not choose their version")
    add_flags(adding, _add)
    removing = acts.add_parser("remove", help="let nobody in by it any more")
    removing.add_argument("name")
    add_flags(removing, _remove)


def _list(port: AdminPort, args: argparse.Namespace) -> int:
    for key in port.ask("GET", "keys")["keys"]:
        print(f"{key['name']:<30} {key['source']:<6} {'' if key['may_pin'] else 'may not choose a version'}".rstrip())
    return 0


def _add(port: AdminPort, args: argparse.Namespace) -> int:
    """The key alone goes to stdout, for scripts."""
    made = port.ask("POST", "keys", {"name": args.name, "may_pin": not args.no_pin})
    print(f"the key {made['name']} is made; it is not shown again:", file=sys.stderr)
    print(made["key"])
    return 0


def _remove(port: AdminPort, args: argparse.Namespace) -> int:
    port.ask("DELETE", f"keys/{quote(args.name, safe='')}")
    print(f"the key {args.name} is removed")
    return 0
