"""A child process that does what its arguments say, one word after the other; run by its bare name from this folder."""

import asyncio
import os
import signal
import subprocess
import sys
import time

from gateway.engines import launcher
from gateway.engines.process import DirectSpawner, LaunchSpec


def main(words: list[str]) -> None:
    while words:
        match words.pop(0):
            case "say":
                sys.stdout.buffer.write(words.pop(0).encode().decode("unicode_escape").encode())
                sys.stdout.flush()
            case "say-variable":
                print(os.environ.get(words.pop(0), "unset"), flush=True)
            case "kill-server":
                os.kill(os.getppid(), signal.SIGKILL)
            case "exit":
                os._exit(int(words.pop(0)))
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print("deaf", flush=True)
            case "sleep":
                time.sleep(600)
            case "start-other":
                print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
            case "start-outsider":
                program = "import os, time; os.setsid(); print('outside', flush=True); time.sleep(600)"
                print(subprocess.Popen([sys.executable, "-c", program]).pid, flush=True)
            case "tie":
                launcher.die_with_parent()
                launcher.pass_on_to_forks()
                print("tied", flush=True)
            case "fork":
                pid = os.fork()
                if pid:
                    print(pid, flush=True)
            case "be-gateway":
                asyncio.run(_be_gateway(words))


async def _be_gateway(words: list[str]) -> None:
    """Spawn a child that does the rest of the words, and pass on what it says."""
    spec = LaunchSpec("child", "scripted_process", tuple(words), {})
    child = await DirectSpawner().spawn(spec, lambda line: print(line, flush=True))
    print(child.pid, flush=True)
    words.clear()
    await child.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
