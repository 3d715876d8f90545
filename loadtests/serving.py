"""A gateway under load: started over a settings tree, its engines ready, ended again."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

_READY_S = 180.0
_STOP_S = 60.0


@contextlib.contextmanager
def serving(version: Mapping[str, Any], port: int, folder: Path) -> Iterator[int]:
    """A gateway on `port` that serves `version` as `m:v1`, every engine ready; gives the gateway's pid.

    `folder` gets settings, logs and sockets. Raises SystemExit with the last lines when the gateway does not come up.
    """
    settings = {
        "server": {"host": "127.0.0.1", "port": port, "access_log_path": str(folder / "requests.log")},
        "admin": {"port": port + 1},
        "engines": {"runtime_dir": str(folder)},
        "models": [{"name": "m", "versions": [{"name": "v1", **version}]}],
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(folder / "gateway.yaml")]
    with (folder / "gateway.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        _wait_until_ready(process, port + 1, folder)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _wait_until_ready(process: "subprocess.Popen[bytes]", admin_port: int, folder: Path) -> None:
    end = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            models = httpx.get(f"http://127.0.0.1:{admin_port}/admin/v1/models").json()["models"]
            if all(engine["state"] == "ready" for engine in models[0]["versions"][0]["engines"]):
                return
        time.sleep(0.2)
    raise SystemExit("the gateway did not come up:\n" + (folder / "gateway.log").read_text()[-2000:])
