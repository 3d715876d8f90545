from pathlib import Path

from gateway.engines.engine import EngineState
from tests.support.fake_engines import engine_spec


def test_an_engine_is_reached_over_its_socket(tmp_path: Path) -> None:
    assert engine_spec(tmp_path).address == f"unix://{tmp_path}/e.sock"


def test_states_are_the_words_people_see() -> None:
    assert [str(state) for state in EngineState] == [
        "starting",
        "warming",
        "ready",
        "draining",
        "asleep",
        "stopped",
        "failed",
    ]
