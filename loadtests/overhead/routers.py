"""The routers that are compared: how each is started in its plainest fast way in front of the two mock engines.

Adding one is a function here and a line in ROUTERS (and in `setup`, if pip makes its environment).
"""

import hashlib
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .answers import MODEL

DIRECT = "direct"
OURS = "ours"
_ROOT = Path(__file__).parents[2]
_OTHER_KEYS = 1000


@dataclass(frozen=True)
class Site:
    """Where one router runs: its own folder, its ports, the engines behind it and the key that clients bring.

    `python` is the interpreter that ours runs in.
    """

    folder: Path
    envs: Path
    python: str
    port: int
    spare_port: int
    engines: tuple[int, int]
    key: str
    seed: int

    @property
    def urls(self) -> list[str]:
        """Base addresses of the engines."""
        return [f"http://127.0.0.1:{port}" for port in self.engines]

    def find_program(self, environment: str, program: str) -> str:
        """The program in that environment. Raises FileNotFoundError in words for the user."""
        path = self.envs / environment / "bin" / program
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: python -m loadtests.overhead.setup --envs {self.envs} {environment}"
            )
        return str(path.absolute())


@dataclass(frozen=True)
class Launch:
    """How a router is started."""

    command: list[str]
    folder: Path
    env: dict[str, str]


@dataclass(frozen=True)
class Router:
    """A router by name: how it is launched, and how its version is read."""

    launch: Callable[[Site], Launch]
    read_version: Callable[[Path], str]


def _launch_ours(site: Site) -> Launch:
    draw = random.Random(site.seed)
    hashes = [hashlib.sha256(f"other-{draw.getrandbits(128):x}".encode()).hexdigest() for _ in range(_OTHER_KEYS)]
    keys = [{"name": f"other-{place}", "sha256": digest} for place, digest in enumerate(hashes)]
    keys.insert(_OTHER_KEYS // 2, {"name": "bench", "sha256": hashlib.sha256(site.key.encode()).hexdigest()})
    log = str(site.folder / "requests.log")
    versions = [{"name": f"v{place}", "endpoints": [url]} for place, url in enumerate(site.urls, start=1)]
    settings = {
        "server": {"host": "127.0.0.1", "port": site.port, "access_log": True, "access_log_path": log},
        "admin": {"port": site.spare_port},
        "auth": {"required": True, "keys": keys},
        "models": [{"name": MODEL, "split": {"v1": 50, "v2": 50}, "versions": versions}],
    }
    path = site.folder / "gateway.yaml"
    path.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    return Launch([site.python, "-m", "gateway", "serve", "--config", str(path)], _ROOT, {"PYTHONPATH": str(_ROOT)})


def _launch_nginx(site: Site) -> Launch:
    program = shutil.which("nginx")
    if program is None:
        raise FileNotFoundError("nginx is missing: apt-get install nginx")
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in site.engines)
    folders = "".join(f"{kind}_temp_path {site.folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    path = site.folder / "nginx.conf"
    path.write_text(
        f"""worker_processes 1; daemon off; pid {site.folder}/pid; error_log {site.folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
access_log {site.folder}/requests.log combined buffer=64k flush=5s;
client_body_temp_path {site.folder}/body; {folders}
client_max_body_size 64m; keepalive_requests 100000000;
upstream engines {{ {servers} keepalive 512; keepalive_requests 100000000; }}
server {{
listen 127.0.0.1:{site.port} backlog=4096;
location / {{
proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_buffering off; proxy_request_buffering off; proxy_next_upstream off; proxy_read_timeout 3600s;
}}
}}
}}
"""
    )
    return Launch([program, "-p", str(site.folder), "-c", str(path)], site.folder, {})


def _launch_vllm_router(site: Site) -> Launch:
    program = site.find_program("vllm-router", "vllm-router")
    command = [program, "--host", "127.0.0.1", "--port", str(site.port), "--worker-urls", *site.urls]
    command += ["--policy", "round_robin", "--log-level", "error", "--disable-retries", "--disable-circuit-breaker"]
    command += ["--prometheus-port", str(site.spare_port), "--worker-startup-check-interval", "1"]
    return Launch(command, site.folder, {})


def _launch_sglang_router(site: Site) -> Launch:
    program = site.find_program("sglang-router", "sglang-router")
    command = [program, "launch", "--host", "127.0.0.1", "--port", str(site.port), "--worker-urls", *site.urls]
    command += ["--policy", "round_robin", "--log-level", "warn", "--disable-retries", "--disable-circuit-breaker"]
    command += ["--prometheus-port", str(site.spare_port), "--worker-startup-check-interval", "1"]
    return Launch(command, site.folder, {})


def _launch_litellm(site: Site) -> Launch:
    program = site.find_program("litellm", "litellm")
    engines = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in site.urls
    ]
    settings = {
        "model_list": engines,
        "general_settings": {"master_key": site.key},  # without one it does not start
        "litellm_settings": {"num_retries": 0, "request_timeout": 3600},
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 0, "disable_cooldowns": True},
    }
    path = site.folder / "litellm.yaml"
    path.write_text(json.dumps(settings, indent=1))
    command = [program, "--config", str(path), "--host", "127.0.0.1", "--port", str(site.port), "--num_workers", "1"]
    command += ["--telemetry", "False"]
    return Launch(command, site.folder, {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"})


def _read_our_version(_envs: Path) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return f"{version('nim-gateway')} ({commit.stdout.strip() or 'no commit'})"


def _read_nginx_version(_envs: Path) -> str:
    shown = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    return shown.strip().rpartition("/")[2]


def _read_package_version(name: str) -> Callable[[Path], str]:
    def read(envs: Path) -> str:
        pattern = f"{name.replace('-', '_')}-[0-9]*.dist-info"
        found = [path.name for path in (envs / name).glob(f"lib/python*/site-packages/{pattern}")]
        return re.sub(r"^.*?-|\.dist-info$", "", found[0]) if found else "unknown"

    return read


ROUTERS = {
    "nginx": Router(_launch_nginx, _read_nginx_version),
    OURS: Router(_launch_ours, _read_our_version),
    "vllm-router": Router(_launch_vllm_router, _read_package_version("vllm-router")),
    "sglang-router": Router(_launch_sglang_router, _read_package_version("sglang-router")),
    "litellm": Router(_launch_litellm, _read_package_version("litellm")),
}
