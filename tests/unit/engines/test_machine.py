import os
from pathlib import Path

import pytest

from gateway.engines import machine
from gateway.engines.machine import Machine


def test_counts_this_machine() -> None:
    here = Machine.here()
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.memory_bytes > 2**20


@pytest.mark.parametrize(
    ("text", "expected"), [("1073741824\n", 2**30), ("max\n", None), ("9223372036854771712\n", None), (None, None)]
)
def test_a_container_limit_counts_when_it_is_one(
    text: str | None, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", ())
    physical = Machine.here().memory_bytes
    limit = tmp_path / "memory.max"
    if text is not None:
        limit.write_text(text)
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", (limit,))
    assert Machine.here().memory_bytes == (expected or physical)
