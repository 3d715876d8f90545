"""`gateway split`: show or change how a model's traffic is shared among its versions."""

import argparse
from math import isfinite
from urllib.parse import quote

from gateway.cli.admin import AdminPort, add_flags


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("split", help="show or change how a model's traffic is shared among its versions")
    parser.add_argument("model", help="the public name")
    parser.add_argument(
        "weights", nargs="*", type=_read_weight, metavar="VERSION=WEIGHT",
        help="new shares, integers or fractions; versions that are not named get none",
    )  # fmt: skip
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Print the shares as they are then."""
    path = f"models/{quote(args.model)}/split"
    answer = port.ask("PUT", path, dict(args.weights)) if args.weights else port.ask("GET", path)
    for version, share in answer["split"].items():
        print(f"{version}  {share:.4g}")
    return 0


def _read_weight(text: str) -> tuple[str, float]:
    version, equals, weight = text.rpartition("=")
    try:
        if not version or not equals:
            raise ValueError
        if isfinite(share := float(weight)):
            return version, share
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"should be VERSION=WEIGHT, as v2=10, got {text!r}")
