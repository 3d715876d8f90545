"""Checkpoints on disk: what a folder is and whether it can be served. Needs no torch, starts and writes nothing."""

from gateway.checkpoints.admission import Report, check
from gateway.checkpoints.findings import Finding
from gateway.checkpoints.manifest import Manifest, inspect

__all__ = ["Finding", "Manifest", "Report", "check", "inspect"]
