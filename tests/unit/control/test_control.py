import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.control.control import Control
from gateway.control.keys import Keys
from gateway.control.mirror import StateMirror
from gateway.control.serving import Serving
from gateway.engines.engine import Admission, EngineSpec, EngineState
from gateway.engines.remote import RemoteSpec
from gateway.engines.supervisor import Supervisor
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.errors import BadRequest, Conflict, GatewayError, NoCapacity, StateUnavailable, UnknownModel
from gateway.settings import ModelSettings, SourceAddress, parse_address
from gateway.sources import Fetched, SourceFailed, Told
from gateway.state.sqlite import SqliteStore
from gateway.traffic.routes import PixelBounds, RouteBoard, Routes
from tests.support.fake_engines import (
    DEVICES,
    FakeProbe,
    FakeSpawner,
    FakeTraffic,
    engine_spec,
    fetch_nothing,
    remakeable,
    remote_spec,
    until,
)

SERVING = Serving(
    (
        ModelSettings.model_validate(
            {
                "name": "shapes",
                "split": {"v1": 9, "v2": 1},
                "versions": [
                    {"name": "v1", "engine": "simulated", "defaults": {"temperature": 0.0, "system_prompt": "Look."}},
                    {"name": "v2", "engine": "simulated", "adapters": {"mirror": "/m"}, "pictures": {"max_pixels": 9}},
                    {"name": "far", "endpoints": ["http://a:1", "http://b:1"], "routing": "round_robin"},
                ],
            }
        ),
    )
)


class FakeFetcher:
    """Has everything in one folder, or meets a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failure: SourceFailed | None = None
        self.asked: list[tuple[str, bool]] = []

    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched:
        self.asked.append((str(address), is_fresh))
        if self.failure is not None:
            raise self.failure
        return Fetched(self.folder, "abc")


class Bench:
    def __init__(self, folder: Path, serving: Serving = SERVING, store: SqliteStore | None = None) -> None:
        self.board = RouteBoard()
        self.store = store or SqliteStore(None)
        self.mirror = StateMirror(self.store)
        self.spawner = FakeSpawner()
        tools = KeeperTools(
            spawner=self.spawner, fork_spawner=None, make_probe=lambda spec: FakeProbe(),
            fetch=fetch_nothing, read_digests=lambda spec: {}, admit=lambda spec: Admission("no such folder" if spec.version == "v2" else None),
            explain=lambda lines, code: f"it ended with {code}", slots=asyncio.Semaphore(2), turns=asyncio.Lock(), on_change=lambda status: self.control.note(), traffic=FakeTraffic(),
        )  # fmt: skip
        timing = KeeperTiming(poll_s=0, quiet_s=0, stop_grace_s=0.01, first_pause_s=60)
        self.remote = FakeProbe()
        self.supervisor = Supervisor(tools, timing, DEVICES, lambda spec: self.remote)
        self.kept: list[Serving] = []
        self.fetcher = FakeFetcher(folder / "fetched")
        self.control = self.take_charge(serving)
        one, two = engine_spec(folder, "shapes:v1#0"), engine_spec(folder, "shapes:v2#0")
        two = replace(two, socket=folder / "other.sock", adapters=(("shapes:v2+mirror", folder),))
        self.specs: list[EngineSpec | RemoteSpec] = [one, two]

    def take_charge(self, serving: Serving) -> Control:
        keys = Keys((), self.mirror)
        return Control(
            serving, self.supervisor, self.kept.append, self.board.publish, self.fetcher, self.mirror, keys, started=5
        )

    async def come_up(self) -> None:
        await self.mirror.look()
        self.supervisor.start(self.specs)
        await until(self.supervisor.is_settled)

    async def act(self) -> None:
        """What the one gateway of its fleet does, once."""
        lease = await self.store.hold("runner", "me", 30)
        assert lease is not None
        await self.control.hand_over(lease, [self.control.read_standing()])

    async def close(self) -> None:
        await self.control.close()
        await self.supervisor.close()
        await self.store.close()

    async def texts(self) -> list[str]:
        return [event.text for event in await self.store.read_events(20)]

    def replicas(self, version: str) -> list[str]:
        return [replica.address for replica in self.board.routes.models["shapes"].versions[version].replicas]


async def test_before_any_engine_is_up_names_are_known_but_have_no_replica(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.board.routes.public_names() == ["shapes", "shapes:v1", "shapes:v2", "shapes:v2+mirror", "shapes:far"]
    assert bench.replicas("v1") == []


async def test_ready_engines_become_replicas_and_failed_ones_do_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    assert bench.replicas("v1") == [f"unix://{tmp_path}/e.sock"]
    assert bench.replicas("v2") == []
    assert bench.board.routes.models["shapes"].versions["v2"].state == "failed"
    await bench.close()


async def test_a_version_without_an_engine_gives_its_share_to_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def chosen() -> set[str]:
        split = bench.board.routes.models["shapes"].split
        return {split.choose(f"user={number}".encode()).version for number in range(200)}

    assert chosen() == {"v1", "v2"}
    await bench.come_up()
    assert chosen() == {"v1"}
    await bench.close()


async def test_a_version_that_sleeps_keeps_its_share_and_requests_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    models = SERVING.models[0].model_dump()
    models["versions"][0]["sleep_after_s"] = 60
    bench.control = bench.take_charge(Serving((ModelSettings.model_validate(models),)))
    await bench.come_up()
    bench.supervisor.rest("shapes", "v1")
    await until(lambda: bench.board.routes.models["shapes"].versions["v1"].state == "asleep")
    model = bench.board.routes.models["shapes"]
    assert model.versions["v1"].can_wake
    assert {model.split.choose(f"user={number}".encode()).version for number in range(50)} == {"v1"}
    assert not model.versions["v2"].can_wake, "it has failed"
    await bench.close()


async def test_an_engine_that_dies_is_taken_out_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    bench.spawner.processes[0].end(0)
    await until(lambda: bench.replicas("v1") == [])
    await bench.close()


async def test_defaults_and_system_prompt_reach_the_relay_as_raw_json(tmp_path: Path) -> None:
    version = Bench(tmp_path).board.routes.models["shapes"].versions["v1"]
    assert version.defaults == {"temperature": b"0.0"}
    assert version.system_prompt == "Look."


async def test_engines_that_are_older_than_control_are_published_and_are_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    caplog.clear()
    with caplog.at_level(logging.INFO, "gateway.control"):
        bench.take_charge(SERVING)
    assert bench.replicas("v1") == [f"unix://{tmp_path}/e.sock"]
    assert caplog.messages == []
    await bench.close()


async def test_people_see_shares_states_and_reasons(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    described: dict[str, Any] = bench.control.describe()[0]
    one, two, far = described["versions"]
    assert (one["share"], two["share"]) == (0.9, 0.1)
    assert one["engines"][0]["state"] == EngineState.READY
    assert two["engines"][0]["reason"] == "no such folder"
    assert two["adapters"] == ["mirror"]
    assert (one["endpoints"], far["endpoints"]) == ([], ["http://a:1", "http://b:1"])
    await bench.close()


async def test_a_version_is_loaded_gets_traffic_and_is_unloaded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    assert await bench.control.add_version("shapes", {"name": "v3", "engine": "simulated"}) == "shapes:v3"
    assert bench.board.routes.models["shapes"].versions["v3"].state == "not started"
    assert bench.kept[-1].list_versions() >= {("shapes", "v3")}
    assert await bench.control.set_split("shapes", {"v3": 1}) == bench.control.read_split("shapes")
    with pytest.raises(Conflict):
        await bench.control.remove_version("shapes", "v3")
    await bench.control.set_split("shapes", {"v1": 1})
    await bench.control.remove_version("shapes", "v3")
    assert "shapes:v3" not in bench.board.routes.public_names()
    await bench.close()


async def test_a_successor_takes_over_in_one_step_when_all_of_its_engines_are_ready(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    published: list[Routes] = []
    bench.control._publish = published.append
    await bench.control.add_version("shapes", {"name": "v3", "engine": "simulated", "replicas": 2}, replaces="v1")
    spares = [replace(engine_spec(tmp_path, f"shapes:v3#{n}"), socket=tmp_path / f"{n}.sock") for n in range(2)]
    bench.supervisor.start(spares[:1])
    await until(bench.supervisor.is_settled)
    await bench.act()
    assert "v1" in published[-1].models["shapes"].versions
    bench.supervisor.start(spares[1:])
    await until(bench.supervisor.is_settled)
    await bench.act()
    await bench.act()
    assert "v1" not in published[-1].models["shapes"].versions
    assert await bench.texts() == [
        "shapes:v3 takes the place of v1, which is unloaded",
        "shapes:v3 is being loaded to replace v1",
    ]
    for routes in published:
        shares = set(routes.models["shapes"].split.allocation.names) - routes.models["shapes"].split.out
        assert shares == ({"v1"} if "v1" in routes.models["shapes"].versions else {"v3"})
    assert len(published[-1].models["shapes"].versions["v3"].replicas) == 2
    assert bench.kept[-1].list_versions() == {("shapes", "v2"), ("shapes", "v3"), ("shapes", "far")}
    [left] = [version for version in bench.control.describe()[0]["versions"] if version["name"] == "v1"]
    assert (left["share"], left["engines"][0]["state"]) == (0.0, "ready"), "still shown until it is gone"
    with pytest.raises(Conflict, match="shapes:v1 still finishes its answers"):
        await bench.control.add_version("shapes", {"name": "v1", "engine": "simulated"})
    await bench.close()


async def test_a_successor_that_cannot_be_served_replaces_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    await bench.control.set_split("shapes", {"v1": 1})
    await bench.control.remove_version("shapes", "v2")
    bench.specs = bench.specs[:1]
    await bench.come_up()
    await bench.control.add_version("shapes", {"name": "v2", "engine": "simulated"}, replaces="v1")
    bench.supervisor.start([replace(engine_spec(tmp_path, "shapes:v2#0"), socket=tmp_path / "2.sock")])
    await until(bench.supervisor.is_settled)
    await bench.act()
    assert bench.control.serving.successors == {}
    assert "shapes:v2 can't be served: v1 stays in its place" in caplog.text
    assert len(bench.replicas("v1")) == 1
    await bench.close()


async def test_a_successor_waits_on_when_an_engine_fails_that_it_can_do_without(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    await bench.control.add_version("shapes", {"name": "v3", "engine": "simulated", "replicas": 2}, replaces="v1")
    spares = [replace(engine_spec(tmp_path, f"shapes:v3#{n}"), socket=tmp_path / f"{n}.sock") for n in range(3)]
    bench.supervisor.start(spares[:1])
    await until(bench.supervisor.is_settled)
    failed = next(one for one in bench.supervisor.statuses() if one.version == "v2")
    spare = replace(failed, name="shapes:v3#2", version="v3")
    ready = bench.supervisor.statuses()
    loading = replace(ready[-1], name="shapes:v3#1", state=EngineState.STARTING)
    bench.supervisor.statuses = lambda: [*ready, loading, spare]  # type: ignore[method-assign]
    await bench.act()
    assert bench.kept[-1].successors == {("shapes", "v3"): "v1"}
    bench.supervisor.statuses = lambda: [*ready, replace(loading, state=EngineState.READY), spare]  # type: ignore[method-assign]
    await bench.act()
    assert bench.kept[-1].list_versions() == {("shapes", "v2"), ("shapes", "v3"), ("shapes", "far")}
    await bench.close()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "v3"}, "needs a checkpoint folder"),
        ({"name": "v3", "checkpoint": "models/x"}, "checkpoint: should begin at the root of the gateway's machine"),
        ({"name": "v3", "checkpoint": "/no/such"}, "checkpoint: there is no such folder: /no/such"),
        ({"name": "v3", "engine": "simulated", "replicas": 0, "x": 1}, "x: is an unknown key"),
        ({"engine": "simulated"}, "name: is missing"),
        ([], "should be a valid dictionary"),
    ],
)
async def test_a_version_that_the_file_could_not_have_is_refused(tmp_path: Path, data: object, said: str) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(BadRequest, match=said):
        await bench.control.add_version("shapes", data)
    assert bench.kept == []


async def test_a_successor_elsewhere_may_take_its_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.remote.healthy = False
    bench.specs = bench.specs[:1]
    await bench.come_up()
    await bench.control.add_version("shapes", {"name": "v9", "endpoints": ["http://c:1"]}, replaces="v1")
    bench.supervisor.start([remote_spec("shapes:v9#0", "http://c:1")])
    await until(lambda: bench.supervisor.statuses()[-1].state is EngineState.FAILED)
    await bench.act()
    assert bench.kept[-1].successors == {("shapes", "v9"): "v1"}
    await bench.close()


async def test_relays_know_the_digests_of_what_is_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    keeper = next(iter(bench.supervisor._keepers.values()))
    keeper.status = replace(keeper.status, digests={"": "aa", "shapes:v1+a@12": "bb"})
    bench.control.note()
    assert bench.board.routes.models["shapes"].versions["v1"].digests == {"": "aa", "a": "bb"}
    assert bench.board.routes.models["shapes"].versions["v2"].digests == {}, "it has failed"
    await bench.close()


async def test_an_adapter_is_known_when_every_ready_engine_of_the_version_has_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one = remakeable(engine_spec(tmp_path, "shapes:v1#0"))
    bench.specs = [one, replace(remakeable(engine_spec(tmp_path, "shapes:v1#1")), socket=tmp_path / "b.sock")]
    await bench.come_up()
    await bench.control.set_adapter("shapes", "v1", "new", tmp_path)
    assert "shapes:v1+new" in bench.board.routes.public_names()
    keepers = list(bench.supervisor._keepers.values())
    keepers[0].status = replace(keepers[0].status, adapters=())
    bench.control.note()
    assert "shapes:v1+new" not in bench.board.routes.public_names()
    await bench.close()


@pytest.mark.parametrize(
    ("model", "version", "name", "kind", "said"),
    [
        ("none", "v1", "a", UnknownModel, "none:v1 is not served here"),
        ("shapes", "none", "a", UnknownModel, "shapes:none is not served here"),
        ("shapes", "v1", "a/b", BadRequest, "The name of an adapter should be letters"),
        ("shapes", "v1", "", BadRequest, "The name of an adapter"),
        ("shapes", "far", "a", BadRequest, "shapes:far+a: shapes:far has no engine here that takes adapters."),
        ("shapes", "v1", "a", BadRequest, "shapes:v1 has no engine here that takes adapters"),
    ],
)
async def test_what_cannot_be_mounted_is_refused(
    tmp_path: Path, model: str, version: str, name: str, kind: type[BadRequest], said: str
) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    with pytest.raises(kind) as caught:
        await bench.control.set_adapter(model, version, name, tmp_path)
    assert said in caught.value.message
    await bench.close()


async def test_an_adapter_that_lies_elsewhere_is_fetched_anew_and_mounted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.specs = [remakeable(engine_spec(tmp_path, "shapes:v1#0"))]
    await bench.come_up()
    await bench.control.set_adapter("shapes", "v1", "new", parse_address("hf://org/lora"))
    assert bench.fetcher.asked == [("hf://org/lora", True)]
    [keeper] = bench.supervisor._find_keepers("shapes", "v1")
    assert keeper.spec.adapters == (("shapes:v1+new", bench.fetcher.folder),)
    await bench.close()


@pytest.mark.parametrize(("is_final", "kind"), [(True, BadRequest), (False, NoCapacity)])
async def test_an_adapter_that_cannot_be_fetched_is_refused(
    tmp_path: Path, is_final: bool, kind: type[GatewayError]
) -> None:
    bench = Bench(tmp_path)
    await bench.mirror.look()
    bench.fetcher.failure = SourceFailed("the Hub said no", is_final=is_final)
    with pytest.raises(kind, match=r"^shapes:v1\+new: the Hub said no\.$"):
        await bench.control.set_adapter("shapes", "v1", "new", parse_address("hf://org/lora"))
    with pytest.raises(UnknownModel):
        await bench.control.set_adapter("none", "v1", "new", parse_address("hf://org/lora"))
    assert len(bench.fetcher.asked) == 1, "nothing is fetched for nobody"


async def test_changes_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)
    with caplog.at_level(logging.INFO, "gateway.control"):
        await bench.come_up()
    told = [message for message in caplog.messages if message.startswith("shapes:v1#0 is ready")]
    assert len(told) == 1
    await bench.close()


async def test_engines_elsewhere_become_replicas_under_the_name_they_call_themselves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    bench.remote.name = "org/shapes-7b"
    bench.specs = [remote_spec("shapes:far#0", "http://a:1"), remote_spec("shapes:far#1", "http://b:1")]
    with caplog.at_level(logging.INFO, "gateway.control"):
        await bench.come_up()
    version = bench.board.routes.models["shapes"].versions["far"]
    assert [replica.served_name for replica in version.replicas] == ["org/shapes-7b"] * 2
    assert (bench.replicas("far"), version.max_model_len) == (["http://a:1", "http://b:1"], 2048)
    assert caplog.messages == ["shapes:far#0 is ready", "shapes:far#1 is ready"]
    await bench.close()


async def test_the_policy_of_a_version_is_published(tmp_path: Path) -> None:
    versions = Bench(tmp_path).board.routes.models["shapes"].versions
    assert versions["v2"].pictures == PixelBounds(9)
    assert [version.routing for version in versions.values()] == ["least_loaded", "least_loaded", "round_robin"]


async def test_what_changes_nothing_for_relays_is_not_published(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    published: list[Routes] = []
    bench.board.publish = published.append  # type: ignore[method-assign]
    control = bench.take_charge(SERVING)
    control.note()
    control.note()
    assert len(published) == 1
    await bench.come_up()
    control.note()
    assert len(published) == 2
    assert published[0] != published[1]
    await bench.close()


async def test_what_was_changed_outlives_control(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.control.set_split("shapes", {"v1": 1, "v2": 1})
    await bench.control.add_version("shapes", {"name": "v3", "engine": "simulated"}, replaces="v2")
    later = Bench(tmp_path, store=bench.store)
    await later.mirror.look()
    later.control = later.take_charge(SERVING)
    assert later.control.serving == bench.control.serving
    assert later.kept[-1].list_versions() >= {("shapes", "v3")}, "its engines are to be started"
    assert later.board.routes == bench.board.routes
    await bench.close()


async def test_gateways_that_share_a_state_serve_alike(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    other = Bench(tmp_path, store=bench.store)
    await other.control.settle()
    await bench.control.set_split("shapes", {"v2": 1})
    await other.mirror.look()
    assert other.board.routes.models["shapes"].split == bench.board.routes.models["shapes"].split
    assert len(other.kept) == 2
    await other.control.set_split("shapes", {"v1": 1})
    with pytest.raises(Conflict):
        await bench.control.remove_version("shapes", "v1")
    assert bench.control.read_split("shapes") == {"v1": 1.0, "v2": 0.0, "far": 0.0}, "it knows by now"
    await bench.close()


async def test_without_the_state_nothing_is_changed_and_all_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.control.settle()
    await bench.come_up()

    async def fail(*args: object, **more: object) -> None:
        raise StateUnavailable("The state is away.")

    bench.store._run = fail  # type: ignore[method-assign,assignment]
    await bench.mirror.look()
    before = bench.board.routes
    for act in (
        lambda: bench.control.set_split("shapes", {"v1": 1}),
        lambda: bench.control.add_version("shapes", {"name": "v3", "engine": "simulated"}),
        lambda: bench.control.remove_version("shapes", "far"),
        lambda: bench.control.set_adapter("shapes", "v1", "new", tmp_path),
    ):
        with pytest.raises(StateUnavailable):
            await act()
    assert bench.board.routes is before
    assert bench.replicas("v1") != []
    del bench.store._run
    await bench.close()


async def test_a_document_that_cannot_be_read_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)
    await bench.control.set_split("shapes", {"v2": 1})
    revision = bench.mirror.snapshot.revision
    await bench.store.commit(revision, {"model/shapes": b"{", "model/unknown": b"{}", "other/x": b"?"})
    await bench.mirror.look()
    assert bench.control.read_split("shapes") == {"v1": 0.0, "v2": 1.0, "far": 0.0}
    assert "what the state says of shapes cannot be read" in caplog.text
    await bench.close()


async def test_what_is_done_is_told_once_in_the_log_and_in_the_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    with caplog.at_level(logging.INFO, "gateway.control"):
        await bench.control.set_split("shapes", {"v2": 1, "v1": 3})
        await bench.control.set_split("shapes", {"v2": 1, "v1": 3})
    assert await bench.texts() == ["shapes is split v1 0.75, v2 0.25, far 0"]
    assert caplog.messages.count("shapes is split v1 0.75, v2 0.25, far 0") == 1
    await bench.close()


async def test_who_is_told_of_readiness_is_told_of_changes_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    told: list[int] = []
    bench.control.on_standing = lambda: told.append(1)
    await bench.come_up()
    count = len(told)
    assert count >= 1
    bench.control.note()
    assert len(told) == count
    await bench.close()


async def test_an_adapter_that_was_mounted_elsewhere_is_mounted_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.adapters._MOUNT_AGAIN_S", 0)
    bench = Bench(tmp_path)
    other = Bench(tmp_path, store=bench.store)
    for one in (bench, other):
        one.specs = [remakeable(engine_spec(tmp_path, "shapes:v1#0"))]
    await bench.come_up()
    await bench.control.set_adapter("shapes", "v1", "new", tmp_path)
    await other.mirror.look()
    await asyncio.sleep(0.01)
    await other.come_up()
    await until(lambda: "shapes:v1+new" in other.board.routes.public_names())
    await bench.control.set_adapter("shapes", "v1", "new", None)
    await other.mirror.look()
    await until(lambda: "shapes:v1+new" not in other.board.routes.public_names())
    assert (await bench.texts())[0] == "shapes:v1+new is taken away"
    await other.control.close()
    await other.supervisor.close()
    await bench.close()


async def test_an_adapter_is_mounted_again_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.specs = [remakeable(engine_spec(tmp_path, "shapes:v1#0"))]
    await bench.come_up()
    await bench.control.set_adapter("shapes", "v1", "new", tmp_path)
    await bench.mirror.look()
    later = bench.take_charge(SERVING)
    assert later.serving.find_version("shapes", "v1").adapters == {"new": str(tmp_path)}
    await bench.close()


def file(*versions: str, **split: float) -> tuple[ModelSettings, ...]:
    known = SERVING.file[0].model_dump()
    own = {version["name"]: version for version in known["versions"]}
    listed = [own.get(name, {"name": name, "engine": "simulated"}) for name in versions]
    return (ModelSettings.model_validate(known | {"versions": listed, "split": split}),)


async def test_a_changed_file_counts_when_what_it_adds_is_ready(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    reloading = await bench.control.reload(file("v2", "v3", v3=1))
    assert reloading.awaited == {"shapes:v3"}
    assert set(bench.board.routes.models["shapes"].versions) == {"v1", "v2", "far", "v3"}
    assert bench.control.read_split("shapes")["v1"] == 0.9, "the old ones go on"
    bench.supervisor.start([replace(engine_spec(tmp_path, "shapes:v3#0"), socket=tmp_path / "3.sock")])
    await until(lambda: set(bench.board.routes.models["shapes"].versions) == {"v2", "v3"})
    assert bench.control.read_split("shapes") == {"v2": 0.0, "v3": 1.0}
    assert bench.kept[-1].list_versions() == {("shapes", "v2"), ("shapes", "v3")}
    await bench.close()


async def test_a_file_that_is_read_twice_waits_as_one_that_is_read_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    for _ in range(2):
        assert (await bench.control.reload(file("v2", "v3", v3=1))).awaited == {"shapes:v3"}
    assert bench.control.read_split("shapes")["v1"] == 0.9, "the old ones go on"
    bench.supervisor.start([replace(engine_spec(tmp_path, "shapes:v3#0"), socket=tmp_path / "3.sock")])
    await until(lambda: bench.control.read_split("shapes") == {"v2": 0.0, "v3": 1.0})
    await bench.close()


async def test_a_changed_file_whose_version_cannot_be_served_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    await bench.control.reload(file("v1", v1=1))
    bench.specs = bench.specs[:1]
    await bench.come_up()
    await bench.control.reload(file("v1", "v2", v2=1))
    bench.supervisor.start([replace(engine_spec(tmp_path, "shapes:v2#0"), socket=tmp_path / "2.sock")])
    await until(lambda: "the settings file is not served: shapes:v2 cannot be" in caplog.text)
    assert bench.control.serving.file == file("v1", v1=1)
    await bench.close()


async def test_a_changed_file_yields_to_what_was_changed_at_run_time_unless_that_is_reset(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    await bench.control.set_split("shapes", {"v2": 1})
    await bench.control.reload(file("v1", "v2", v1=1, v2=1))
    assert bench.control.read_split("shapes") == {"v1": 0.0, "v2": 1.0}
    await bench.control.reload(file("v1", "v2", v1=1, v2=1), is_reset=True)
    assert bench.control.read_split("shapes") == {"v1": 0.5, "v2": 0.5}
    await bench.close()


async def test_a_file_that_changes_what_is_served_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    models = SERVING.file[0].model_dump()
    models["versions"][0]["engine_args"] = {"tokens": 1}
    with pytest.raises(BadRequest, match="shapes:v1 is served with another engine_args"):
        await bench.control.reload((ModelSettings.model_validate(models),))
    assert bench.control.serving.file == SERVING.file
    await bench.close()


async def test_what_the_supervisor_notes_of_an_engine_is_an_event(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    [keeper] = bench.supervisor._find_keepers("shapes", "v1")
    keeper.annotate("speculation is switched off: too few guesses are right")
    keeper.annotate("speculation is switched off: too few guesses are right")
    await bench.mirror._tell_late()
    said = [event.text for event in await bench.store.read_events(20) if event.kind == "engine"]
    assert said == ["shapes:v1#0: speculation is switched off: too few guesses are right"]
    await bench.close()
