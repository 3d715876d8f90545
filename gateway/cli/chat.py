"""`gateway chat`: one question, with pictures or a video if given, streamed to the terminal."""

import argparse
import base64
import json
import mimetypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

_TIMEOUT = httpx.Timeout(10.0, read=600.0)


class ChatFailed(Exception):
    """The question could not be asked or answered; the message is for people."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's flags."""
    parser = subparsers.add_parser("chat", help="ask a model, with pictures, and stream the answer to the terminal")
    parser.add_argument("text", help="the question; - reads it from standard input")
    parser.add_argument(
        "--image", action="append", default=[], metavar="F", help="picture: a file or a URL; may be repeated"
    )
    parser.add_argument("--video", action="append", default=[], metavar="F", help="video: a file or a URL")
    parser.add_argument("--model", help="model, model:version or model:version+adapter (default: the first one served)")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    parser.add_argument("--seed", type=int, metavar="N", help="make sampling repeatable")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway (default: %(default)s)")
    parser.add_argument("--key", metavar="KEY", help="API key, where the gateway asks for one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print. Exit code 1 if there is no answer, 2 if a picture can't be read."""
    try:
        body = build_question(args)
    except OSError as error:
        print(f"gateway chat: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    headers = {"authorization": f"Bearer {args.key}"} if args.key else {}
    try:
        with httpx.Client(base_url=args.url, timeout=_TIMEOUT, headers=headers, trust_env=False) as client:
            body["model"] = args.model or _first_model(client)
            for piece in stream_answer(client, body):
                print(piece, end="", flush=True)
    except httpx.ConnectError:
        print(f"gateway chat: nobody answers at {args.url}: is `gateway serve` running?", file=sys.stderr)
        return 1
    except (ChatFailed, httpx.HTTPError) as error:
        print(f"gateway chat: {error}", file=sys.stderr)
        return 1
    print()
    return 0


def build_question(args: argparse.Namespace) -> dict[str, Any]:
    """The chat request for the flags given. Raises OSError for files that can't be read."""
    text = sys.stdin.read() if args.text == "-" else args.text
    parts: list[dict[str, Any]] = []
    for kind, sources in (("image_url", args.image), ("video_url", args.video)):
        parts += [{"type": kind, kind: {"url": to_url(source)}} for source in sources]
    content: Any = [*parts, {"type": "text", "text": text}] if parts else text
    system = [{"role": "system", "content": args.system}] if args.system else []
    body: dict[str, Any] = {"messages": [*system, {"role": "user", "content": content}], "stream": True}
    chosen = {"max_tokens": args.max_tokens, "temperature": args.temperature, "seed": args.seed}
    return body | {name: value for name, value in chosen.items() if value is not None}


def to_url(source: str) -> str:
    """A URL as it is; a file as a data URI. Raises OSError if the file can't be read."""
    if source.startswith(("http://", "https://", "data:")):
        return source
    path = Path(source)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def stream_answer(client: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    """The answer's text as it comes. Raises ChatFailed with the gateway's own sentence."""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise ChatFailed(_sentence(answer.read(), answer.status_code))
        for line in answer.iter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            event = json.loads(data)
            if "error" in event:
                raise ChatFailed(f"the answer broke off: {event['error']['message']}")
            for choice in event.get("choices", []):
                yield choice["delta"].get("content") or ""


def _first_model(client: httpx.Client) -> str:
    answer = client.get("/v1/models")
    if answer.status_code != 200:
        raise ChatFailed(_sentence(answer.content, answer.status_code))
    cards = answer.json()["data"]
    if not cards:
        raise ChatFailed("the gateway serves no model")
    name: str = cards[0]["id"]
    return name


def _sentence(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the answer was {status}: {body[:200].decode(errors='replace')}"
