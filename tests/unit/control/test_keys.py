import hashlib

import pytest

from gateway.control.keys import Keys
from gateway.control.mirror import StateMirror
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.settings import KeySettings
from gateway.state.sqlite import SqliteStore
from gateway.traffic.routes import Caller

FILE = (KeySettings(name="laptop", sha256="ab" * 32, may_pin=False),)


class Bench:
    def __init__(self, store: SqliteStore | None = None) -> None:
        self.store = store or SqliteStore(None)
        self.mirror = StateMirror(self.store)
        self.keys = Keys(FILE, self.mirror)


async def test_a_key_is_seen_once_and_lets_its_owner_in() -> None:
    bench = Bench()
    key = await bench.keys.make("ci", may_pin=False)
    assert key.startswith("gw-")
    assert len(key) > 40
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    assert bench.keys.callers() == {"ab" * 32: Caller("laptop", may_pin=False), sha256: Caller("ci", may_pin=False)}
    assert key not in str(bench.keys.describe()) + str(dict(bench.mirror.snapshot.documents))
    [event] = await bench.store.read_events(5)
    assert (event.kind, event.text, key in str(event)) == ("key_made", "the key ci is made", False)
    await bench.store.close()


async def test_a_removed_key_lets_nobody_in() -> None:
    bench = Bench()
    await bench.keys.make("ci", may_pin=True)
    await bench.keys.remove("ci")
    assert [key["name"] for key in bench.keys.describe()] == ["laptop"]
    assert set(bench.keys.callers()) == {"ab" * 32}
    assert [event.kind for event in await bench.store.read_events(5)] == ["key_removed", "key_made"]
    await bench.store.close()


async def test_keys_are_known_to_every_gateway_of_the_state() -> None:
    bench = Bench()
    other = Bench(bench.store)
    key = await bench.keys.make("ci", may_pin=True)
    await other.mirror.look()
    assert other.keys.callers()[hashlib.sha256(key.encode()).hexdigest()] == Caller("ci")
    assert [(key["name"], key["source"]) for key in other.keys.describe()] == [("laptop", "file"), ("ci", "state")]
    await bench.store.close()


async def test_keys_of_the_file_are_changed_there() -> None:
    bench = Bench()
    with pytest.raises(Conflict, match="remove it there, and reload"):
        await bench.keys.remove("laptop")
    bench.keys.renew([KeySettings(name="other", sha256="cd" * 32)])
    assert set(bench.keys.callers()) == {"cd" * 32}
    await bench.store.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("laptop", Conflict), ("ci", Conflict), ("a b", BadRequest), ("", BadRequest), ("x/y", BadRequest)],
)
async def test_names_that_cannot_be_had(name: str, kind: type[Exception]) -> None:
    bench = Bench()
    await bench.keys.make("ci", may_pin=True)
    with pytest.raises(kind):
        await bench.keys.make(name, may_pin=True)
    with pytest.raises(NotFound):
        await bench.keys.remove("none")
    assert len(bench.keys.callers()) == 2
    await bench.store.close()


async def test_what_cannot_be_read_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    await bench.store.commit(0, {"key/odd": b"{}", "model/m": b"{}"})
    await bench.mirror.look()
    assert set(bench.keys.callers()) == {"ab" * 32}
    assert "the key odd cannot be read" in caplog.text
    await bench.store.close()
