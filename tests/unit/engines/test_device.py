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


def test_packages_of_engines_are_found_without_importing_them() -> None:
    assert device.has_package("json")
    assert not device.has_package("no_such_package_at_all")
