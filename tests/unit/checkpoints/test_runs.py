from pathlib import Path

import pytest

from gateway.checkpoints import check
from gateway.checkpoints.findings import UnreadableError
from gateway.checkpoints.runs import find_checkpoint
from tests.support.safetensors_files import write_checkpoint, write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for number in (9, 100, 20):
        write_checkpoint(tmp_path / "run" / f"checkpoint-{number}")
        write_json(tmp_path / "run" / f"checkpoint-{number}" / "trainer_state.json", {})
    return tmp_path / "run"


def at(run: Path, word: str) -> Path:
    return run.with_name(f"{run.name}@{word}")


def test_the_newest_has_the_most_steps(run: Path) -> None:
    assert find_checkpoint(at(run, "newest")) == run / "checkpoint-100"


@pytest.mark.parametrize("place", ["", "checkpoint-100"])
def test_the_best_is_the_one_that_the_trainer_says(run: Path, place: str) -> None:
    write_json(run / place / "trainer_state.json", {"best_model_checkpoint": "/elsewhere/run/checkpoint-20"})
    assert find_checkpoint(at(run, "best")) == run / "checkpoint-20"
    report = check(at(run, "best"))
    assert report.is_servable
    assert report.manifest.path == run / "checkpoint-20"


def test_one_that_is_still_being_written_is_passed_over(run: Path) -> None:
    write_json(run / "checkpoint-100" / "trainer_state.json", {"best_model_checkpoint": "x/checkpoint-9"})
    (run / "checkpoint-300").mkdir()
    (run / "checkpoint-300" / "config.json").write_text("{}")
    assert find_checkpoint(at(run, "newest")) == run / "checkpoint-100"
    assert find_checkpoint(at(run, "best")) == run / "checkpoint-9"


def test_names_that_no_folder_can_have_are_survived() -> None:
    assert not check(Path("/tmp/" + "x" * 300 + "@best")).is_servable


@pytest.mark.parametrize(
    "state", [None, {}, {"best_model_checkpoint": None}, {"best_model_checkpoint": "x/checkpoint-7"}]
)
def test_where_nobody_says_which_is_best_it_is_asked(run: Path, state: dict[str, object] | None) -> None:
    if state is not None:
        write_json(run / "trainer_state.json", state)
    with pytest.raises(UnreadableError, match="says which of its checkpoints is the best: give run@newest"):
        find_checkpoint(at(run, "best"))
    assert not check(at(run, "best")).is_servable


def test_a_folder_is_itself_whatever_its_name(run: Path, tmp_path: Path) -> None:
    for path in (run, tmp_path / "gone", tmp_path / "gone@other", tmp_path / "@best", Path("@newest")):
        assert find_checkpoint(path) == path
    named = write_checkpoint(tmp_path / "run@best")
    assert find_checkpoint(named) == named


def test_a_run_without_checkpoints_and_no_run_at_all_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "logs").mkdir()
    with pytest.raises(UnreadableError, match=r"has no checkpoint-\* in it"):
        find_checkpoint(tmp_path / "empty@newest")
    with pytest.raises(UnreadableError, match="does not exist"):
        find_checkpoint(tmp_path / "gone@newest")
