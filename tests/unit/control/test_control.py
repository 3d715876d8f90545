import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.control.control import Control
from gateway.engines.engine import Admission, EngineSpec, EngineState
from gateway.engines.keeper import KeeperTiming, KeeperTools
from gateway.engines.remote import RemoteSpec
from gateway.engines.supervisor import Supervisor
from gateway.errors import BadRequest, UnknownModel
from gateway.settings import ModelSettings, Settings
from gateway.traffic.routes import PixelBounds, RouteBoard, Routes
from tests.support.fake_engines import FakeProbe, FakeSpawner, engine_spec, remakeable, remote_spec, until

SETTINGS = Settings(
    models=(
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


class Bench:
    def __init__(self, folder: Path) -> None:
        self.board = RouteBoard()
        self.spawner = FakeSpawner()
        tools = KeeperTools(
            spawner=self.spawner, fork_spawner=None, make_probe=lambda spec: FakeProbe(),
            admit=lambda spec: Admission("no such folder" if spec.version == "v2" else None),
            explain=lambda lines, code: f"it ended with {code}", slots=asyncio.Semaphore(2), turns=asyncio.Lock(), on_change=lambda status: self.control.note(),
        )  # fmt: skip
        timing = KeeperTiming(poll_s=0, stop_grace_s=0.01, first_pause_s=60)
        self.remote = FakeProbe()
        self.supervisor = Supervisor(tools, timing, lambda spec: self.remote)
        self.control = Control(SETTINGS, self.supervisor, self.board.publish)
        one, two = engine_spec(folder, "shapes:v1#0"), engine_spec(folder, "shapes:v2#0")
        two = replace(two, socket=folder / "other.sock", adapters=(("shapes:v2+mirror", folder),))
        self.specs: list[EngineSpec | RemoteSpec] = [one, two]

    async def come_up(self) -> None:
        self.supervisor.start(self.specs)
        await until(self.supervisor.is_settled)

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
    await bench.supervisor.close()


async def test_a_version_without_an_engine_gives_its_share_to_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    def chosen() -> set[str]:
        split = bench.board.routes.models["shapes"].split
        return {split.choose(f"user={number}".encode()) for number in range(200)}

    assert chosen() == {"v1", "v2"}
    await bench.come_up()
    assert chosen() == {"v1"}
    await bench.supervisor.close()


async def test_an_engine_that_dies_is_taken_out_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.come_up()
    bench.spawner.processes[0].end(0)
    await until(lambda: bench.replicas("v1") == [])
    await bench.supervisor.close()


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
        Control(SETTINGS, bench.supervisor, bench.board.publish)
    assert bench.replicas("v1") == [f"unix://{tmp_path}/e.sock"]
    assert caplog.messages == []
    await bench.supervisor.close()


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
    await bench.supervisor.close()


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
    await bench.supervisor.close()


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
    await bench.supervisor.close()


async def test_changes_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)
    with caplog.at_level(logging.INFO, "gateway.control"):
        await bench.come_up()
    told = [message for message in caplog.messages if message.startswith("shapes:v1#0 is ready")]
    assert len(told) == 1
    await bench.supervisor.close()


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
    await bench.supervisor.close()


async def test_the_policy_of_a_version_is_published(tmp_path: Path) -> None:
    versions = Bench(tmp_path).board.routes.models["shapes"].versions
    assert versions["v2"].pictures == PixelBounds(9)
    assert [version.routing for version in versions.values()] == ["least_loaded", "least_loaded", "round_robin"]


async def test_what_changes_nothing_for_relays_is_not_published(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    published: list[Routes] = []
    control = Control(SETTINGS, bench.supervisor, published.append)
    control.note()
    control.note()
    assert len(published) == 1
    await bench.come_up()
    control.note()
    assert len(published) == 2
    assert published[0] != published[1]
    await bench.supervisor.close()
