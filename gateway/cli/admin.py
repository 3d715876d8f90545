"""The admin port as the commands that ask it see it: where it is, its key, and its answers."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from gateway.settings import AdminSettings

_AGAIN_S = 1.0


class AdminFailed(Exception):
    """The admin port gave no usable answer; the message is for people."""


class AdminAway(AdminFailed):
    """The admin port cannot answer now; it may in a moment."""


class AdminPort:
    """Asks one admin port."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer to one call, below `/admin/v1`. Raises AdminFailed, in the port's own words."""
        try:
            request = self._client.build_request(method, f"/admin/v1/{path}", json=body, params=query)
        except (TypeError, ValueError) as error:  # YAML knows dates, and numbers without an end
            raise AdminFailed(f"that cannot be sent as JSON: {error}") from error
        answer = self._client.send(request)
        if answer.status_code == 401:
            raise AdminFailed(f"the admin port needs its key: set {AdminSettings().key_env}")
        if answer.status_code == 503:
            raise AdminAway(_read_message(answer))
        if answer.status_code >= 300:
            raise AdminFailed(_read_message(answer))
        found: dict[str, Any] = answer.json()
        return found

    def ask_patiently(self, path: str, patience_s: float = 60.0) -> dict[str, Any]:
        """As `ask`, for one who watches: a gateway that is away for a while, as in a deploy, ends nothing."""
        until_s = time.monotonic() + patience_s
        while True:
            try:
                return self.ask("GET", path)
            except (AdminAway, httpx.TransportError):
                if time.monotonic() >= until_s:
                    raise
                time.sleep(_AGAIN_S)


def add_flags(parser: argparse.ArgumentParser, run: Callable[[AdminPort, argparse.Namespace], int]) -> None:
    """Add what all such commands have, and let `run` be what the command does."""
    parser.add_argument("--admin-url", default="http://127.0.0.1:9000", help="the admin port (default: %(default)s)")
    parser.set_defaults(run=lambda args: _connect(args, run))


def _connect(args: argparse.Namespace, run: Callable[[AdminPort, argparse.Namespace], int]) -> int:
    """Do `run`; exit code 1 with a sentence where the port cannot be asked or refuses."""
    key = os.environ.get(AdminSettings().key_env)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    name = f"gateway {args.command}"
    try:
        with httpx.Client(base_url=args.admin_url, timeout=10.0, headers=headers, trust_env=False) as client:
            return run(AdminPort(client), args)
    except httpx.ConnectError:
        print(f"{name}: nobody answers at {args.admin_url}: is `gateway serve` running?", file=sys.stderr)
    except (AdminFailed, httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"{name}: {error}", file=sys.stderr)
    return 1


def _read_message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the admin port answered {answer.status_code}: {answer.text[:200]}"
