"""How far an engine has come in loading, read from its own log lines. For people; nothing is decided by it."""

import re

# In the order in which vLLM says them; each names what begins with that line.
_PHASES = (
    (re.compile(r"vLLM API server version|non-default args"), "starting vLLM", 0.15),
    (re.compile(r"Resolved architecture"), "reading the configuration", 0.3),
    (re.compile(r"Initializing a V1 LLM engine"), "starting the engine core", 0.4),
    (re.compile(r"Starting to load model|Loading model"), "loading weights", 0.5),
    (re.compile(r"Loading weights took|Model loading took"), "profiling memory", 0.75),
    (re.compile(r"GPU KV cache size|CPU KV cache|KV cache size"), "setting up the KV cache", 0.8),
    (re.compile(r"Capturing CUDA|Compiling a graph|torch\.compile takes"), "compiling", 0.85),
    (re.compile(r"Starting vLLM (API )?server|Application startup complete"), "opening the server", 0.92),
)
_SHARDS = re.compile(r"Loading \S* ?checkpoint shards:\s+(\d+)%")


class LoadProgress:
    """Turns lines into a phase and a fraction from 0 to 1 that never goes back."""

    def __init__(self) -> None:
        self.phase = ""
        self.fraction = 0.0

    def read(self, line: str) -> bool:
        """Take one line; True if it moved the progress."""
        if shards := _SHARDS.search(line):
            return self._advance("loading weights", 0.5 + 0.25 * int(shards[1]) / 100)
        for pattern, phase, fraction in _PHASES:
            if pattern.search(line):
                return self._advance(phase, fraction)
        return False

    def _advance(self, phase: str, fraction: float) -> bool:
        if fraction <= self.fraction:
            return False
        self.phase, self.fraction = phase, fraction
        return True
