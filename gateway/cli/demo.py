"""What `gateway serve --demo` says: it asks the first question itself, so that one sees an answer, and how to go on."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.app import Gateway

if TYPE_CHECKING:
    import httpx

_PICTURES = Path(__file__).parent.parent / "demo" / "pictures"


async def greet(gateway: Gateway) -> None:
    """Wait for an engine, ask it about a shipped picture, and print the answer and what to try next."""
    # Late, since httpx is slow to import and the ports should be up first.
    import httpx

    from gateway.cli.chat import to_url

    started_s = time.monotonic()
    name, samples = next(iter(json.loads((_PICTURES / "answers.json").read_text()).items()))
    picture, question = _PICTURES / name, samples[0]["question"]
    content = [
        {"type": "image_url", "image_url": {"url": to_url(str(picture))}},
        {"type": "text", "text": question},
    ]
    body = {"messages": [{"role": "user", "content": content}]}
    async with httpx.AsyncClient(base_url=gateway.public_url, timeout=60.0, trust_env=False) as client:
        answer = await _ask_until_ready(client, gateway, body)
    if answer is None:
        print("\nno engine of the demo came up: `gateway models` shows why\n", flush=True)
        return
    took_s = time.monotonic() - started_s
    version = answer.headers["x-gateway-version"]
    text = answer.json()["choices"][0]["message"]["content"]
    print(
        f"\n  asked shapes:{version} about {picture.name}, {took_s:.1f} s after the start\n"
        f"    {question}\n"
        f"    {text}\n\n"
        "  now yours:\n"
        f'    gateway chat --url {gateway.public_url} --image {picture} "{question}"\n'
        f"    gateway models --admin-url {gateway.admin_url}\n"
        f"    curl {gateway.public_url}/v1/models\n",
        flush=True,
    )


async def _ask_until_ready(
    client: "httpx.AsyncClient", gateway: Gateway, body: dict[str, Any]
) -> "httpx.Response | None":
    import httpx

    while True:
        was_settled = gateway.engines.is_settled()
        for name in gateway.engines.ready_names():
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.post("/v1/chat/completions", json=body | {"model": name})
                if answer.status_code == 200:
                    return answer
        if was_settled:
            return None
        await asyncio.sleep(0.1)
