from pathlib import Path

import pytest

from gateway.app.state_file import find_state
from gateway.settings import Settings, StateSettings


def settings(url: str | None = None) -> Settings:
    return Settings(state=StateSettings() if url is None else StateSettings(url=url))


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A place where no folder can be made."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "state.db"


def test_a_file_that_can_be_written_is_kept(tmp_path: Path) -> None:
    known = settings(f"sqlite://{tmp_path}/new/state.db")
    assert find_state(known) is known
    assert (tmp_path / "new" / "state.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "redis://h:6379/0"])
def test_other_states_need_no_file(url: str) -> None:
    known = settings(url)
    assert find_state(known) is known


def test_a_file_that_was_asked_for_must_be_had(locked: Path) -> None:
    with pytest.raises(OSError, match="File exists"):
        find_state(settings(f"sqlite://{locked}"))


def test_without_a_place_that_was_asked_for_memory_has_to_do(locked: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = StateSettings.model_construct(url=f"sqlite://{locked}")
    state.__pydantic_fields_set__.clear()
    found = find_state(Settings().model_copy(update={"state": state}))
    assert found.state.url == "sqlite://"
    assert "what is changed at run time lasts until the end" in caplog.text
