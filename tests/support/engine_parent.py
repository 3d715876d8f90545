"""A process that stands in for the gateway: starts one engine, says its pid, and waits to be killed.

Arguments: direct or forked, the checkpoint, the socket.
"""

import asyncio
import sys
from pathlib import Path

from gateway.engines.machine import Machine
from gateway.engines.process import DirectSpawner, ForkSpawner, LaunchSpec
from gateway.engines.vllm import EngineRequest, build_launch_spec


def engine_spec(checkpoint: Path, uds: Path) -> LaunchSpec:
    """A small engine whose greedy answers are exact."""
    request = EngineRequest(
        model="shapes",
        version="v2",
        index=0,
        checkpoint=checkpoint,
        adapters={},
        engine_args={"dtype": "float32", "kv-cache-memory-bytes": "64M", "max-model-len": 512, "seed": 0},
        speculative=None,
        uds=uds,
        cpu=True,
        drain_grace_s=5,
    )
    return build_launch_spec(request, Machine.here())


async def main() -> None:
    kind, checkpoint, uds = sys.argv[1:]
    spawner = ForkSpawner() if kind == "forked" else DirectSpawner()
    process = await spawner.spawn(engine_spec(Path(checkpoint), Path(uds)), lambda line: print(line, file=sys.stderr))
    print(process.pid, flush=True)
    print("ended", await process.wait(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
