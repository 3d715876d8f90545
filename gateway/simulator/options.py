"""The simulator's command line: vLLM's flags where it knows them, its own for timing and faults, the rest ignored."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

FAULTS: dict[str, float | None] = {
    "die-at-start": 1,
    "never-ready": None,
    "slow-start": 3,
    "die-after": 0,
    "hang": 0,
    "error-500": 0,
    "cut-stream": 2,
    "error-event": 2,
    "bad-frame": None,
    "no-token": None,
    "wrong-guess": None,
    "hang-on-sigterm": None,
}
"""Every fault with the number it has when none is given; None takes no number."""

_FAULT_HELP = """\
die-at-start:CODE  print a reason and exit         never-ready        stay up, never listen
slow-start:S       listen after S seconds          no-token           healthy, but generation gives 500
die-after:N        answer N, exit 0 amid the next  hang:N             answer N, then never again
error-500:N        answer N, then 500              cut-stream:K       close after K frames, without an end
bad-frame          one broken frame in a stream    hang-on-sigterm    with a stream open, fall silent and stay
wrong-guess        with --speculative-config, other answers than without
error-event:K      after K frames an event with an error, then the stream ends in order"""


@dataclass(frozen=True, slots=True)
class Options:
    """How one simulated engine behaves. Times are seconds."""

    uds: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated"
    names: tuple[str, ...] = ("simulated",)
    adapters: dict[str, str] = field(default_factory=dict)
    max_model_len: int = 32768
    max_num_seqs: int = 256
    api_key: str | None = None
    echo_request_id: bool = False
    can_sleep: bool = False
    ttft_s: float = 0.005
    itl_s: float = 0.002
    tokens: int = 16
    chunk_tokens: int = 1
    start_delay_s: float = 0.0
    shutdown_timeout_s: float = 0.0
    guessed_tokens: int = 0
    acceptance: float = 0.5
    parent_pid: int | None = None
    faults: dict[str, float] = field(default_factory=dict)


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line. Exits with code 2 on a bad value of a flag it knows; unknown flags are ignored."""
    known, _ = _build_parser().parse_known_args(arguments)
    names = tuple(known.served_model_name or (known.model,))
    return Options(
        uds=known.uds,
        host=known.host,
        port=known.port,
        model=known.model,
        names=names,
        adapters=dict(known.lora_modules),
        max_model_len=known.max_model_len,
        max_num_seqs=known.max_num_seqs,
        api_key=known.api_key,
        echo_request_id=known.enable_request_id_headers,
        can_sleep=known.enable_sleep_mode,
        ttft_s=known.ttft_ms / 1000,
        itl_s=known.itl_ms / 1000,
        tokens=known.tokens,
        chunk_tokens=known.chunk_tokens,
        start_delay_s=known.start_delay_s,
        shutdown_timeout_s=known.shutdown_timeout,
        guessed_tokens=known.speculative_config,
        acceptance=known.spec_acceptance,
        parent_pid=known.parent_pid,
        faults=dict(known.fault),
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway.simulator",
        description="A stand-in vLLM server. Other vLLM flags are accepted and ignored.",
        epilog=f"faults, several allowed:\n{_FAULT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    engine = parser.add_argument_group("as vLLM has them")
    engine.add_argument("--uds", metavar="PATH")
    engine.add_argument("--host", default="127.0.0.1")
    engine.add_argument("--port", type=int, default=8000, help="0 takes a free port and prints it")
    engine.add_argument("--model", default="simulated", metavar="DIR")
    engine.add_argument("--served-model-name", nargs="+", action="extend", metavar="NAME")
    engine.add_argument(
        "--lora-modules", nargs="+", action="extend", type=_read_adapter, default=[], metavar="NAME=DIR"
    )
    engine.add_argument("--max-model-len", type=_read_count, default=32768)
    engine.add_argument("--max-num-seqs", type=_read_count, default=256)
    engine.add_argument("--api-key")
    engine.add_argument("--enable-request-id-headers", action="store_true")
    engine.add_argument("--enable-sleep-mode", action="store_true")
    engine.add_argument("--shutdown-timeout", type=_read_time, default=0.0, metavar="S")
    engine.add_argument("--speculative-config", type=_read_guesses, default=0, metavar="JSON")
    own = parser.add_argument_group("timing and faults")
    own.add_argument("--ttft-ms", type=_read_time, default=5.0, help="time to the first token")
    own.add_argument("--itl-ms", type=_read_time, default=2.0, help="time between tokens")
    own.add_argument("--tokens", type=_read_count, default=16, help="length of an answer that is not cut short")
    own.add_argument("--chunk-tokens", type=_read_count, default=1, help="tokens per frame of a stream")
    own.add_argument(
        "--spec-acceptance", type=_read_fraction, default=0.5, help="fraction of tokens guessed ahead that is right"
    )
    own.add_argument("--start-delay-s", type=_read_time, default=0.0)
    own.add_argument("--fault", action="append", type=_read_fault, default=[], metavar="KIND[:NUMBER]")
    own.add_argument("--parent-pid", type=int, help="end at once if this is not the parent")
    return parser


def _read_adapter(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        module = json.loads(text)
        return str(module["name"]), str(module["path"])
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"should be NAME=DIR, got {text!r}")
    return name, path


def _read_guesses(text: str) -> int:
    return int(json.loads(text).get("num_speculative_tokens", 1))


def _read_fraction(text: str) -> float:
    fraction = float(text)
    if not 0 <= fraction <= 1:
        raise argparse.ArgumentTypeError(f"should be from 0 to 1, got {text}")
    return fraction


def _read_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"should be 1 or more, got {text}")
    return count


def _read_time(text: str) -> float:
    time = float(text)
    if not 0 <= time < float("inf"):
        raise argparse.ArgumentTypeError(f"should be 0 or more, got {text}")
    return time


def _read_fault(text: str) -> tuple[str, float]:
    kind, has_number, number = text.partition(":")
    if kind not in FAULTS:
        raise argparse.ArgumentTypeError(f"no fault is called {kind!r}; there are {', '.join(FAULTS)}")
    default = FAULTS[kind]
    if has_number and default is None:
        raise argparse.ArgumentTypeError(f"{kind} takes no number")
    return kind, float(number) if has_number else default or 0.0
