"""`python -m gateway.simulator`: start, print what vLLM would, answer until SIGTERM, exit as vLLM does."""

import asyncio
import signal
import sys

from gateway.simulator.engine import Engine
from gateway.simulator.options import Options, parse_options
from gateway.simulator.parent import follow_parent
from gateway.simulator.server import Server


def main() -> int:
    """Run until told to end; the result is the exit code."""
    options = parse_options(sys.argv[1:])
    if not follow_parent(options.parent_pid):
        return 1
    print(f"INFO simulator: loading {options.model}", flush=True)
    if "die-at-start" in options.faults:
        print("ERROR simulator: the engine core failed to start", file=sys.stderr)
        print("RuntimeError: simulated fault: die-at-start", file=sys.stderr)
        return int(options.faults["die-at-start"])
    try:
        return asyncio.run(_serve(options))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"ERROR simulator: {error.strerror}", file=sys.stderr)
        return 1


async def _serve(options: Options) -> int:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    if "never-ready" in options.faults:
        await ending.wait()
    await asyncio.sleep(options.start_delay_s + options.faults.get("slow-start", 0))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    server = Server(options, Engine(options))
    print(f"INFO simulator: listening on {await server.start()}", flush=True)
    await ending.wait()
    print("INFO simulator: shutting down", flush=True)
    await server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
