"""A real Redis server of a test's own, which can be killed and started again."""

import shutil
import socket
import subprocess
import time
from pathlib import Path


class RedisServer:
    """Keeps its data in `folder`, and has what it was told on the disk before it answers unless it is `careless`."""

    def __init__(self, folder: Path, *, careless: bool = False) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "install Redis: apt-get install redis-server"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        keeping = ("--appendonly", "no") if careless else ("--appendonly", "yes", "--appendfsync", "always")
        address = ("--bind", "127.0.0.1", "--port", str(self.port))
        self._command = (program, *address, "--dir", str(folder), "--save", "", *keeping)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise AssertionError("redis-server did not come up")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def flush(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(16).startswith(b"+OK")
