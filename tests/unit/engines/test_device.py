from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from gateway.checkpoints.hardware import Hardware
from gateway.engines import device
from gateway.engines.machine import Machine
from gateway.engines.placement import Device


@pytest.mark.parametrize(
    ("is_cpu_build", "has_node", "expected"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_cuda_needs_a_device_and_an_engine_built_for_it(
    monkeypatch: pytest.MonkeyPatch, is_cpu_build: bool, has_node: bool, expected: bool
) -> None:
    def find(name: str) -> str:
        if not is_cpu_build:
            raise PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(device, "version", find)
    monkeypatch.setattr(Path, "exists", lambda self: has_node)
    assert device.has_cuda() is expected


def test_without_a_gpu_memory_is_the_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_cuda", lambda: False)
    machine = Machine(2, 1000)
    assert device.list_devices(machine, None) == (Device("cpu", 900),)
    assert device.list_devices(machine, 400) == (Device("cpu", 400),)


def test_each_gpu_that_the_machine_or_container_has_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_cuda", lambda: True)
    nodes = ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / node for node in nodes])
    assert device.list_devices(Machine(2, 1000), None) == (Device("0", 1000), Device("1", 1000))


FLAGS = "processor : 0\nflags\t\t: fpu sse avx2 {}\nbugs : none\n"


@pytest.mark.parametrize(
    ("flags", "has_avx512", "has_amx"),
    [
        ("", False, False),
        ("avx512f", False, False),
        ("avx512f avx512bw avx512dq avx512vl", True, False),
        ("avx512f avx512bw avx512dq avx512vl amx_tile", True, True),
    ],
)
def test_a_processor_is_known_by_its_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, has_avx512: bool, has_amx: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(FLAGS.format(flags))
    monkeypatch.setattr(device, "_PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "machine", lambda: "x86_64")
    assert device.find_hardware("cpu") == Hardware("cpu", has_avx512=has_avx512, has_amx=has_amx)


def test_of_a_processor_without_flags_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "_PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "machine", lambda: "x86_64")
    assert device.find_hardware("cpu") == Hardware("cpu")
    monkeypatch.setattr(device, "machine", lambda: "aarch64")
    assert device.find_hardware("cpu") == Hardware("cpu")


@pytest.mark.parametrize("has_gpu", [True, False])
def test_what_engines_run_on_here(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    monkeypatch.setattr(device, "has_cuda", lambda: has_gpu)
    assert device.find_hardware().kind == ("cuda" if has_gpu else "cpu")
    assert device.find_hardware("cuda") == Hardware("cuda")


def test_the_openmp_of_the_environment_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device.sys, "prefix", str(tmp_path))
    assert device.find_openmp() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    assert device.find_openmp() == tmp_path / "lib" / "libiomp5.so"


def test_packages_of_engines_are_found_without_importing_them() -> None:
    assert device.has_package("json")
    assert not device.has_package("no_such_package_at_all")
