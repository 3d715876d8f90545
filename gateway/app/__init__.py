"""Builds every object, joins them, runs the two ports and closes everything again. Alone in knowing all rooms.

With one relay everything runs in one process (`single`); with more, `several` is the main process, which keeps the
engines and starts `control` and one `relay` for each.
"""

import asyncio
import os

import uvloop

from gateway.app.running import Gateway, OnUp
from gateway.settings import Settings

__all__ = ["Gateway", "run"]


def run(settings: Settings, on_up: OnUp | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `on_up` runs beside it once both ports answer."""
    # The settings hold it; engines, which run a checkpoint's code, and relays inherit the environment.
    os.environ.pop(settings.admin.key_env, None)
    if settings.server.relays == 1:
        from gateway.app.single import serve
    else:  # the main process answers nothing itself and does without a web framework
        from gateway.app.several import serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, on_up))
