"""An admin port whose answers the test gives, under a command of the command line."""

import json
from types import ModuleType
from typing import Any

import httpx
import pytest

from gateway.cli import main

RealClient = httpx.Client


class FakeAdmin:
    """Answers calls in their order; `asked` has method, path and body of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[httpx.Headers] = []
        transport = httpx.MockTransport(self._handle)
        monkeypatch.setattr(httpx, "Client", lambda **options: RealClient(transport=transport, **options))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        self.headers.append(request.headers)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, command: ModuleType, *words: str) -> int:
        """Run a command as from the command line."""
        return main([command.__name__.rpartition(".")[2], *words])
