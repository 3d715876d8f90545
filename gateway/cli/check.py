"""`gateway check`: what a checkpoint folder is, and whether it can be served. Shows only; the rules are elsewhere."""

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.text import Text

from gateway.checkpoints import Drafting, Finding, Manifest, Report, check
from gateway.checkpoints.findings import join_names, make_printable
from gateway.checkpoints.hardware import HardwareKind
from gateway.cli.fetched import NoFolder, find_folder
from gateway.engines.device import find_hardware
from gateway.settings.methods import load_methods

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_LABEL_WIDTH = 15
_WIDEST = 110


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    summary = "say what a checkpoint folder is and whether it can be served"
    parser = subparsers.add_parser("check", help=summary, description=summary)
    parser.add_argument(
        "dir", metavar="DIR", help="the folder of a checkpoint or of a LoRA adapter, or hf://ORG/NAME and others"
    )
    parser.add_argument("--base", metavar="DIR", help="with an adapter: the checkpoint it is to be mounted on")
    parser.add_argument("--draft", metavar="DIR", help="the model that is to guess ahead in speculative decoding")
    parser.add_argument("--method", metavar="NAME", help="how it is to guess ahead: draft_model, mtp, ngram, ...")
    parser.add_argument("--against", metavar="DIR", help="a checkpoint that it would take the place of: what differs")
    parser.add_argument(
        "--memory", metavar="SIZE", type=read_size, help="the device's memory, as 24GiB: the longest context that fits"
    )
    parser.add_argument(
        "--device", choices=get_args(HardwareKind), help="what it is to be served on (default: what this machine has)"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="allow code that the folder brings")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show what was found. Exit code 0 if the folder is sound, 1 if not, 2 for what is neither folder nor address."""
    console = Console(highlight=False)
    methods = load_methods()
    if args.method is not None and not methods.knows(args.method):
        print_error(f"{methods.engine} has no method {args.method!r}; there are {', '.join(methods.names)}")
        return 2
    try:
        folder = find_folder(args.dir)
        base, draft, against = map(_find, (args.base, args.draft, args.against))
    except NoFolder as missing:
        print_error(str(missing))
        return missing.code
    drafting = Drafting(None if args.method is None else methods.find_kind(args.method), draft)
    hardware = find_hardware(args.device)
    report = check(
        folder, base, drafting=drafting, against=against, trusts_code=args.trust_remote_code, hardware=hardware
    )
    if args.json:
        print(json.dumps(report.to_dict() | _tell_fit(report, args.memory), indent=2))
    else:
        for line in render(report, console.width if console.is_terminal else None, args.memory):
            console.print(line, soft_wrap=True)
    return 1 if report.has_errors else 0


def read_size(text: str) -> int:
    """Bytes from a number with a unit. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) ?([KMGT]i?)?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 24GiB or 80GB")
    unit = (match[2] or "").lower()
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** ("kmgt".index(unit[0]) + 1 if unit else 0))


def _find(given: str | None) -> Path | None:
    return None if given is None else find_folder(given)


def _tell_fit(report: Report, memory_bytes: int | None) -> dict[str, int | None]:
    if memory_bytes is None or report.memory is None:
        return {}
    return {"fitting_context_tokens": report.memory.fit_context(memory_bytes)}


def print_error(message: str) -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False).print(Text(f"gateway check: {message}"), soft_wrap=True)


def render(report: Report, width: int | None, memory_bytes: int | None = None) -> Iterator[Text]:
    """The report line by line: verdict, facts, changes, findings.

    `width` None never breaks a line, as a pipe wants it. `memory_bytes` is that of a device to fit into.
    """
    yield _render_verdict(report)
    facts = [*list_facts(report.manifest), *_list_needs(report, memory_bytes)]
    if facts:
        yield Text()
    for label, value in facts:
        yield from _break_lines(Text(f"  {label:<{_LABEL_WIDTH}}", "dim"), value, width, _LABEL_WIDTH + 2)
    if report.against is not None:
        yield Text()
        yield Text.assemble(
            ("  against ", "dim"),
            make_printable(str(report.against)),
            "" if report.changes else ": the same but for its weights",
        )
    for change in report.changes:
        yield from _break_lines(Text("    "), str(change), width, 6)
    for finding in report.findings:
        yield Text()
        yield from _render_finding(finding, width)


def list_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The facts people ask for, as label and value; what is not known is left out."""
    if manifest.kind == "checkpoint":
        yield from _list_model(manifest)
    elif manifest.kind == "adapter":
        yield from _list_adapter(manifest)


def _list_model(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if manifest.architectures:
        yield "architecture", ", ".join(manifest.architectures)
    if manifest.model_type:
        yield "model type", manifest.model_type
    yield "takes", "text, pictures, video" if manifest.is_video else "text, pictures" if manifest.is_visual else "text"
    yield from _list_weights(manifest)
    sizes = {
        "layers": manifest.layers, "hidden": manifest.hidden_size, "vocabulary": manifest.vocabulary_size,
    }  # fmt: skip
    shape = [f"{name} {size:,}" for name, size in sizes.items() if size is not None]
    if manifest.is_tied is not None:
        shape.append("tied embeddings" if manifest.is_tied else "separate output head")
    if shape:
        yield "shape", ", ".join(shape)
    if manifest.context_tokens is not None:
        yield "context", f"{manifest.context_tokens:,} tokens"
    if manifest.quantization:
        yield "quantization", "; ".join((manifest.quantization, *manifest.packing))
    if manifest.tokenizer:
        size = "" if manifest.tokenizer_size is None else f", {manifest.tokenizer_size:,} tokens"
        yield "tokenizer", manifest.tokenizer + size
    yield "chat template", manifest.chat_template or "none"
    if manifest.generation_defaults:
        yield "defaults", ", ".join(f"{key} {value:g}" for key, value in manifest.generation_defaults.items())
    if manifest.has_own_code:
        yield "own code", "yes"


def _list_adapter(manifest: Manifest) -> Iterator[tuple[str, str]]:
    facts = manifest.adapter
    if facts is None:
        return
    yield "adapter", ", ".join(filter(None, (facts.type, "DoRA" if facts.is_dora else None))) or "of unknown kind"
    if facts.rank is not None:
        yield "rank", f"{facts.rank}" + ("" if facts.alpha is None else f", alpha {facts.alpha:g}")
    if facts.target_modules:
        yield "changes", join_names(facts.target_modules, 8)
    if facts.modules_to_save:
        yield "whole layers", ", ".join(facts.modules_to_save)
    if facts.base_name:
        yield "trained on", facts.base_name
    yield from _list_weights(manifest)


def _list_needs(report: Report, memory_bytes: int | None) -> Iterator[tuple[str, str]]:
    """What serving takes, and the digest."""
    plan = report.memory
    if plan is not None and plan.cache_bytes_per_token is not None:
        cache = f"{_size(plan.cache_bytes_per_token)} of cache a token"
        if plan.context_tokens is not None:
            cache += f", {_size(plan.cache_bytes_per_token * plan.context_tokens)} for one whole context"
        yield "memory", f"{_size(plan.weights_bytes)} of weights, {cache}"
    fitting = None if plan is None or memory_bytes is None else plan.fit_context(memory_bytes)
    if fitting is not None and memory_bytes is not None:
        room = f"a context of {fitting:,} tokens" if fitting else "no context: the weights do not leave room for one"
        yield f"in {_size(memory_bytes)}", room
    if plan is not None and plan.picture is not None:
        cost = plan.picture
        tokens = f"{cost.least_tokens:,}" + (
            f" to {cost.most_tokens:,}" if cost.most_tokens > cost.least_tokens else ""
        )
        pixels = "" if cost.most_pixels is None else f" (of {cost.least_pixels:,} to {cost.most_pixels:,} pixels)"
        examples = [f"{count:,} for {size}" for size, count in cost.examples.items()]
        yield "a picture", ", ".join((f"{tokens} tokens{pixels}", *examples))
    if report.digest is not None:
        yield "digest", report.digest[:16]


def _list_weights(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if not manifest.bytes_by_dtype:
        return
    count = (
        ""
        if manifest.parameters is None
        else f"{_scale(manifest.parameters, 1000, ('', ' k', ' M', ' G'))} parameters, "
    )
    files = f" in {manifest.weight_files} files" if manifest.weight_files > 1 else ""
    dtypes = ", ".join(f"{dtype} {_size(size)}" for dtype, size in manifest.bytes_by_dtype.items())
    yield "weights", f"{count}{dtypes}{files}"


def _render_verdict(report: Report) -> Text:
    name = make_printable(str(report.manifest.path))
    if report.has_errors:
        return Text.assemble(("✗ ", "bold red"), (name, "bold"), (": not servable", "bold red"))
    warnings = sum(1 for finding in report.findings if finding.severity == "warning")
    suffix = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    verdict = ": servable"
    if report.manifest.kind == "adapter":
        over = None if report.base is None else make_printable(str(report.base))
        verdict = f": fits {over}" if over else ": a sound adapter; --base DIR says whether it fits a checkpoint"
    return Text.assemble(("✓ ", "bold green"), (name, "bold"), (verdict, "green"), (suffix, "yellow"))


def _render_finding(finding: Finding, width: int | None) -> Iterator[Text]:
    label = Text(f"  {finding.severity:<9}", _STYLES[finding.severity])
    yield from _break_lines(label, finding.message, width, 11)
    if finding.mend:
        yield from _break_lines(Text("        → ", "cyan"), finding.mend, width, 10)


def _break_lines(label: Text, value: str, width: int | None, indent: int) -> Iterator[Text]:
    lines = [value] if width is None else textwrap.wrap(value, max(30, min(width, _WIDEST) - indent)) or [""]
    yield Text.assemble(label, lines[0])
    for line in lines[1:]:
        yield Text(" " * indent + line)


def _size(size_bytes: int) -> str:
    return _scale(size_bytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scale(value: float, step: int, units: tuple[str, ...]) -> str:
    unit = 0
    while value >= step and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{value:.0f}{units[0]}" if unit == 0 else f"{value:.3g}{units[unit]}"
