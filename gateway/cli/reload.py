"""`gateway reload`: have the gateway read its settings file again, without dropping a request."""

import argparse

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("reload", help="have the gateway read its settings file again")
    parser.add_argument(
        "--reset", action="store_true", help="forget what was changed at run time: the file alone counts"
    )
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Say what comes of it."""
    told = port.ask("POST", "reload", {"reset": args.reset})
    awaited = told["loading"]
    print(f"the file counts when {', '.join(awaited)} can answer" if awaited else "the file is served as it stands now")
    for section in told["needs_restart"]:
        print(f"  at the next start only: {section}")
    for what in told["changed_at_run_time"]:
        print(f"  not the file's, since it was changed at run time (--reset): {what}")
    return 0
