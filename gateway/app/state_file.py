"""Whether the file that keeps the state can be written; without one that was asked for, memory has to do."""

import logging
from pathlib import Path

from gateway.settings import Settings

logger = logging.getLogger(__name__)

_FILE, _MEMORY = "sqlite:///", "sqlite://"


def find_state(settings: Settings) -> Settings:
    """The settings with a state that can be written. Raises OSError for a file that was asked for and cannot be.

    Somebody who tries the gateway on a laptop has no right to the default, and should not need it.
    """
    url = settings.state.url
    if not url.startswith(_FILE):
        return settings
    file = Path(url.removeprefix(_MEMORY))
    try:
        file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except OSError as error:
        if "url" in settings.state.model_fields_set:
            raise
        logger.warning(
            "%s cannot be written (%s): what is changed at run time lasts until the end; state.url names another place",
            file, error.strerror,
        )  # fmt: skip
        return settings.model_copy(update={"state": settings.state.model_copy(update={"url": _MEMORY})})
    return settings
