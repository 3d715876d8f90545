"""`gateway fetch`: a checkpoint from elsewhere into the cache. Prints where it lies."""

import argparse
import sys

from gateway.cli.fetched import NoFolder, find_folder
from gateway.settings import is_address


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    summary = "fetch a checkpoint from hf://, s3:// or gs:// into the cache and print its folder"
    parser = subparsers.add_parser("fetch", help=summary, description=summary)
    parser.add_argument(
        "source", metavar="SOURCE", help="hf://ORG/NAME[@REVISION][/FOLDER], s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
    )
    parser.add_argument("--cache-dir", metavar="DIR", help="the cache (default: GATEWAY_CACHE_DIR or ~/.cache/gateway)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch. Exit code 0 if it is there, 1 if it cannot be had, 2 for what is no address."""
    if not is_address(args.source):
        print(f"gateway fetch: {args.source!r} is no address: give hf://ORG/NAME or the like", file=sys.stderr)
        return 2
    try:
        print(find_folder(args.source, args.cache_dir))
    except NoFolder as missing:
        print(f"gateway fetch: {missing}", file=sys.stderr)
        return missing.code
    return 0
