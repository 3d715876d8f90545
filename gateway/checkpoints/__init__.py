"""Checkpoints on disk: what a folder is and whether it can be served. Needs no torch, starts and writes nothing."""

from gateway.checkpoints.admission import Report, check, identify
from gateway.checkpoints.findings import Finding, UnreadableError
from gateway.checkpoints.hardware import Hardware
from gateway.checkpoints.manifest import Manifest, inspect
from gateway.checkpoints.rules.drafting import Drafting
from gateway.checkpoints.runs import find_checkpoint

__all__ = [
    "Drafting",
    "Finding",
    "Hardware",
    "Manifest",
    "Report",
    "UnreadableError",
    "check",
    "find_checkpoint",
    "identify",
    "inspect",
]
