"""Parity: proof, before an engine that guesses ahead is served, that guessing changes no answer.

The checkpoint is run in float32 twice, with guesses and without, one after the other, and both are asked the same
greedily. In float32, since with fewer digits two orders of one sum can choose different words without a fault.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from gateway.engines.engine import Admission, EngineSpec, ProbeFailed, SmokePrompt
from gateway.engines.process import EngineProcess, Spawner
from gateway.tasks import TaskSet, outcome_of
from gateway.telemetry.drafts import DraftCounts

logger = logging.getLogger(__name__)

_SHOWN_CHARACTERS = 300
_LONGEST_TOKENS = 128
_GOLDEN = (
    "Hello",
    "What do you see?",
    "Count from one to twenty.",
    "Repeat: a red circle, a blue square, a red circle, a blue square, a red circle, a blue square.",
    "Name five things and say one sentence about each of them.",
    "Explain in a few sentences how rain forms.",
)

Key = tuple[object, ...]


class TrialProbe(Protocol):
    """The questions that a trial asks; `probe.Probe` is the real one."""

    async def is_healthy(self) -> bool: ...
    async def answer(self, asked: SmokePrompt, *, is_shown: bool) -> str: ...
    async def read_drafts(self) -> DraftCounts | None: ...
    async def close(self) -> None: ...


class TrialTools(Protocol):
    """What a trial acts through; `tools.KeeperTools` are the real ones."""

    @property
    def make_probe(self) -> Callable[[EngineSpec], TrialProbe]: ...
    @property
    def explain(self) -> Callable[[list[str], int], str]: ...
    def choose_spawner(self, spec: EngineSpec) -> Spawner: ...


class Parity:
    """What was proven in this process: restarts and other replicas do not pay again. One for all keepers."""

    def __init__(self) -> None:
        self._proven: set[Key] = set()
        self._busy: dict[Key, asyncio.Lock] = {}

    async def prove(self, spec: EngineSpec, admission: Admission, tools: TrialTools, timeout_s: float) -> bool:
        """True when the engine's trials answer alike; at once if that is known of the same files and settings.

        Each trial has `timeout_s` to load and answer. Raises ProbeFailed, final if the answers differ. When it is
        cancelled it leaves no process behind.
        """
        if spec.trials is None:
            return True
        key = await asyncio.to_thread(_find_key, spec.trials, admission)
        async with self._busy.setdefault(key, asyncio.Lock()):
            if key not in self._proven:
                prompts = choose_prompts(spec, is_visual=admission.is_visual)
                guessed, plain = [await _ask(trial, prompts, tools, timeout_s) for trial in spec.trials]
                _compare(prompts, guessed, plain)
                self._proven.add(key)
        return True


def choose_prompts(spec: EngineSpec, *, is_visual: bool) -> list[tuple[SmokePrompt, bool]]:
    """What both are asked: the engine's smoke prompts, or else some of our own, every other one with a picture."""
    own = [(prompt, False) for prompt in spec.smoke if prompt.name == spec.served_name]
    fields = {"max_tokens": _LONGEST_TOKENS}
    golden = [SmokePrompt(text, "", spec.served_name, fields=fields) for text in _GOLDEN]
    return own or [(prompt, is_visual and number % 2 == 1) for number, prompt in enumerate(golden)]


def _find_key(trials: Sequence[EngineSpec], admission: Admission) -> Key:
    told: list[Key] = []
    for trial in trials:
        launch = trial.build_launch()
        words = tuple(word.replace(str(trial.socket), "") for word in launch.args)
        env = {name: value for name, value in launch.env.items() if name != "CUDA_VISIBLE_DEVICES"}
        told.append((words, tuple(sorted(env.items())), tuple(map(repr, trial.smoke))))
    return (tuple(sorted(admission.digests.items())), *told)


async def _ask(
    trial: EngineSpec, prompts: list[tuple[SmokePrompt, bool]], tools: TrialTools, timeout_s: float
) -> list[str]:
    """Run an engine only to ask it this. Raises ProbeFailed."""
    trial.socket.unlink(missing_ok=True)
    try:
        launch = await asyncio.to_thread(trial.build_launch)
        process = await tools.choose_spawner(trial).spawn(launch)
    except OSError as error:
        raise ProbeFailed(f"parity could not be tried: the engine could not be launched: {error}") from error
    probe = tools.make_probe(trial)
    try:
        async with asyncio.timeout(timeout_s):
            return await _while_it_runs(process, _question(probe, prompts), tools)
    except TimeoutError as error:
        raise ProbeFailed(f"parity could not be tried: no engine answered in float32 within {timeout_s:g} s") from error
    finally:
        await probe.close()
        process.kill()
        await process.wait()
        trial.socket.unlink(missing_ok=True)


async def _question(probe: TrialProbe, prompts: list[tuple[SmokePrompt, bool]]) -> list[str]:
    while not await probe.is_healthy():
        await asyncio.sleep(0.2)
    texts = [await probe.answer(prompt, is_shown=is_shown) for prompt, is_shown in prompts]
    counts = await probe.read_drafts()
    if counts is not None and not counts.guessed:
        logger.warning("parity proves nothing: nothing was guessed; give smoke prompts with longer answers")
    return texts


async def _while_it_runs(
    process: EngineProcess, work: Coroutine[None, None, list[str]], tools: TrialTools
) -> list[str]:
    tasks = TaskSet()
    working = tasks.start(outcome_of(work), "parity")
    ending = tasks.start(process.wait(), "parity engine")
    try:
        await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            reason = tools.explain(process.tail(400), ending.result())
            raise ProbeFailed(f"parity could not be tried, as no engine came up in float32: {reason}")
        outcome = working.result()
    finally:
        await tasks.close()
    if isinstance(outcome, ProbeFailed):
        raise ProbeFailed(f"parity could not be tried: {outcome}") from outcome
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _compare(prompts: list[tuple[SmokePrompt, bool]], guessed: list[str], plain: list[str]) -> None:
    if not any((*guessed, *plain)):
        raise ProbeFailed(
            "parity could not be tried: no answer had any text, as of a model that thinks for longer: "
            "give smoke prompts that it answers at once",
            is_final=True,
        )
    for (prompt, _), one, other in zip(prompts, guessed, plain, strict=True):
        if one != other:
            raise ProbeFailed(
                f"speculation changes answers: {prompt.prompt[:100]!r} is answered {one[:_SHOWN_CHARACTERS]!r} with it "
                f"and {other[:_SHOWN_CHARACTERS]!r} without, both greedily in float32",
                is_final=True,
            )
