"""What the gateway's processes tell each other: the only vocabulary between them.

All of it goes through the main process: control and relays have no channel between each other, so that either can die
and come back without the other's noticing.
"""

from typing import Any

import msgspec

from gateway.control.mirror import UNKNOWN
from gateway.engines.engine import EngineStatus
from gateway.errors import Fault
from gateway.fleet.replica import Replica
from gateway.state import Snapshot
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.observations import Observed
from gateway.traffic.routes import Routes


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


class Engines(Message, frozen=True):
    """Main to control: every engine's status, and those that may be sent requests."""

    statuses: list[EngineStatus] = []
    replicas: list[Replica] = []


class Welcome(Message, frozen=True):
    """Main to a new process: what it is to go by. `settings` is what concerns it of the tree, as JSON.

    Control gets the `engines` as they are, what is `serving`, as its predecessor wrote it in a `Keep` if there was one,
    what that one had read of the `state`, the `name` of this gateway, and when all of this was `started`, in seconds
    since the epoch. A relay gets the `routes` as they stand, and as `counts` what its predecessor had counted: it
    counts on from there, so that sums over all relays never fall.
    """

    settings: bytes
    engines: Engines = Engines()
    serving: bytes = b""
    state: Snapshot = UNKNOWN
    name: str = ""
    started: int = 0
    routes: Routes = Routes()
    counts: RelayCounts = msgspec.field(default_factory=RelayCounts)


class Up(Message, frozen=True):
    """Control or a relay to main: it answers from now on."""


class Hurry(Message, frozen=True):
    """Main to a relay that drains: end what is still running."""


class Reload(Message, frozen=True):
    """Main to control: read the settings file again."""


class Alive(Message, frozen=True):
    """Control to main, again and again: its event loop still turns. A relay's reports say the same."""


class Keep(Message, frozen=True):
    """Control to main: what is served from now on, so that main keeps its engines."""

    serving: bytes


class KeepSettings(Message, frozen=True):
    """Control to main: the settings as JSON, as its successor is to get them: the file was read again."""

    settings: bytes


class Remember(Message, frozen=True):
    """Control to main: what it has read of the state, for its successor."""

    state: Snapshot


class SetAdapter(Message, frozen=True):
    """Control to main: mount an adapter from a folder on a version's engines, or with None take it away."""

    number: int
    model: str
    version: str
    adapter: str
    folder: str | None


class AdapterSet(Message, frozen=True):
    """Main to control: what became of the `SetAdapter` of that number; `fault` says why it was refused."""

    number: int
    fault: str | None = None


class NewRoutes(Message, frozen=True):
    """Control to main, and on to every relay. `published_s` is the monotonic clock, one for the whole machine."""

    routes: Routes
    published_s: float


class Demand(Message, frozen=True):
    """A relay to main: requests wait for a version whose engines sleep."""

    model: str
    version: str


class Report(Message, frozen=True):
    """A relay to main, each second and when asked.

    `counts` are those since the relay's first predecessor began, `running` the requests under way by engine address.
    `routes_delay_s` is how long the last snapshot was on its way; `answers` the number of the `Ask`, 0 for none.
    """

    counts: RelayCounts
    running: dict[str, int]
    routes_delay_s: float = 0.0
    answers: int = 0


class Observations(Message, frozen=True):
    """A relay to main, and on to control: requests that have ended."""

    observed: Observed


class GiveFeedback(Message, frozen=True):
    """A relay to main, which adds the number of the `relay`, and on to control: what a client says of a request."""

    number: int
    request_id: str
    metric: str
    value: float
    caller: str
    relay: int = 0


class FeedbackGiven(Message, frozen=True):
    """Control to main, and on to the relay: what became of the `GiveFeedback` of that number."""

    number: int
    relay: int
    told: dict[str, Any] = {}
    fault: Fault | None = None


class Ask(Message, frozen=True):
    """Control to main, and on to every relay: report now."""

    number: int


class RelayState(msgspec.Struct, frozen=True):
    """What main knows of one relay: how often it was started, and its last report, if it made one."""

    starts: int
    report: Report | None = None


class Reports(Message, frozen=True):
    """Main to control: every relay, in their order; the answer to the `Ask` of that number."""

    number: int
    relays: list[RelayState] = []


_FromMain = Welcome | Engines | AdapterSet | Reports | Hurry | Reload
_FromControl = Up | Alive | Keep | KeepSettings | Remember | NewRoutes | Ask | SetAdapter | FeedbackGiven
_FromRelays = Demand | Report | Observations | GiveFeedback

AnyMessage = _FromMain | _FromControl | _FromRelays
