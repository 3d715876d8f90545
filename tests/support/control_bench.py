"""Control without engines over a state in memory: for what decides about traffic, not about engines."""

from pathlib import Path

from gateway.control.control import Control
from gateway.control.evidence import EvidenceDesk
from gateway.control.keys import Keys
from gateway.control.mirror import StateMirror
from gateway.control.serving import Serving
from gateway.control.standing import Standing
from gateway.engines.engine import EngineStatus
from gateway.fleet.replica import Replica
from gateway.settings import MetricSettings, ModelSettings, SourceAddress
from gateway.sources import Fetched, Told
from gateway.state import Event, Lease
from gateway.state.sqlite import SqliteStore
from gateway.telemetry.observations import Observation, Observed
from gateway.traffic.routes import RouteBoard


def make_model(name: str = "m", split: dict[str, float] | None = None, versions: int = 2) -> ModelSettings:
    """A model with simulated versions v1, v2 … of which v1 has all traffic."""
    named = [{"name": f"v{number + 1}", "engine": "simulated"} for number in range(versions)]
    metrics = {"stars": MetricSettings(low=1, high=5)}
    return ModelSettings.model_validate(
        {"name": name, "split": split or {"v1": 1}, "versions": named, "metrics": metrics}
    )


class ControlBench:
    """A gateway's control. `lease` is the one that it acts with."""

    def __init__(self, *models: ModelSettings, store: SqliteStore | None = None) -> None:
        self.store = store or SqliteStore(None)
        self.mirror = StateMirror(self.store)
        self.board = RouteBoard()
        self.seen = 0
        serving, keys = Serving(models or (make_model(),)), Keys((), self.mirror)
        self.control = Control(
            serving, _NoEngines(), lambda serving: None, self.board.publish, _NoFetcher(), self.mirror, keys
        )
        self.evidence = EvidenceDesk(self.store, lambda model, version: None, lambda: self.control.serving.list_texts())

    async def open(self) -> None:
        """Read the state, and have it know who has which version."""
        await self.mirror.look()
        await self.control.settle()
        lease = await self.store.hold("runner", "me", 300)
        assert lease is not None
        self.lease: Lease = lease

    async def close(self) -> None:
        await self.control.close()
        await self.store.close()

    async def kinds(self) -> list[str]:
        """What the events so far are, the oldest first."""
        events: list[Event] = list(await self.store.read_events(100))
        return [event.kind for event in reversed(events)]

    async def observe(self, version: str, failures: list[bool], model: str = "m", ttft_s: float = 0.1) -> None:
        """One request of each of as many new users of a version, in the stage that the model is in."""
        stage = self.board.routes.models[model].stage
        for did_fail in failures:
            self.seen += 1
            name = f"r{self.seen}"
            one = Observation(name, model, version, stage, self.seen, True, did_fail, ttft_s=ttft_s, total_s=2 * ttft_s)
            self.evidence.take(Observed([one]))
        await self.evidence.write()


def standing(*ready: str, failed: tuple[str, ...] = (), served: tuple[str, ...] = ("m:v1", "m:v2")) -> Standing:
    """How the versions stand on a gateway."""
    return Standing(list(served), list(ready), list(failed), list(ready))


class _NoEngines:
    def statuses(self) -> list[EngineStatus]:
        return []

    def replicas(self) -> list[Replica]:
        return []

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        raise AssertionError("there are no engines")


class _NoFetcher:
    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched:
        raise AssertionError("there is nothing to fetch")
