"""Trains everything the demo ships: shapes-v1, shapes-v2, the adapter, and the accuracy table.

`python -m gateway.demo.train [--out DIR] [--minutes N] [--seed N] [--processes N] [--start DIR]`
"""

import argparse
import copy
import math
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from gateway.demo.batches import Packer, Picture, paint, stream
from gateway.demo.drawing import GRIDS
from gateway.demo.network import Helpers, build_model, load_model, loss_of, read_batch, see, spread_targets
from gateway.demo.optimizer import Optimizer
from gateway.demo.package import save_model
from gateway.demo.questions import SKILLS, Question, ask
from gateway.demo.tokenizer import CORNERS, SPECIAL, train_tokenizer

WARMUP_STEPS = 30
FIRST_VERSION_AT = 0.3
"""Share of the training time after which version 1 is put aside."""
REPORT_EVERY_S = 20
CHECK_EVERY_S = 180


def main() -> None:
    """Train, pack and measure; prints one line of progress every few seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the three folders go")
    parser.add_argument("--minutes", type=float, default=72, help="time for the base model")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2, help="as many as there are free cores")
    parser.add_argument("--start", type=Path, help="a saved version to go on from")
    given = parser.parse_args()
    train_base(given.out, given.minutes * 60, given.seed, given.processes, given.start)
    from gateway.demo import adapter, measure

    torch.set_num_threads(given.processes)
    adapter.train_adapter(given.out, given.seed)
    measure.write_table(given.out)


def train_base(out: Path, budget_s: float, seed: int, processes: int, start: Path | None = None) -> None:
    """Train for `budget_s` seconds; writes shapes-v1 on the way and shapes-v2 at the end.

    One thread in each of several processes, which meet once a step: threads inside one step would wait for each other
    thousands of times, and crawl as soon as anything else wants a core.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        multiprocessing.spawn(_train, (processes, meeting, out, budget_s, seed, start), nprocs=processes)


def _train(rank: int, processes: int, meeting: str, out: Path, budget_s: float, seed: int, start: Path | None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    tokenizer = train_tokenizer(seed)
    trainer = Trainer(tokenizer, budget_s, seed, is_speaking=rank == 0)
    if start:
        trainer.start_from(start)
    batches = stream(tokenizer, (seed + (1 if start else 0)) * 100 + rank)
    is_first_saved = False
    while trainer.progress < 1:
        trainer.step(to_tensors(next(batches)))
        if rank == 0 and not is_first_saved and trainer.progress >= FIRST_VERSION_AT:
            is_first_saved = True
            save_model(trainer.average, tokenizer, out / "shapes-v1")
            print("saved shapes-v1", flush=True)
    if rank == 0:
        save_model(trainer.average, tokenizer, out / "shapes-v2")
        print("saved shapes-v2", flush=True)
    distributed.destroy_process_group()


def to_tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Arrays and numbers to tensors."""
    return {name: torch.as_tensor(value) for name, value in batch.items()}


class Trainer:
    """The network in training, its running average, and the clock that drives the learning rate."""

    def __init__(self, tokenizer: Any, budget_s: float, seed: int, is_speaking: bool) -> None:
        ids = {name: tokenizer.token_to_id(name) for name in SPECIAL}
        vocabulary = tokenizer.get_vocab_size()
        self.model = build_model(vocabulary, ids)
        self.average = copy.deepcopy(self.model)
        self.progress = 0.0
        """Share of the time that has passed, the same in all processes."""
        self._helpers = Helpers(spread_targets([tokenizer.token_to_id(corner) for corner in CORNERS], vocabulary))
        self._parameters = [*self.model.parameters(), *self._helpers.parameters()]
        self._optimizer = Optimizer(self.model, self._helpers)
        self._budget_s = budget_s
        self._started = time.monotonic()
        self._reported = self._checked = self._started
        self._steps = 0
        self._is_speaking = is_speaking
        self._seen: dict[str, float] = defaultdict(float)
        self._exam = make_exam(tokenizer, seed + 1) if is_speaking else []
        if is_speaking:
            size = sum(parameter.numel() for parameter in self.model.parameters())
            print(f"training: {size:,} parameters, {budget_s / 60:.0f} minutes", flush=True)

    def start_from(self, folder: Path) -> None:
        """Go on from a saved version instead of from nothing."""
        weights = load_model(folder).state_dict()
        self.model.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        """One step of the optimiser, on the mean gradient of all processes."""
        losses = loss_of(self.model, self._helpers, batch)
        fading = max(0.05, 1 - self.progress)
        (losses.answers + (0.3 * losses.helpers + 0.4 * losses.looks) * fading).backward()
        self._meet()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step(min(1, (self._steps + 1) / WARMUP_STEPS) * (0.02 + 0.98 * _decay(self.progress)))
        self._steps += 1
        if self._is_speaking:
            keep = min(0.998, self._steps / (self._steps + 30))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)
            self._seen["answers"] += losses.answers.item()
            self._seen["helpers"] += losses.helpers.item()
            self._seen["looks"] += losses.looks.item()
            self._seen["steps"] += 1
            self._report()

    def _meet(self) -> None:
        """Average gradients and clocks over the processes."""
        gradients = [parameter.grad for parameter in self._parameters]
        passed = torch.tensor([(time.monotonic() - self._started) / self._budget_s])
        flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None] + [passed])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        self.progress = flat[-1].item()
        start = 0
        for gradient in gradients:
            if gradient is not None:
                gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
                start += gradient.numel()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported > REPORT_EVERY_S:
            count = self._seen["steps"]
            print(
                f"{(now - self._started) / 60:5.1f} min  step {self._steps:5d}  {(now - self._reported) / count:.2f} s/step  "
                f"answers {self._seen['answers'] / count:.3f}  helpers {self._seen['helpers'] / count:.3f}  looks {self._seen['looks'] / count:.3f}",
                flush=True,
            )
            self._reported = now
            self._seen.clear()
        if now - self._checked > CHECK_EVERY_S:
            self._checked = now
            marks = take_exam(self.average, self._exam, self._helpers.spread)
            print("      right: " + "  ".join(f"{skill} {share:.3f}" for skill, share in marks.items()), flush=True)


def _decay(progress: float) -> float:
    """Flat for the first tenth, then a cosine to zero."""
    return 0.5 * (1 + math.cos(math.pi * min(1, max(0, (progress - 0.1) / 0.9))))


def make_exam(tokenizer: Any, seed: int) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """A small batch of unseen pictures for every skill, to watch the training by."""
    rng = random.Random(seed)
    packer = Packer(tokenizer)
    exam = []
    for skill in SKILLS:
        pictures: list[Picture] = []
        questions: list[list[Question]] = []
        while len(pictures) < 96:
            picture = paint(rng, GRIDS[0])
            question = ask(picture.scene, skill, rng)
            if question:
                pictures.append(picture)
                questions.append([question])
        exam.append((skill, to_tensors(packer.pack(pictures, questions, rng))))
    return exam


@torch.no_grad()
def take_exam(model: Any, exam: list[tuple[str, dict[str, torch.Tensor]]], spread: torch.Tensor) -> dict[str, float]:
    """Share of answers whose every token is the likeliest one, or for corners of boxes at most four steps off."""
    marks = {}
    for skill, batch in exam:
        tokens = see(model.model.visual, batch["pixels"])[1]
        hidden = read_batch(model, tokens, batch)
        likeliest = (hidden @ model.model.language_model.embed_tokens.weight.T).argmax(-1)
        wrong = (spread[batch["targets"], likeliest] < 0.005) & (batch["weights"] > 0)
        marks[skill] = 1 - wrong.any(1).float().mean().item()
    return marks


if __name__ == "__main__":
    main()
