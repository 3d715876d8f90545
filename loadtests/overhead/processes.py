"""Child processes on a core of their own, and what a whole tree of them costs: CPU seconds and memory."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class Child:
    """A process in its own session, pinned to cores, with its output in a file. Whoever starts it must stop it."""

    def __init__(
        self, command: list[str], *, cores: set[int], log: Path, folder: Path, more_env: dict[str, str]
    ) -> None:
        self.log = log
        libc = ctypes.CDLL(None)

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # nothing outlives a run that is killed

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | more_env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def read_log(self, last_bytes: int = 2000) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-last_bytes:]

    def list_pids(self) -> list[int]:
        """The process and all its descendants."""
        pids = [self._process.pid]
        for pid in pids:  # grows while it is walked
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    pids += [int(child) for child in task.read_text().split()]
                except OSError:  # gone meanwhile
                    continue
        return pids

    def read_cpu_s(self) -> float:
        """User and system time that the tree has used, all threads, ended ones too."""
        return sum(read_process_cpu_s(pid) for pid in self.list_pids())

    def read_memory_mb(self) -> float:
        """Proportional set size of the tree: shared pages count once, in MB of 10**6 bytes."""
        return sum(_read_pss_bytes(pid) for pid in self.list_pids()) / 1e6

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left of the session."""
        if self.is_alive:
            self._process.terminate()
            deadline_s = time.monotonic() + _STOP_TIMEOUT_S
            while self.is_alive and time.monotonic() < deadline_s:
                time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def read_process_cpu_s(pid: int) -> float:
    """The kernel's clock of one process, in ns where /proc/PID/stat counts in 10 ms; 0 when it is gone.

    The clock's number is built as clock_getcpuclockid(3) builds it.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def read_core_times(cores: set[int]) -> tuple[float, float]:
    """Time that these cores were busy, stolen time with it, and time in all, since the machine started; in ticks."""
    busy = total = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{core}" for core in cores}:
            ticks = [float(field) for field in fields[:8]]  # user nice system idle iowait irq softirq steal
            total += sum(ticks)
            busy += sum(ticks) - ticks[3] - ticks[4]
    return busy, total


def _read_pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
