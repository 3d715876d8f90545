from gateway.app.relay import REPORT_EVERY_S
from gateway.engines.tools import KeeperTiming


def test_an_engine_is_quiet_only_when_every_relay_has_said_so_twice() -> None:
    assert KeeperTiming().quiet_s >= 2 * REPORT_EVERY_S
