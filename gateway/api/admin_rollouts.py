"""Of the admin port: rollouts and experiments."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from gateway.control.experiments import Experiments
from gateway.control.rollouts import ACTS, Rollouts
from gateway.errors import UnknownRoute


def build_router(rollouts: Rollouts, experiments: Experiments) -> APIRouter:
    """The routes `/models/{m}/rollouts` and `/models/{m}/experiment`."""
    router = APIRouter()

    @router.get("/models/{model:path}/experiment")
    async def show_experiment(
        model: str,
        baseline: str | None = None,
        alpha: Annotated[float, Query(gt=0, lt=1)] = 0.05,
        stage: int | None = None,
    ) -> dict[str, Any]:
        """What is known of a model's versions: numbers of each, and each compared with the baseline."""
        return await experiments.show(model, baseline, alpha, stage)

    @router.post("/models/{model:path}/rollouts", status_code=202)
    async def start_rollout(model: str, plan: dict[str, Any]) -> dict[str, Any]:
        """Move the traffic of a model to a candidate in steps, by evidence; returns at once."""
        return {"id": await rollouts.start(model, plan)}

    @router.get("/models/{model:path}/rollouts")
    async def list_rollouts(model: str) -> dict[str, Any]:
        """The rollouts of a model, the latest first."""
        return {"rollouts": rollouts.show_all(model)}

    @router.get("/models/{model:path}/rollouts/{name}")
    async def show_rollout(model: str, name: str) -> dict[str, Any]:
        """A rollout, how its guards stand, and how long it may take."""
        return await rollouts.show(model, name)

    @router.post("/models/{model:path}/rollouts/{name}/{act}")
    async def act_on_rollout(model: str, name: str, act: str) -> dict[str, Any]:
        """Pause, resume, abort or promote a rollout."""
        if act not in ACTS:
            raise UnknownRoute(f"One cannot {act[:50]} a rollout, but {', '.join(ACTS)} it.")
        return await rollouts.act(model, name, act)

    return router
