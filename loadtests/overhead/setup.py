"""`python -m loadtests.overhead.setup`: make the environments of the routers that come from pip."""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

PINS = {
    "vllm-router": "vllm-router==0.1.17",
    "sglang-router": "sglang-router==0.3.2",
    "litellm": "litellm[proxy]==1.106.2",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.overhead.setup", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PINS], default=[], metavar="NAME", help=", ".join(PINS))
    parser.add_argument("--envs", type=Path, default=Path(__file__).parent / ".envs", help="folder to make them in")
    options = parser.parse_args()
    for name in options.names or PINS:
        folder = options.envs / name
        print(f"{PINS[name]} in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        command = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-q",
            PINS[name],
        ]
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
