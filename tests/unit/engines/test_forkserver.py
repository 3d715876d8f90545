"""The parts that need no engine; what a fork server does as a whole is in test_process and in the end-to-end tests."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.engines import forkserver
from gateway.engines.forkserver import ForkRequest


def run(program: str, *args: str) -> str:
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def test_importing_it_imports_nothing_heavy() -> None:
    assert run("import sys, gateway.engines.forkserver; print('torch' in sys.modules)").strip() == "False"


def test_a_fork_gets_the_launchers_command_line_and_its_own_environment_and_output(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from gateway.engines import forkserver, launcher\n"
        "started_with = dict(os.environ, OF_SERVER='1'); os.environ.update(OF_SERVER='1', SET_BY_IMPORTS='2', BOTH='3')\n"
        "output = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "request = forkserver.ForkRequest(1, ['--model', 'm'], {'OF_ENGINE': '4', 'BOTH': '5'}, output)\n"
        "forkserver.become_engine(request, started_with)\n"
        "names = ('OF_SERVER', 'SET_BY_IMPORTS', 'OF_ENGINE', 'BOTH')\n"
        "print([os.environ.get(name) for name in names], sys.argv[1:], flush=True)\n"
        "print(sys.modules['__main__'].__spec__.name, os.environ[launcher.PARENT_VARIABLE] == str(os.getpid()), flush=True)"
    )
    assert run(program, str(tmp_path / "out")) == ""
    assert (tmp_path / "out").read_text().splitlines() == [
        "[None, '2', '4', '5'] ['--model', 'm']",
        "gateway.engines.launcher True",
    ]


def test_what_the_api_server_forks_gives_up_its_listening_socket_only(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys\n"
        "from gateway.engines import forkserver\n"
        "path = sys.argv[1]\n"
        "listening = socket.socket(socket.AF_UNIX); listening.bind(path); listening.listen()\n"
        "other = socket.socket(socket.AF_UNIX); other.bind(path + '.other'); other.listen()\n"
        "forkserver._leave_api_server(['--uds=' + path])()\n"
        "print([forkserver._bound_to(fd, path) for fd in forkserver._socket_fds()])\n"
        "print(os.readlink(f'/proc/self/fd/{listening.fileno()}'), other.getsockname() == path + '.other')"
    )
    assert run(program, str(tmp_path / "s")).splitlines() == ["[False]", "/dev/null True"]


@pytest.mark.parametrize("args", [["--uds", "/run/x"], ["--model", "m", "--uds=/run/x"]])
def test_finds_the_socket_in_the_command_line(args: list[str]) -> None:
    assert forkserver._find_address(args) == "/run/x"
    assert forkserver._find_address(["--model", "m"]) is None


def test_every_module_of_vllm_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    module, stranger = ModuleType("vllm.fake"), ModuleType("other.fake")
    for fake in (module, stranger):
        vars(fake)["get_mp_context"] = lambda: "spawn"
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    forkserver._fork_everywhere()
    assert module.get_mp_context().get_start_method() == "fork"
    assert stranger.get_mp_context() == "spawn"


def test_the_scan_for_kernels_survives_objects_with_a_dict_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange:
        __dict__ = "no dict"  # type: ignore[assignment]

    class Plain:
        def __init__(self) -> None:
            self.kernel = 1

    dispatcher = ModuleType("vllm.triton_utils.dispatcher")
    for name in ("vllm", "vllm.triton_utils", "vllm.triton_utils.dispatcher"):
        monkeypatch.setitem(sys.modules, name, dispatcher if name.endswith("dispatcher") else ModuleType(name))
    forkserver._guard_kernel_scan()
    assert dispatcher.vars(Strange()) == {}
    assert dispatcher.vars(Plain()) == {"kernel": 1}


def test_machines_with_cuda_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = ModuleType("torch")
    vars(torch)["cuda"] = ModuleType("torch.cuda")
    vars(torch.cuda)["is_available"] = lambda: True
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert forkserver._import_engine() == "engines that use CUDA cannot be forked"


def test_a_hung_up_gateway_ends_the_server() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    assert forkserver.ForkServer(theirs)._receive() is None
    theirs.close()


def test_a_request_comes_with_its_output() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_fd, write_fd = os.pipe()
    packet = b'{"number": 7, "args": ["--model", "m"], "environment": {"A": "b"}}'
    socket.send_fds(ours, [packet], [write_fd])
    request = forkserver.ForkServer(theirs)._receive()
    assert request is not None
    assert request == ForkRequest(7, ["--model", "m"], {"A": "b"}, request.output_fd)
    os.write(request.output_fd, b"x")
    assert os.read(read_fd, 1) == b"x"
    for fd in (read_fd, write_fd, request.output_fd):
        os.close(fd)
    ours.close()
    theirs.close()
