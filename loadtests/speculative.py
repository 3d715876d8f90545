"""What speculative decoding is worth: the same questions to one real vLLM engine, without and with it.

`python -m loadtests.speculative [--methods none ngram suffix] [--tokens 4] [--rounds 2] [--at-once 1]`
serves the demo model (or `--checkpoint DIR`) by one method after the other and asks through the gateway: the demo's own
questions, whose answers are short, and for long answers that repeat themselves, which is what guessing from the text
before is made for. It reports tokens a second, the time of an answer, and from vLLM's own counters the fraction of
guesses that was right. The method `suffix`, which remembers answers and so gains by each round after the first, is left
out where the package arctic-inference is not installed.
"""

import argparse
import base64
import json
import re
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from loadtests.serving import serving

DEMO = Path(__file__).parents[1] / "gateway" / "demo"
PORT = 18500
LONG_TOKENS = 200


@dataclass
class Outcome:
    """What one kind of questions came to. `guesses` are vLLM's counters: steps, guessed tokens, right ones."""

    tokens: int
    took_s: float
    answers_s: list[float]
    guesses: list[float]
    texts: list[str]


def list_demo() -> list[dict[str, Any]]:
    """The demo's own questions, each with its picture."""
    bodies = []
    for name, samples in json.loads((DEMO / "pictures" / "answers.json").read_text()).items():
        url = "data:image/png;base64," + base64.b64encode((DEMO / "pictures" / name).read_bytes()).decode()
        for sample in samples:
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": sample["question"]}]
            bodies.append({"messages": [{"role": "user", "content": content}], "max_tokens": 64})
    return bodies


def list_long() -> list[dict[str, Any]]:
    """Questions whose answers go on to the limit; a small model then says the same again and again."""
    texts = ["what colour is it?", "how many shapes are there?", "which shape do you see?", "where is the circle?"]
    return [
        {"messages": [{"role": "user", "content": text}], "max_tokens": LONG_TOKENS, "ignore_eos": True}
        for text in texts
    ]


def read_guesses(folder: Path) -> list[float]:
    """vLLM's counters, 0 for an engine that does not guess."""
    [socket] = folder.glob("*.sock")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        text = client.get("http://engine/metrics").text
    names = ("drafts", "draft_tokens", "accepted_tokens")
    found = [re.search(rf"^vllm:spec_decode_num_{name}_total\S* (\S+)$", text, re.MULTILINE) for name in names]
    return [float(one[1]) if one else 0.0 for one in found]


def ask_all(bodies: list[dict[str, Any]], rounds: int, at_once: int, folder: Path) -> Outcome:
    """Ask every question as often as there are rounds, some at a time."""
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=300) as client:

        def ask(body: dict[str, Any]) -> tuple[int, float, str]:
            started = time.monotonic()
            answer = client.post("/v1/chat/completions", json=body | {"model": "m", "temperature": 0})
            answer.raise_for_status()
            told = answer.json()
            text = told["choices"][0]["message"]["content"]
            return told["usage"]["completion_tokens"], time.monotonic() - started, text

        for body in bodies:  # what is computed once only, as pictures
            ask(body | {"max_tokens": 2})
        before, started = read_guesses(folder), time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            done = list(pool.map(ask, bodies * rounds))
        took_s = time.monotonic() - started
    guesses = [new - old for old, new in zip(before, read_guesses(folder), strict=True)]
    tokens, answers_s, texts = zip(*done, strict=True)
    return Outcome(sum(tokens), took_s, list(answers_s), guesses, list(texts))


def show(kind: str, method: str, outcome: Outcome, plain: Outcome | None) -> None:
    """One row of the table."""
    steps, guessed, right = outcome.guesses
    rate = f"{right / guessed:.0%}" if guessed else "-"
    per_step = f"{1 + right / steps:.2f}" if steps else "-"
    gain = "-" if plain is None else f"{outcome.tokens / outcome.took_s * plain.took_s / plain.tokens:.2f}"
    same = "-" if plain is None else f"{sum(map(str.__eq__, outcome.texts, plain.texts))}/{len(plain.texts)}"
    print(
        f"| {kind} | {method} | {outcome.tokens / outcome.took_s:.0f} | {gain} "
        f"| {statistics.median(outcome.answers_s) * 1000:.0f} ms | {rate} | {per_step} | {same} |",
        flush=True,
    )


def main() -> None:
    """Ask by every method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEMO / "shapes-v2")
    parser.add_argument("--methods", nargs="+", default=["none", "ngram", "suffix"])
    parser.add_argument("--tokens", type=int, default=4, help="how many are guessed at a time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    kinds = {"the demo's questions": list_demo(), "long answers": list_long()}
    plain: dict[str, Outcome] = {}
    print("| questions | method | tokens/s | times without | an answer, p50 | right | tokens a step | same text |")
    print("|---|---|---|---|---|---|---|---|")
    for method in given.methods:
        if method == "suffix" and find_spec("arctic_inference") is None:
            print("| | suffix: arctic-inference is not installed | | | | | | |")
            continue
        version: dict[str, Any] = {"checkpoint": str(given.checkpoint), "engine_args": {"dtype": "float32"}}
        if method != "none":
            version["speculative"] = {"method": method, "num_speculative_tokens": given.tokens}
        if method == "ngram":
            version["speculative"] |= {"prompt_lookup_min": 2, "prompt_lookup_max": 4}
        with tempfile.TemporaryDirectory(prefix="gw") as name, serving(version, PORT, Path(name)):
            for kind, bodies in kinds.items():
                outcome = ask_all(bodies, given.rounds, given.at_once, Path(name))
                show(kind, method, outcome, plain.get(kind))
                plain.setdefault(kind, outcome)


if __name__ == "__main__":
    main()
