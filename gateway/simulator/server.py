"""The simulated server: the routes of vLLM, and `GET /simulator/last`, which shows the last request that had a body."""

import asyncio
import base64
import socket
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.simulator.answers import Body, Endpoint, RefusalError, encode, read_chat
from gateway.simulator.engine import Engine
from gateway.simulator.generation import find_model, make_answer, read_body
from gateway.simulator.http import Connection, Exchange, Request
from gateway.simulator.messages import MESSAGE
from gateway.simulator.openai import CHAT, COMPLETION
from gateway.simulator.options import Options
from gateway.simulator.responses import RESPONSE
from gateway.simulator.text import read_text, write_text

_VERSION = "0.32.0"
_GENERATING = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE,
}


class Server:
    """Listens and answers. One writer: the event loop it was started in."""

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._last: Body = {}
        self._created = int(time.time())
        self._routes: dict[tuple[str, str], Callable[[Request, Exchange], Awaitable[None]]] = {
            ("GET", "/health"): self._send_health,
            ("GET", "/ping"): self._send_health,
            ("GET", "/version"): self._send_version,
            ("GET", "/metrics"): self._send_metrics,
            ("GET", "/v1/models"): self._send_models,
            ("GET", "/simulator/last"): self._send_last,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/v1/chat/completions/render"): self._render,
            ("POST", "/v1/completions/render"): self._render,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("POST", "/v1/embeddings"): self._embed,
            ("POST", "/v1/load_lora_adapter"): self._load_adapter,
            ("POST", "/v1/unload_lora_adapter"): self._unload_adapter,
            **({("POST", "/sleep"): self._sleep, ("POST", "/wake_up"): self._wake_up} if options.can_sleep else {}),
            **{("POST", path): self._generate for path in _GENERATING},
        }

    async def start(self) -> str:
        """Listen, and return the address. Like vLLM, a socket file that is left over is an error (OSError)."""
        loop = asyncio.get_running_loop()

        def connect() -> Connection:
            return Connection(self._answer, self._connections)

        if self._options.uds:
            listener = socket.socket(socket.AF_UNIX)
            try:
                listener.bind(self._options.uds)
            except OSError:
                listener.close()
                raise
            self._server = await loop.create_unix_server(connect, sock=listener)
            return f"unix:{self._options.uds}"
        self._server = await loop.create_server(connect, self._options.host, self._options.port)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Let running answers finish within the shutdown timeout, then close everything."""
        await self._engine.drain()
        if self._server:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    async def _answer(self, request: Request, exchange: Exchange) -> None:
        if request.body:
            shown = {"method": request.method, "path": request.path, "headers": request.headers}
            self._last = {**shown, "body": request.body.decode("utf-8", "replace")}
        request_id = request.headers.get("x-request-id")
        if request_id and self._options.echo_request_id:
            exchange.extra_headers["x-request-id"] = request_id
        try:
            if not self._is_allowed(request):
                await exchange.send(401, b'{"error":"Unauthorized"}')
                return
            await self._find_route(request)(request, exchange)
        except RefusalError as refusal:
            await exchange.send(refusal.code, encode(_write_error(request.path, refusal)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if exchange.has_begun:
                raise
            # Bodies of the wrong shape that no check above foresaw: vLLM too calls them the client's fault.
            shapeless = RefusalError(f"1 validation error: {error}", None, "Bad Request")
            await exchange.send(shapeless.code, encode(_write_error(request.path, shapeless)))

    def _is_allowed(self, request: Request) -> bool:
        key = self._options.api_key
        return not key or not request.path.startswith("/v1") or request.headers.get("authorization") == f"Bearer {key}"

    def _find_route(self, request: Request) -> Callable[[Request, Exchange], Awaitable[None]]:
        route = self._routes.get((request.method, request.path))
        if route is None and any(path == request.path for _, path in self._routes):
            raise RefusalError("Method Not Allowed", None, "Method Not Allowed", 405)
        if route is None:
            raise RefusalError("Not Found", None, "Not Found", 404)
        return route

    async def _generate(self, request: Request, exchange: Exchange) -> None:
        endpoint: Endpoint = _GENERATING[request.path]
        body = _read(request)
        answer = make_answer(self._options, endpoint, body, request.headers.get("x-request-id"))
        await self._engine.give(endpoint, answer, exchange)

    async def _sleep(self, _request: Request, exchange: Exchange) -> None:
        self._engine.pause()
        await exchange.send(200, encode({"status": "sleeping", "level": 1}))

    async def _wake_up(self, _request: Request, exchange: Exchange) -> None:
        self._engine.resume()
        await exchange.send(200, encode({"status": "awake", "tags": None}))

    async def _load_adapter(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        name, path = body["lora_name"], body["lora_path"]
        if name in self._options.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            raise RefusalError(message, None, "InvalidUserInput", 400)
        self._options.adapters[name] = path
        await exchange.send(200, f"Success: LoRA adapter '{name}' added successfully.".encode(), "text/plain")

    async def _unload_adapter(self, request: Request, exchange: Exchange) -> None:
        name = _read(request)["lora_name"]
        if self._options.adapters.pop(name, None) is None:
            raise RefusalError(f"The lora adapter '{name}' cannot be found.", None, "NotFoundError", 404)
        await exchange.send(200, f"Success: LoRA adapter '{name}' removed successfully.".encode(), "text/plain")

    async def _send_health(self, _request: Request, exchange: Exchange) -> None:
        await exchange.send(200, b"")

    async def _send_version(self, _request: Request, exchange: Exchange) -> None:
        await exchange.send(200, encode({"version": _VERSION}))

    async def _send_last(self, _request: Request, exchange: Exchange) -> None:
        await exchange.send(200, encode(self._last))

    async def _send_models(self, _request: Request, exchange: Exchange) -> None:
        options = self._options
        base: Body = {"object": "model", "created": self._created, "owned_by": "vllm", "permission": []}
        model = base | {"root": options.model, "parent": None, "max_model_len": options.max_model_len}
        adapter = base | {"parent": options.names[0], "max_model_len": None}
        cards = [model | {"id": name} for name in options.names]
        cards += [adapter | {"id": name, "root": path} for name, path in options.adapters.items()]
        await exchange.send(200, encode({"object": "list", "data": cards}))

    async def _send_metrics(self, _request: Request, exchange: Exchange) -> None:
        engine, totals = self._engine, self._engine.totals
        values: dict[str, tuple[str, float]] = {
            "num_requests_running": ("gauge", engine.running),
            "num_requests_waiting": ("gauge", engine.waiting),
            "kv_cache_usage_perc": ("gauge", min(1.0, engine.running / self._options.max_num_seqs)),
            "prompt_tokens_total": ("counter", totals["prompt_tokens"]),
            "generation_tokens_total": ("counter", totals["generation_tokens"]),
        }
        if self._options.guessed_tokens:
            values |= {f"spec_decode_num_{name}_total": ("counter", count) for name, count in engine.drafts.items()}
        labels = f'engine="0",model_name="{self._options.names[0]}"'
        lines = []
        for name, (kind, value) in values.items():
            lines += [f"# TYPE vllm:{name.removesuffix('_total')} {kind}", f"vllm:{name}{{{labels}}} {float(value)}"]
        lines += [f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(totals["finished"])}', ""]
        await exchange.send(200, "\n".join(lines).encode(), "text/plain; version=1.0.0; charset=utf-8")

    async def _tokenize(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        find_model(self._options, body)
        ids = read_chat(body).ids if "messages" in body else _read_plain(body, "prompt").ids
        head = {"count": len(ids), "max_model_len": self._options.max_model_len, "tokens": list(ids)}
        await exchange.send(200, encode({**head, "token_strs": None}))

    async def _detokenize(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        find_model(self._options, body)
        ids = body.get("tokens")
        if not isinstance(ids, list) or not all(isinstance(token, int) and token >= 0 for token in ids):
            raise RefusalError("1 validation error: tokens should be a list of token ids", "body.tokens", "Bad Request")
        await exchange.send(200, encode({"prompt": write_text(ids)}))

    async def _render(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        endpoint = _GENERATING[request.path.removesuffix("/render")]
        answer = make_answer(self._options, endpoint, body, request.headers.get("x-request-id"))
        sampling = {key: body[key] for key in ("temperature", "top_p", "seed", "n") if key in body}
        rendered: Body = {"request_id": answer.id, "token_ids": list(answer.prompt.ids), "sampling_params": sampling}
        rendered |= {"token_offsets": None, "features": None, "model": answer.model, "stream": False}
        await exchange.send(200, encode(rendered if endpoint is CHAT else [rendered]))

    async def _count_tokens(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        find_model(self._options, body)
        await exchange.send(200, encode({"input_tokens": len(read_chat(body).ids)}))

    async def _embed(self, request: Request, exchange: Exchange) -> None:
        body = _read(request)
        model, _ = find_model(self._options, body)
        given = body.get("input")
        prompts = [_read_plain({"input": text}, "input") for text in (given if isinstance(given, list) else [given])]
        data = []
        for index, prompt in enumerate(prompts):
            vector: Any = [((sum(prompt.ids) * place) % 97 - 48) / 48 for place in range(1, 9)]
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack("<8f", *vector)).decode()
            data.append({"index": index, "object": "embedding", "embedding": vector})
        tokens = sum(len(prompt.ids) for prompt in prompts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        head = {"id": f"embd-{uuid.uuid4().hex}", "object": "list", "created": self._created, "model": model}
        await exchange.send(200, encode({**head, "data": data, "usage": usage}))


def _read(request: Request) -> Body:
    return read_body(request.headers.get("content-type", ""), request.body)


def _read_plain(body: Body, key: str) -> Any:
    if not isinstance(body.get(key), str):
        raise RefusalError(f"1 validation error: {key} should be a text", f"body.{key}", "Bad Request")
    return read_text(body[key])


def _write_error(path: str, refusal: RefusalError) -> Body:
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": refusal.kind, "message": refusal.message}}
    error = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": error}
