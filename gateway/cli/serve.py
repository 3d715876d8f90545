"""`gateway serve`: read the settings, then run the gateway until it is told to stop."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gateway.settings import Settings, SettingsError, for_checkpoint, for_demo, load


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("serve", help="serve checkpoints: start engines and answer OpenAI clients")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--demo", action="store_true", help="serve the shipped demo model `shapes`, versions v1 and v2")
    source.add_argument("--config", type=Path, metavar="FILE", help="serve what this file says")
    source.add_argument(
        "--checkpoint", metavar="DIR", help="serve this one checkpoint: a folder, or hf://ORG/NAME and others"
    )
    parser.add_argument("--name", help="with --checkpoint: the public name (default: the folder's name)")
    parser.add_argument("--host", help="address of the public port")
    parser.add_argument("--port", type=int, help="public port, 0 for any free one")
    parser.add_argument("--admin-port", type=int, help="admin port, 0 for any free one")
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="default: info"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM; 2 for settings that can't be used, 1 if a port can't be had."""
    if args.name and not args.checkpoint:
        print("gateway serve: --name goes with --checkpoint", file=sys.stderr)
        return 2
    try:
        settings = _read_settings(args)
    except SettingsError as error:
        print(f"gateway serve: the settings can't be used:\n{error}", file=sys.stderr)
        return 2
    from gateway import app
    from gateway.cli.demo import greet
    from gateway.telemetry.logs import configure_logs

    configure_logs(args.log_level.upper())
    return app.run(settings, greet if args.demo else None)


def _read_settings(args: argparse.Namespace) -> Settings:
    given = {"server.host": args.host, "server.port": args.port, "admin.port": args.admin_port}
    flags: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if args.demo:
        return for_demo(flags=flags, environ=os.environ)
    if args.checkpoint:
        return for_checkpoint(args.checkpoint, args.name, flags=flags, environ=os.environ)
    return load(args.config, flags=flags, environ=os.environ)
