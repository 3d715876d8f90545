"""What a part has found: a table in Markdown, and what of it does not hold."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import Pool
from typing import Any


@dataclass
class Report:
    """`lines` are Markdown, `faults` sentences."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add_table(self, titles: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        """Add a table."""
        titles = list(titles)
        self.lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
        self.lines += [f"| {' | '.join(map(str, row))} |" for row in rows]

    def require(self, holds: bool, fault: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.faults.append(fault)


def run_all(work: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
    """Do `work` on every job, on all cores; results in their order."""
    with Pool(os.cpu_count()) as pool:
        return pool.map(work, jobs, chunksize=max(1, len(jobs) // 200))
