import pytest

from gateway.errors import BadRequest, UnknownModel
from gateway.fleet.replica import Replica
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, RouteBoard, Routes, VersionRoute
from gateway.traffic.split import Split

VERSIONS = {"v1": VersionRoute("v1"), "v2": VersionRoute("v2", adapters={"mirror": "shapes:v2+mirror"})}
ROUTES = Routes(
    {"shapes": ModelRoute("shapes", VERSIONS, Split.over("shapes", Allocation.divide({"v1": 1.0, "v2": 0.0})))}
)


@pytest.mark.parametrize(
    ("name", "pinned", "version", "engine_name"),
    [
        ("shapes", None, "v1", "its-own-name"),
        ("shapes", "v2", "v2", "its-own-name"),
        ("shapes:v2", None, "v2", "its-own-name"),
        ("shapes:v2", "v2", "v2", "its-own-name"),
        ("shapes:v2+mirror", None, "v2", "shapes:v2+mirror"),
    ],
)
def test_names_and_pins_are_resolved(name: str, pinned: str | None, version: str, engine_name: str) -> None:
    target = ROUTES.resolve(name, pinned, b"key")
    replica = Replica("x-0", "shapes", version, "http://a:1", "its-own-name")
    assert (target.version.name, target.engine_name(replica), target.public_name) == (version, engine_name, name)


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "shapes:",
        "shapes:v9",
        "shapes:v1+mirror",
        "shapes:v2+",
        "shapes:v2+x",
        "shapes+mirror",
        "",
        ":v1",
        "shapes:v1:v2",
    ],
)
def test_names_nobody_serves_are_unknown_and_the_known_ones_told(name: str) -> None:
    with pytest.raises(UnknownModel, match="shapes:v2") as caught:
        ROUTES.resolve(name, None, b"key")
    assert caught.value.status == 404


def test_a_pin_to_an_unknown_version_is_unknown() -> None:
    with pytest.raises(UnknownModel):
        ROUTES.resolve("shapes", "v9", b"key")


def test_a_pin_that_contradicts_the_name_is_refused() -> None:
    with pytest.raises(BadRequest, match="drop one"):
        ROUTES.resolve("shapes:v1", "v2", b"key")


def test_public_names() -> None:
    assert ROUTES.public_names() == ["shapes", "shapes:v1", "shapes:v2", "shapes:v2+mirror"]


def test_the_board_holds_the_newest_snapshot() -> None:
    board = RouteBoard()
    assert board.routes.models == {}
    board.publish(ROUTES)
    assert board.routes is ROUTES
