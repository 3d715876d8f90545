import ctypes
import os
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from gateway.engines import launcher

SUPPORT = Path(__file__).parents[2] / "support"


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripted_process", *words],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_importing_it_imports_nothing_heavy() -> None:
    program = (
        "import sys, gateway.engines.launcher; print([m for m in ('torch', 'vllm', 'asyncio') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert found.stdout.strip() == "[]"


def test_a_process_whose_parent_is_already_gone_ends_at_once() -> None:
    assert run("tie", "say", "alive", **{launcher.PARENT_VARIABLE: "1"}).returncode == 1


def test_a_process_with_its_parent_lives_and_names_itself_to_its_children() -> None:
    done = run("tie", "say-variable", launcher.PARENT_VARIABLE, **{launcher.PARENT_VARIABLE: str(os.getpid())})
    assert done.returncode == 0
    tied, named = done.stdout.split()
    assert tied == "tied"
    assert named not in ("unset", str(os.getpid()))


def test_without_the_variable_nothing_is_tied() -> None:
    environment = {name: value for name, value in os.environ.items() if name != launcher.PARENT_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "scripted_process", "tie", "say-variable", launcher.PARENT_VARIABLE],
        env={**environment, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.split() == ["tied", "unset"]


def test_forks_of_other_threads_are_not_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    monkeypatch.setattr(launcher, "_watch_parent", watched.append)
    monkeypatch.setenv(launcher.PARENT_VARIABLE, "1")
    before, after = launcher._fork_hooks()
    before()
    after()
    assert watched == [os.getpid()]
    monkeypatch.setattr(launcher.threading, "current_thread", object)
    before()
    after()
    assert len(watched) == 1


def test_an_empty_cache_size_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "")
    launcher.adapt_environment()
    assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    launcher.adapt_environment()
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that goes before the installed ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def add_distribution(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(("published", "seen"), [("7.1", "7.1+cpu"), ("7.1+cpu.x", "7.1+cpu.x")])
def test_the_cpu_build_answers_for_vllm(site: Path, monkeypatch: pytest.MonkeyPatch, published: str, seen: str) -> None:
    add_distribution(site, "vllm-cpu", published)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, launcher._VllmMetadata()])
    assert metadata.version("vllm") == seen
    assert metadata.metadata("vllm")["Name"] == "vllm-cpu"
    assert next(found.version for found in metadata.distributions(name="vllm-cpu")) == published


def test_a_real_vllm_answers_for_itself(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_distribution(site, "vllm-cpu", "7.1")
    add_distribution(site, "vllm", "7.2")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, launcher._VllmMetadata()])
    assert metadata.version("vllm") == "7.2"


def test_a_library_loads_if_it_is_absent_or_has_no_compiled_part(site: Path) -> None:
    (site / "pure_one").mkdir()
    (site / "pure_one" / "__init__.py").touch()
    assert launcher._can_load("pure_one", "_C*.so")
    assert launcher._can_load("never_heard_of", "_C*.so")


def test_a_library_with_a_compiled_part_for_another_system_does_not_load(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "strange_one").mkdir()
    (site / "strange_one" / "__init__.py").touch()
    (site / "strange_one" / "_C.so").write_bytes(b"\x7fELF but no more")
    assert not launcher._can_load("strange_one", "_C*.so")
    monkeypatch.setattr(ctypes, "CDLL", lambda path: path)
    assert launcher._can_load("strange_one", "_C*.so")


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (2, 2), ("a reason", 1)])
def test_exit_codes_are_those_of_the_interpreter(given: int | str | None, code: int) -> None:
    assert launcher._exit_code(SystemExit(given)) == code


def test_leaving_runs_exit_handlers_and_nothing_else() -> None:
    program = (
        "import atexit, threading, time; from gateway.engines import launcher\n"
        "atexit.register(print, 'handled'); threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "launcher.leave(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (7, "handled\n")


class Unprocessable(Exception):
    def __init__(self, message: str, *, parameter: str, value: str) -> None:
        super().__init__(message)


def test_media_that_cannot_be_fetched_is_the_requests_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ValueError("bad url")
    connector = types.ModuleType("connector")
    vars(connector)["VLLMUnprocessableEntityError"] = Unprocessable
    vars(connector)["_wrap_media_fetch_error"] = lambda url, failure: known if url == "bad" else failure
    monkeypatch.setitem(sys.modules, "vllm.multimodal.media.connector", connector)
    launcher.blame_the_url_for_media()
    explain = vars(connector)["_wrap_media_fetch_error"]
    assert explain("bad", KeyError()) is known
    told = explain("http://gone/x.png", ConnectionError("cannot connect to gone:80"))
    assert isinstance(told, Unprocessable)
    assert "cannot connect to gone:80" in str(told)
    assert "TimeoutError" in str(explain("http://slow/x.png", TimeoutError()))
