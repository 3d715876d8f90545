"""`gateway merge`: an adapter worked into its base, written as a checkpoint and checked. Shows only."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from gateway.checkpoints.findings import make_printable
from gateway.cli.fetched import NoFolder, find_folder


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    summary = "work a LoRA or DoRA adapter into its base and write the result as a checkpoint"
    parser = subparsers.add_parser("merge", help=summary, description=summary)
    parser.add_argument(
        "--base", required=True, metavar="DIR", help="the checkpoint it was trained on: a folder or an address"
    )
    parser.add_argument("--adapter", required=True, metavar="DIR", help="the adapter's folder or address")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="where to write; must not be there yet")
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the answers of merged and mounted (needs no torch)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge. Exit code 0 if the checkpoint is written and agrees, 1 if not: then nothing is left behind."""
    console = Console(highlight=False, markup=False)
    try:
        import numpy  # noqa: F401 - the one package that every merge needs
    except ImportError:
        print("gateway merge: numpy is missing: pip install 'nim-gateway[merge]'", file=sys.stderr)
        return 2
    from gateway.merging import MergeRefused
    from gateway.merging.equivalence import CheckUnavailable, require_packages
    from gateway.merging.writer import require_new

    try:
        # Before anything is fetched, which may take hours.
        require_new(args.out)
        if not args.no_verify:
            require_packages()
        return _merge(args, find_folder(args.base), find_folder(args.adapter), console)
    except NoFolder as missing:
        print(f"gateway merge: {missing}", file=sys.stderr)
        return missing.code
    except (MergeRefused, CheckUnavailable) as refused:
        print(f"gateway merge: {make_printable(str(refused), None)}", file=sys.stderr)
        return 1


def _merge(args: argparse.Namespace, base: Path, adapter: Path, console: Console) -> int:
    from gateway.merging.equivalence import verify
    from gateway.merging.plan import plan_merge
    from gateway.merging.writer import staging, write_merged

    plan = plan_merge(base, adapter)
    console.print(f"{len(plan.changes)} of {len(plan.base.weights.tensors)} tensors change")
    with staging(args.out) as folder:
        with _progress(console) as progress:
            task = progress.add_task("writing", total=1.0)
            write_merged(plan, folder, lambda name, share: progress.update(task, completed=share, description=name))
            progress.update(task, completed=1.0)
        if args.no_verify:
            console.print("not checked against the mounted adapter (--no-verify)")
        else:
            console.print("comparing with the mounted adapter, in float32 …")
            found = verify(plan, folder)
            console.print(
                f"agrees: logits within {found.difference:.1g} of the largest, the same greedy text for "
                f"{found.prompts} prompts"
            )
            if found.rounded_difference > found.difference:
                changed = f"{found.rounded_texts} of {found.prompts} greedy texts"
                console.print(f"as it is stored: logits within {found.rounded_difference:.1g}, {changed} differ")
    console.print(
        f"written to {make_printable(str(args.out), None)}: gateway check {make_printable(str(args.out), None)}"
    )
    return 0


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
