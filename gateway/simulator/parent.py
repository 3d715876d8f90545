"""Ties a process to its parent: when that ends, the kernel kills this one, so no simulator is ever left behind."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def follow_parent(expected_pid: int | None = None) -> bool:
    """Ask the kernel to kill this process with its parent; False if the parent is gone already.

    The request does not look back, so a parent that ended before it is found by comparing process ids.
    """
    parent_pid = expected_pid if expected_pid is not None else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return os.getppid() == parent_pid
