"""`gateway shadow`: have another version get copies of a model's requests, and see how its answers compare."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from gateway.cli.admin import AdminPort, add_flags
from gateway.cli.models import make_console

_MEANINGS = {
    "same_answer": "answers that are the same, token by token",
    "agreement": "how far answers are the same, as a part of the longer one",
    "first_difference": "the token at which those that differ do so first",
    "gap_of_primary": "by how much likelier the client's version finds its answer than the shadow does, nats a token",
    "gap_of_shadow": "and the shadow its own than the client's version does",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("shadow", help="have another version get copies of requests, and compare answers")
    parser.add_argument("model", help="the public name")
    parser.add_argument("version", nargs="?", help="the version that is to get copies; without it, show what is known")
    parser.add_argument("percent", nargs="?", type=_read_percent, help="of the requests, 0 to 100")
    parser.add_argument("--concurrency", type=int, metavar="N", help="to engines with less to do (default: 4)")
    parser.add_argument("--cross-score", action="store_true", help="have both versions score both answers")
    parser.add_argument("--keep-texts", action="store_true", help="keep the latest questions and answers")
    parser.add_argument("--off", action="store_true", help="copy no request any more")
    parser.add_argument("--texts", action="store_true", help="show the questions and answers that were kept")
    parser.add_argument("--json", action="store_true", help="print the admin API's answer")
    add_flags(parser, run)


def run(port: AdminPort, args: argparse.Namespace) -> int:
    """Change it, or print what is known."""
    path = f"models/{quote(args.model)}/shadow"
    if args.version is not None and args.percent is None:
        print("gateway shadow: say which percent of the requests", file=sys.stderr)
        return 2
    if args.off:
        port.ask("DELETE", path)
        print(f"no request to {args.model} is copied any more")
        return 0
    if args.version is not None:
        asked = {"version": args.version, "percent": args.percent}
        asked |= {"cross_score": args.cross_score, "keep_texts": args.keep_texts}
        asked |= {} if args.concurrency is None else {"concurrency": args.concurrency}
        port.ask("PUT", path, asked)
        print(f"{args.percent:g} % of the requests to {args.model} are copied to {args.version}")
        return 0
    shown = port.ask("GET", f"{path}/texts" if args.texts else path)
    if args.json:
        print(json.dumps(shown, indent=2))
    elif args.texts:
        for text in _tell(shown["texts"]):
            print(text)
    else:
        _print(make_console(), shown)
    return 0


def _print(console: Console, shown: dict[str, Any]) -> None:
    shadow = shown["shadow"]
    if shadow is None:
        console.print(f"no request to {shown['model']} is copied")
        return
    console.print(f"{shadow['percent']:g} % of the requests to {shown['model']} are copied to {shadow['version']}")
    for version, found in shadow["against"].items():
        counted = f"{found['copies']:,} copies of {found['users']:,} users, of whom each counts once"
        console.print(f"\n[bold]{shadow['version']}[/] against {version}: {counted}; bounds hold whenever one looks")
        console.print(_list_numbers(version, shadow["version"], found["numbers"]))
        console.print(_list_answers(found["answers"]))


def _list_numbers(version: str, shadow: str, numbers: dict[str, dict[str, Any]]) -> Table:
    table = _make_table("NUMBER", version, shadow, "CHANGE", "BOUNDS")
    for name, one in numbers.items():
        table.add_row(
            name, f"{one['primary']:.4g}", f"{one['shadow']:.4g}", f"{one['change']:+.4g}", _write_bounds(one)
        )
    return table


def _list_answers(answers: dict[str, dict[str, Any]]) -> Table:
    table = _make_table("ANSWERS", "MEAN", "BOUNDS", "COUNT", "WHAT IT IS")
    for name, one in answers.items():
        table.add_row(name, f"{one['mean']:.4g}", _write_bounds(one), f"{one['count']:,}", _MEANINGS.get(name, ""))
    return table


def _tell(texts: list[dict[str, Any]]) -> Iterator[str]:
    for one in texts:
        said = {name: _make_printable(text) for name, text in one["texts"].items()}
        yield f"{one['request_id']}\n  asked: {said['question']}"
        yield f"  {one['primary']}: {said['primary']}\n  {one['shadow']}: {said['shadow']}"


def _make_printable(text: str) -> str:
    """What clients and engines wrote, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _write_bounds(found: dict[str, Any]) -> str:
    low, high = ("?" if found[side] is None else f"{found[side]:.4g}" for side in ("low", "high"))
    return f"{low} .. {high}"


def _make_table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title)
    return table


def _read_percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"should be from 0 to 100, got {text!r}")
    return percent
