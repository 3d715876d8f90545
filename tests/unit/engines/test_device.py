from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from gateway.engines import device


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


def test_the_openmp_of_the_environment_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device.sys, "prefix", str(tmp_path))
    assert device.find_openmp() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    assert device.find_openmp() == tmp_path / "lib" / "libiomp5.so"


def test_packages_of_engines_are_found_without_importing_them() -> None:
    assert device.has_package("json")
    assert not device.has_package("no_such_package_at_all")
