"""The command line: flags and exit codes. Each command lives in a file of its own and is imported when it is called."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

_COMMANDS = {
    "serve": "serve checkpoints: start engines and answer OpenAI clients",
    "check": "say what a checkpoint folder is and whether it can be served",
    "fetch": "fetch a checkpoint from hf://, s3:// or gs:// into the cache and print its folder",
    "merge": "work a LoRA or DoRA adapter into its base and write the result as a checkpoint",
    "chat": "ask a model, with pictures, and stream the answer to the terminal",
    "split": "show or change how a model's traffic is shared among its versions",
    "load": "load one more version of a model while the gateway serves",
    "unload": "serve a version no longer; its engines end with their last answer",
    "rollout": "move a model's traffic to a new version in steps, by evidence",
    "experiment": "compare a model's versions by what was measured of them",
    "shadow": "have another version get copies of requests, and compare answers",
    "events": "show what was changed and decided, newest first",
    "explain": "say which version and replica a request would get, and why",
    "keys": "list, make and remove the keys that clients may show",
    "usage": "show what each caller has used of each version, by day",
    "reload": "have the gateway read its settings file again",
    "models": "show models, versions and the state of their engines",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 good, 1 the thing asked about is bad, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="gateway", description="An open, NIM-compatible inference serving gateway.")
    # A destination of its own: commands have arguments called `version`.
    parser.add_argument("--version", action="store_true", dest="is_version_asked", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in _COMMANDS.items():
        if name == asked:
            import_module(f"gateway.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    parsed = parser.parse_args(arguments)
    if parsed.is_version_asked:
        from importlib.metadata import version

        print(f"gateway {version('nim-gateway')}")
        return 0
    if parsed.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return code
