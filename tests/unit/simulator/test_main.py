"""The program as a process. It says on standard output when it listens, so nothing here waits by the clock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


class Program:
    """Starts simulators and ends those that are left."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gateway.simulator", "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def listen(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = self.start(*arguments)
        assert process.stdout
        for line in process.stdout:
            if "listening on" in line:
                return process, line.split()[-1]
        raise AssertionError(f"ended: {process.communicate()[1]}")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.close()


def test_die_at_start_says_why(program: Program) -> None:
    process = program.start("--fault", "die-at-start:3")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert errors.splitlines()[-1] == "RuntimeError: simulated fault: die-at-start"


def test_sigterm_when_idle_exits_with_0(program: Program) -> None:
    process, address = program.listen()
    assert httpx.get(f"{address}/health", trust_env=False).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_sigterm_lets_a_stream_finish_within_the_shutdown_timeout(program: Program) -> None:
    process, address = program.listen("--shutdown-timeout", "30", "--itl-ms", "20", "--tokens", "10")
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=CHAT, timeout=30, trust_env=False) as reply:
        pieces = reply.iter_bytes()
        text = next(pieces)
        process.send_signal(signal.SIGTERM)
        text += b"".join(pieces)
    assert text.endswith(b"data: [DONE]\n\n")
    assert process.wait(30) == 0


def test_die_after_ends_with_code_0_amid_a_stream(program: Program) -> None:
    process, address = program.listen("--fault", "die-after:0")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{address}/v1/chat/completions", json=CHAT, timeout=30, trust_env=False)
    assert process.wait(30) == 0


def test_a_socket_in_use_exits_with_1(program: Program) -> None:
    _, address = program.listen()
    process = program.start("--port", address.rsplit(":", 1)[1])
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "in use" in errors


def test_the_wrong_parent_is_not_served(program: Program) -> None:
    assert program.start("--parent-pid", "1" if os.getpid() != 1 else "2").wait(30) == 1


def test_it_ends_with_its_parent(program: Program) -> None:
    parent = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); p.wait()"
    command = [sys.executable, "-c", parent, sys.executable, "-m", "gateway.simulator", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    program.processes.append(process)
    assert process.stdout
    lines = iter(process.stdout)
    assert any("listening on" in line for line in lines)
    process.kill()
    assert list(lines) == []  # the end of the pipe: the simulator held it open, and is gone
