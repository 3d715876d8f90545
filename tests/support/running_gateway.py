"""The real program as a child process, for contract and end-to-end tests."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx


class RunningGateway:
    """A `gateway serve` process with its two addresses and everything it has written."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = self.await_line(r"answering on (\S+), admin on (\S+)", 60)
        self.url, self.admin_url = found[1], found[2]
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # closed while processes that outlived a kill still had it
            for line in self.process.stderr:
                self.lines.append(line.rstrip())

    def await_line(self, pattern: str, timeout_s: float) -> "re.Match[str]":
        """Wait for a line of its log that matches."""
        return wait_for(lambda: self._search(pattern), timeout_s, lambda: f"no line like {pattern}: {self.lines[-30:]}")

    def _search(self, pattern: str) -> "re.Match[str] | None":
        if self.process.poll() is not None and not self._reader.is_alive() and not self.lines:
            raise AssertionError(f"the gateway ended with {self.process.returncode}")
        return next((found for line in list(self.lines) if (found := re.search(pattern, line))), None)

    def engines(self) -> dict[str, dict[str, Any]]:
        """Every engine's status by its name."""
        models = httpx.get(f"{self.admin_url}/admin/v1/models", timeout=10).json()["models"]
        return {
            engine["name"]: engine for model in models for version in model["versions"] for engine in version["engines"]
        }

    def await_states(self, timeout_s: float, **wanted: str) -> None:
        """Wait for engines, named by version (`v1="ready"`), to reach states."""

        def are_there() -> bool:
            states = {name.split(":")[1].split("#")[0]: engine["state"] for name, engine in self.engines().items()}
            return all(states.get(version) == state for version, state in wanted.items())

        wait_for(are_there, timeout_s, lambda: f"{self.engines()} {self.lines[-30:]}")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Signal it and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


def wait_for(condition: Callable[[], Any], timeout_s: float, explain: Callable[[], str] = lambda: "") -> Any:
    """Poll until `condition` gives something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not come about within {timeout_s} s: {explain()}")


@contextlib.contextmanager
def run_gateway(*flags: str, env: dict[str, str] | None = None) -> Iterator[RunningGateway]:
    """Start `gateway serve` on free ports; ended, by force if need be, when the block ends."""
    command = [sys.executable, "-m", "gateway", "serve", *flags, "--port", "0", "--admin-port", "0"]
    process = subprocess.Popen(
        # No gateway is to find what another one has been told.
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GATEWAY_STATE_URL": "sqlite://", **(env or {})},
    )
    gateway: RunningGateway | None = None
    try:
        gateway = RunningGateway(process)
        yield gateway
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
        process.kill()
        process.wait()
        if gateway is not None:
            gateway.http.close()
        if process.stderr is not None:
            process.stderr.close()
