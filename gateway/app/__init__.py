"""Builds every object, joins them, runs the two ports and closes everything again. Alone in knowing all rooms.

With one relay everything runs in one process (`single`); with more, `several` is the main process, which keeps the
engines and starts `control` and one `relay` for each.
"""

import asyncio
import logging
import os

import uvloop

from gateway.app.running import Gateway, OnUp
from gateway.app.state_file import find_state
from gateway.settings import Settings

__all__ = ["Gateway", "run"]

logger = logging.getLogger(__name__)


def run(settings: Settings, on_up: OnUp | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `on_up` runs beside it once both ports answer."""
    # The settings hold it; engines, which run a checkpoint's code, and relays inherit the environment.
    os.environ.pop(settings.admin.key_env, None)
    try:
        settings = find_state(settings)
    except OSError as error:
        logger.error("state.url: the file cannot be written (%s): give the right to, or name another", error.strerror)  # noqa: TRY400
        return 1
    if settings.server.relays == 1:
        from gateway.app.single import serve
    else:  # the main process answers nothing itself and does without a web framework
        from gateway.app.several import serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, on_up))
