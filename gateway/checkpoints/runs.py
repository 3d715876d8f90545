"""The folder of a training run: which of its `checkpoint-*` is the newest, and which the best by its trainer's word."""

import os
from pathlib import Path

from gateway.checkpoints.fields import Fields
from gateway.checkpoints.files import Folder, list_folder
from gateway.checkpoints.findings import UnreadableError, error

_STEP = r"checkpoint-(\d+)"
_WORDS = ("best", "newest")


def find_checkpoint(path: Path) -> Path:
    """The folder that `path` means: of `RUN@best` and `RUN@newest` a checkpoint in RUN, else `path` itself.

    Raises UnreadableError where RUN has no such checkpoint.
    """
    name, _, word = path.name.rpartition("@")
    if word not in _WORDS or not name or os.path.exists(path):  # noqa: PTH110 - Path.exists raises for long names
        return path
    run = list_folder(path.with_name(name))
    # A checkpoint that is still being written has no state yet: Transformers writes that last.
    steps = [name for name in list_steps(run) if _read_state(run.path / name) is not None] or list_steps(run)
    if not steps:
        mend = "give the folder that the training writes its checkpoints to, or a checkpoint itself"
        raise UnreadableError(error("folder-unknown", "", f"{run.path} has no checkpoint-* in it", mend))
    chosen = steps[-1] if word == "newest" else find_best(run)
    if chosen is None:
        message = f"no trainer_state.json in {run.path} says which of its checkpoints is the best"
        mend = f"give {run.path.name}@newest or one of them; Transformers keeps count with metric_for_best_model"
        raise UnreadableError(error("folder-is-run", "", message, mend))
    return run.path / chosen


def list_steps(run: Folder) -> list[str]:
    """The names of a run's checkpoints, oldest first."""
    return sorted(run.find_folders(_STEP), key=lambda name: int(name.partition("-")[2][:18]))


def find_best(run: Folder) -> str | None:
    """The checkpoint that the trainer's own state calls the best; None where it calls none, or one that is gone."""
    steps = list_steps(run)
    for place in (run.path, *(run.path / name for name in reversed(steps))):
        best = (_read_state(place) or Fields()).text("best_model_checkpoint")
        if best and (name := best.rstrip("/").rpartition("/")[2]) in steps:
            return name
    return None


def _read_state(place: Path) -> Fields | None:
    try:
        return Fields(list_folder(place).read_json("trainer_state.json"))
    except UnreadableError:
        return None
