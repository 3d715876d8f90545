"""Finds a checkpoint's chat templates and parses them. Renders nothing: a template is somebody else's program."""

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import Folder
from gateway.checkpoints.findings import Finding, UnreadableError, error, make_printable

TEMPLATE_FILE = "chat_template.jinja"

_TEMPLATE_LIMIT_BYTES = 2**18
_MEND = "copy the template of the base model, or the one used in training"


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of a checkpoint: name and text, the one in use first. `file` is where that one stands."""

    file: str = ""
    texts: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_present(self) -> bool:
        """True if chat requests find a template."""
        return bool(self.texts)


def read_templates(folder: Folder, tokenizer_config: Fields) -> Templates:
    """Find the templates in the order in which they win over each other, and parse each. Never raises."""
    findings: list[Finding] = []
    found = (source for source in _find(folder, tokenizer_config, findings) if source[1])
    file, texts = next(found, ("", ()))
    findings += [finding for name, text in texts for finding in _parse(file, name, text)]
    return Templates(file, texts, tuple(findings))


def find_names(text: str) -> frozenset[str]:
    """The names that a template reads; none of a broken one. Renders nothing."""
    try:
        tree = _make_environment().parse(text)
    except (TemplateSyntaxError, RecursionError, ValueError, OverflowError):
        return frozenset()
    return frozenset(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")


def _find(
    folder: Folder, tokenizer_config: Fields, findings: list[Finding]
) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    try:
        if folder.has(TEMPLATE_FILE):
            text = folder.read(TEMPLATE_FILE, _TEMPLATE_LIMIT_BYTES).decode()
            yield TEMPLATE_FILE, (("default", text),)
        for name in ("chat_template.json", "processor_config.json"):
            if folder.has(name):
                yield name, _read_value(Fields(folder.read_json(name)))
    except UnreadableError as fault:
        findings.append(fault.finding)
    except UnicodeDecodeError as fault:
        message = f"{TEMPLATE_FILE} is not UTF-8 text (byte {fault.start})"
        findings.append(error("template-broken", TEMPLATE_FILE, message, _MEND))
    yield "tokenizer_config.json", _read_value(tokenizer_config)


def _read_value(document: Fields) -> tuple[tuple[str, str], ...]:
    """One template, or a list of named ones, whose `default` answers plain chat requests."""
    text = document.text("chat_template")
    if text is not None:
        return (("default", text),)
    pairs = [(part.text("name"), part.text("template")) for part in document.sections("chat_template")]
    pairs += [(name, document.section("chat_template").text(name)) for name in document.section("chat_template")]
    named = [(name, text) for name, text in pairs if name is not None and text is not None]
    return tuple(sorted(named, key=lambda pair: pair[0] != "default"))


def _parse(file: str, name: str, text: str) -> Iterator[Finding]:
    label = file if name == "default" else f"{file} (template {make_printable(name)})"
    if not text.strip():
        yield error("template-broken", file, f"{label}: the chat template is empty", _MEND)
        return
    try:
        fault = _find_fault(text)
    except (RecursionError, ValueError, OverflowError):
        fault = "cannot be parsed"
    if fault is not None:
        yield error("template-broken", file, f"{label}: the chat template {fault}", f"mend it, or {_MEND}")


def _find_fault(text: str) -> str | None:
    environment = _make_environment()
    try:
        # Only parsed: compiling computes constant expressions, however large.
        tree = environment.parse(text)
    except TemplateSyntaxError as fault:
        return f"is broken in line {fault.lineno} ({fault.message})"
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        kind, known = ("filter", environment.filters) if isinstance(node, nodes.Filter) else ("test", environment.tests)
        if node.name not in known:
            return f"uses in line {node.lineno} the unknown {kind} {node.name!r}"
    return None


def _make_environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Marks, loopcontrols])


class _Marks(Extension):
    """Knows the `generation` tag, by which training marks the answers in a template."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)
