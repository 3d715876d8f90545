"""Stores of checkpoints on loopback, for real client libraries: a Hub and a Google Cloud Storage, with faults to order."""

import base64
import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PIECE_BYTES = 64 * 1024
LFS_FROM_BYTES = 2048


@dataclass
class Faults:
    """What goes wrong: `status` for every answer; of a file's answer, the end after `cut` bytes, `cuts` times."""

    status: int | None = None
    error_code: str | None = None
    cuts: int = 0
    cut_bytes: int = 0
    damages: int = 0
    ignores_ranges: bool = False
    before_piece: Callable[[], None] = field(default=lambda: None)


class Store(ABC):
    """Files behind a server; `asked` are the ranges of file contents that were asked for, `sent_bytes` what was sent."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.faults = Faults()
        self.requests: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.sent_bytes = 0
        self.is_closed = False
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if store.is_closed:  # over a connection that was kept
                    self.close_connection = True
                    return
                store.requests.append(self.path)
                if store.faults.status is not None:
                    headers = {"X-Error-Code": store.faults.error_code} if store.faults.error_code else {}
                    self.answer(b"{}", store.faults.status, headers)
                else:
                    store.answer(self)

            def do_HEAD(self) -> None:
                self.do_GET()

            def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # clients that are killed break connections

        self.Handler = Handler
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody answers any more."""
        self.is_closed = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @abstractmethod
    def answer(self, handler: Any) -> None:
        """Answer one request."""

    def send_file(self, handler: Any, name: str, headers: dict[str, str]) -> None:
        """A file from where it is asked for, with the faults ordered."""
        data = self.files[name]
        wanted = handler.headers.get("range")
        offset = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.asked.append((name, offset))
        if self.faults.ignores_ranges:
            wanted, offset = None, 0
        handler.send_response(206 if wanted else 200)
        if wanted:
            handler.send_header("content-range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        for key, value in {"content-length": str(len(data) - offset), "accept-ranges": "bytes", **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "GET":
            self._send(handler, name, data[offset:])

    def _send(self, handler: Any, name: str, data: bytes) -> None:
        is_large = len(data) >= LFS_FROM_BYTES
        if is_large and self.faults.damages:
            self.faults.damages -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        is_cut = is_large and self.faults.cuts > 0
        if is_cut:
            self.faults.cuts -= 1
            data = data[: self.faults.cut_bytes]
        for start in range(0, len(data), _PIECE_BYTES):
            self.faults.before_piece()
            piece = data[start : start + _PIECE_BYTES]
            handler.wfile.write(piece)
            self.sent_bytes += len(piece)
        handler.close_connection = is_cut


class HubStore(Store):
    """A Hub with one repository, org/name, whose branch main is `commit`."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.commit = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
        super().__init__(files)

    def commit_files(self, files: dict[str, bytes]) -> None:
        """Main means something else from now on."""
        self.files = files
        self.commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()

    def answer(self, handler: Any) -> None:
        parts = [unquote(part) for part in urlsplit(handler.path).path.strip("/").split("/")]
        match parts:
            case ["api", "models", "org", "name"]:
                self._tell(handler)
            case ["api", "models", "org", "name", "revision", revision] if revision in ("main", self.commit):
                self._tell(handler)
            case ["api", "models", "org", "name", "revision", _]:
                handler.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
            case ["org", "name", "resolve", self.commit, *rest] if "/".join(rest) in self.files:
                self.send_file(handler, "/".join(rest), {"X-Repo-Commit": self.commit})
            case _:
                handler.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def _tell(self, handler: Any) -> None:
        siblings = [self._describe(name, data) for name, data in self.files.items()]
        handler.answer(json.dumps({"id": "org/name", "sha": self.commit, "siblings": siblings}).encode())

    def _describe(self, name: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        described: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
        if len(data) >= LFS_FROM_BYTES:
            digest = hashlib.sha256(data).hexdigest()
            described["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return described


class GcsStore(Store):
    """A Google Cloud Storage with one bucket, `bucket`; objects whose names end in `composed` have no MD5."""

    def answer(self, handler: Any) -> None:
        parts = urlsplit(handler.path)
        path = unquote(parts.path)
        if path == "/storage/v1/b/bucket/o":
            prefix = parse_qs(parts.query).get("prefix", [""])[0]
            items = [self._describe(name) for name in self.files if name.startswith(prefix)]
            handler.answer(json.dumps({"kind": "storage#objects", "items": items}).encode())
        elif (name := path.removeprefix("/download/storage/v1/b/bucket/o/")) in self.files:
            self.send_file(handler, name, {})
        else:
            handler.answer(json.dumps({"error": {"code": 404, "message": "none"}}).encode(), 404)

    def _describe(self, name: str) -> dict[str, Any]:
        import google_crc32c  # the Hub does without it

        data = self.files[name]
        described = {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(data)),
            "generation": str(int.from_bytes(hashlib.sha1(data).digest()[:6], "big")),
            "crc32c": base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
        }
        if not name.endswith("composed.safetensors"):
            described["md5Hash"] = base64.b64encode(hashlib.md5(data).digest()).decode()
        return described


def checkpoint_files(folder: Any) -> dict[str, bytes]:
    """The files of a folder, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def list_tree(folder: Any) -> Iterator[tuple[str, bytes]]:
    """Every file under a folder, with its contents."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
