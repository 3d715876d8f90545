"""The experiment that every model with several versions is: what is known of them in the stage that it is in."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.control.serving import Serving
from gateway.errors import BadRequest, NotFound
from gateway.state import Counts
from gateway.traffic.experiment import Question, report
from gateway.traffic.shadow_report import report_shadow


class Experiments:
    """Reads evidence from the store. `serving` gives what is served."""

    def __init__(self, store: Counts, serving: Callable[[], Serving]) -> None:
        self._store = store
        self._serving = serving

    async def show(
        self, model: str, baseline: str | None = None, alpha: float = 0.05, stage: int | None = None
    ) -> dict[str, Any]:
        """Everything about a stage of a model, the latest if none is named; the baseline has the most traffic.

        Raises UnknownModel, NotFound for a stage that is not known, BadRequest for a baseline without traffic, and
        StateUnavailable.
        """
        serving = self._serving()
        settings = serving.find_model(model)
        stages = serving.read(model).stages
        found = next((one for one in reversed(stages) if stage in (None, one.number)), None)
        if found is None or not found.number:
            raise NotFound(f"{model} has no such stage: there must be two versions at least, and requests to them.")
        versions = {name: share for name, share in found.shares.items() if share > 0}
        chosen = baseline or max(versions, key=lambda name: versions[name])
        if chosen not in versions:
            raise BadRequest(
                f"{chosen} has no traffic in this stage: choose one of {', '.join(versions)}.", param="baseline"
            )
        evidence = await self._store.read_evidence(found.number)
        question = Question(chosen, versions, alpha, max(0.0, time.time() - found.began))
        shown = await asyncio.to_thread(report, evidence, question, settings.metrics)
        return {
            "model": model,
            "stage": {"number": found.number, "began": found.began, "shares": found.shares, "rollout": found.rollout},
            "stages": [{"number": one.number, "began": one.began, "shares": one.shares} for one in stages],
            **shown,
            "shadow": (await self.show_shadow(model, alpha))["shadow"],
        }

    async def show_shadow(self, model: str, alpha: float = 0.05) -> dict[str, Any]:
        """Who gets copies of a model's requests, and what is known of its answers; `shadow` is None where nobody does.

        Raises UnknownModel and StateUnavailable.
        """
        serving = self._serving()
        asked, shadow = serving.find_model(model).shadow, serving.shadows.get(model)
        if asked is None:
            return {"model": model, "shadow": None}
        against = {} if shadow is None else report_shadow(await self._store.read_evidence(shadow.stage), alpha)
        return {"model": model, "shadow": {**asked.model_dump(), "against": against}}

    async def list_texts(self, model: str) -> list[dict[str, Any]]:
        """The latest questions with both answers, newest first, where they are kept.

        Raises UnknownModel and StateUnavailable.
        """
        serving = self._serving()
        serving.find_model(model)
        if not serving.list_texts()[model]:
            return []  # the store may be about to forget them
        return [msgspec.to_builtins(one) for one in await self._store.read_comparisons(model)]
