"""What prefix affinity is worth: several turns with pictures, two real vLLM engines, one policy after the other.

`python -m loadtests.affinity [--policies round_robin prefix_affinity] [--chats 24] [--turns 6] [--at-once 4]`
serves the demo model (or `--checkpoint DIR`) with two engines, holds the same chats under each policy, and reports from
vLLM's own counters the share of prompt tokens found in the prefix cache, and the time to the first token.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from loadtests.serving import serving

DEMO = Path(__file__).parents[1] / "gateway" / "demo"
PORT = 18490
WORDS = [
    "is",
    "the",
    "red",
    "blue",
    "circle",
    "square",
    "left",
    "right",
    "of",
    "star",
    "and",
    "how",
    "many",
    "shapes",
    "where",
]


def read_cache(folder: Path) -> list[tuple[float, float]]:
    """Prompt tokens looked up and found, by engine."""
    found = []
    for socket in sorted(folder.glob("*.sock")):
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            text = client.get("http://engine/metrics").text
        counts = {
            name: sum(
                float(value) for value in re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", text, re.MULTILINE)
            )
            for name in ("queries", "hits")
        }
        found.append((counts["queries"], counts["hits"]))
    return found


async def hold_chat(client: httpx.AsyncClient, number: int, turns: int, picture: str, waits: list[list[float]]) -> None:
    """One conversation; each turn sends all that was said before. Notes the time to the first token by turn."""
    rng = random.Random(number)
    messages: list[dict[str, object]] = []
    for turn in range(turns):
        text = " ".join(rng.choices(WORDS, k=60))
        content: list[dict[str, object]] = [{"type": "text", "text": f"chat {number} turn {turn}: {text}?"}]
        if turn == 0:
            content.insert(0, {"type": "image_url", "image_url": {"url": picture}})
        messages.append({"role": "user", "content": content})
        body = {"model": "m", "messages": messages, "stream": True, "max_tokens": 8, "temperature": 0}
        started, first, said = time.monotonic(), None, ""
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {") and (choices := json.loads(line[6:]).get("choices")):
                    piece = choices[0]["delta"].get("content") or ""
                    if piece and first is None:
                        first = time.monotonic() - started
                    said += piece
        waits[turn].append(first if first is not None else time.monotonic() - started)
        messages.append({"role": "assistant", "content": said or "."})


async def hold_chats(chats: int, turns: int, at_once: int) -> list[list[float]]:
    """All conversations, some at a time."""
    pictures = [
        "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in sorted((DEMO / "pictures").glob("*.png"))
    ]
    waits: list[list[float]] = [[] for _ in range(turns)]
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=120) as client:

        async def one(number: int) -> None:
            async with gate:
                await hold_chat(client, number, turns, pictures[number % len(pictures)], waits)

        await asyncio.gather(*map(one, range(chats)))
    return waits


def main() -> None:
    """Run every policy and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEMO / "shapes-v2")
    parser.add_argument("--policies", nargs="+", default=["round_robin", "least_loaded", "prefix_affinity"])
    parser.add_argument("--chats", type=int, default=24)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=4)
    given = parser.parse_args()
    print("| policy | prompt tokens cached | prompt tokens by engine | first turn p50 | later turns p50 | p90 |")
    print("|---|---|---|---|---|---|")
    for policy in given.policies:
        version = {"checkpoint": str(given.checkpoint), "replicas": 2, "routing": policy}
        with tempfile.TemporaryDirectory(prefix="gw") as name, serving(version, PORT, Path(name)):
            before = read_cache(Path(name))
            waits = asyncio.run(hold_chats(given.chats, given.turns, given.at_once))
            after = read_cache(Path(name))
        asked = [new[0] - old[0] for old, new in zip(before, after, strict=True)]
        hits = sum(new[1] - old[1] for old, new in zip(before, after, strict=True))
        later = sorted(wait * 1000 for turn in waits[1:] for wait in turn)
        first = statistics.median(wait * 1000 for wait in waits[0])
        share = hits / sum(asked)
        print(
            f"| {policy} | {share:.1%} | {' / '.join(f'{one:.0f}' for one in asked)} | {first:.0f} ms "
            f"| {statistics.median(later):.0f} ms | {later[int(len(later) * 0.9)]:.0f} ms |",
            flush=True,
        )


if __name__ == "__main__":
    main()
