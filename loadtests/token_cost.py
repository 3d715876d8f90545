"""Where the CPU time of a streamed token goes: gateway, vLLM's own server, and its engine core, side by side.

`python -m loadtests.token_cost [--checkpoint DIR] [--streams 16 64] [--intervals 1 8] [--tokens 200] [--out FILE.json]`
serves a checkpoint (the demo's by default) with each `stream-interval`, runs that many streams at once through the
gateway, and reads the CPU time of every process from /proc. Everything shares the machine's cores: look at the
microseconds, not at the rate.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from loadtests.serving import serving

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
DEMO = Path(__file__).parents[1] / "gateway" / "demo" / "shapes-v2"


PARTS = ("gateway", "fork server", "vLLM server", "vLLM engine core")


def _walk(pid: int, depth: int = 0) -> Iterator[tuple[int, int]]:
    """A process and all below it, with their depth."""
    yield pid, depth
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                yield from _walk(int(child), depth + 1)


def read_cpu_s(root: int) -> dict[str, float]:
    """CPU seconds so far, by part. Engines are forked here: gateway, fork server, vLLM's server, its engine core."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for pid, depth in _walk(root):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            seconds[PARTS[min(depth, 3)]] += (int(fields[11]) + int(fields[12])) * TICK_S
    return seconds


async def run_streams(port: int, streams: int, tokens: int) -> tuple[int, float]:
    """Run streams at once; returns tokens and seconds."""
    limits = httpx.Limits(max_connections=streams)
    started = time.monotonic()

    async def one(client: httpx.AsyncClient, number: int) -> int:
        body = {
            "model": "m", "prompt": f"hello {number}", "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        usage = 0
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if '"usage":{' in line:
                    usage = json.loads(line[6:])["usage"]["completion_tokens"]
        return usage

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:
        counts = await asyncio.gather(*(one(client, number) for number in range(streams)))
    return sum(counts), time.monotonic() - started


def main() -> None:
    """Measure every pair of interval and streams, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEMO)
    parser.add_argument("--streams", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--intervals", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--port", type=int, default=18480)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for interval in given.intervals:
        version = {"checkpoint": str(given.checkpoint), "engine_args": {"stream-interval": interval}}
        with tempfile.TemporaryDirectory() as name, serving(version, given.port, Path(name)) as pid:
            asyncio.run(run_streams(given.port, 4, 50))
            for streams in given.streams:
                before = read_cpu_s(pid)
                tokens, seconds = asyncio.run(run_streams(given.port, streams, given.tokens))
                after = read_cpu_s(pid)
                cost = {part: (after[part] - before[part]) / tokens * 1e6 for part in after}
                rows.append(
                    {
                        "stream_interval": interval,
                        "streams": streams,
                        "tokens": tokens,
                        "seconds": seconds,
                        "us_per_token": cost,
                    }
                )
    print(
        "| stream-interval | streams | "
        + " | ".join(f"{part}, µs a token" for part in rows[0]["us_per_token"])
        + " | tokens/s |"
    )
    print("|---" * (3 + len(rows[0]["us_per_token"])) + "|")
    for row in rows:
        cells = " | ".join(f"{cost:.0f}" for cost in row["us_per_token"].values())
        print(f"| {row['stream_interval']} | {row['streams']} | {cells} | {row['tokens'] / row['seconds']:.0f} |")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
