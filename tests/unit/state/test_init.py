import sys
from pathlib import Path

import pytest

from gateway.state import open_store
from gateway.state.redis import RedisStore
from gateway.state.sqlite import SqliteStore


async def test_an_address_names_its_store(tmp_path: Path) -> None:
    assert isinstance(open_store(f"sqlite://{tmp_path}/a.db"), SqliteStore)
    assert isinstance(open_store("sqlite://"), SqliteStore)
    assert isinstance(open_store("redis://127.0.0.1:1/0"), RedisStore)


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.state.redis", None)
    with pytest.raises(ValueError, match=r"pip install 'nim-gateway\[redis\]'"):
        open_store("redis://127.0.0.1:1/0")
