"""What comes out of a run: a table to read, JSON to keep, a plot to show."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measure import Reading
from .routers import DIRECT
from .thresholds import Verdict

METRICS = {
    "cpu_ms_request": "CPU a request, saturated (ms)",
    "cpu_ms_request_half": "CPU a request, half load (ms)",
    "cpu_us_chunk_64": "CPU a chunk, 64 streams (µs)",
    "cpu_us_chunk_256": "CPU a chunk, 256 streams (µs)",
    "chunks_s_64": "chunks a second, 64 streams (6400 due)",
    "chunks_s_256": "chunks a second, 256 streams (25600 due)",
    "requests_s": "requests a second, one core",
    "core_busy": "share of the core used meanwhile",
    "added_p50_ms": "added latency, half load, p50 (ms)",
    "added_p99_ms": "added latency, half load, p99 (ms)",
    "picture_cpu_ms": "CPU of a 10 MB picture (ms)",
    "memory_rest_mb": "memory at rest (MB)",
    "memory_stream_kb": "memory an idle stream (KB)",
    "idle_streams": "idle streams that opened",
    "memory_mixed_mb": "memory after mixed requests (MB)",
    "memory_growth_mb": "growth over mixed requests (MB)",
    "mixed_requests": "mixed requests sent",
    "mixed_faults": "of them good ones that failed",
    "others_busy": "share of both cores others used before",
}
_PLOTTED = ("cpu_ms_request", "cpu_us_chunk_256", "requests_s", "added_p50_ms", "memory_rest_mb", "picture_cpu_ms")
_BUSY_ENOUGH = 0.9
_QUIET_ENOUGH = 0.05
_DUE_CHUNKS_S = 256 * 100


def find_medians(rounds: Sequence[Reading]) -> Reading:
    """The median of each number over the rounds that have it."""
    names = dict.fromkeys(name for reading in rounds for name in reading)
    return {name: statistics.median(reading[name] for reading in rounds if name in reading) for name in names}


def write_table(numbers: Mapping[str, Reading], faults: Mapping[str, str], verdicts: Sequence[Verdict]) -> str:
    """Everything a reader wants to see on a terminal."""
    width = max(len(title) for title in METRICS.values())
    lines = [" " * width + "".join(f"{name:>15}" for name in numbers)]
    for metric, title in METRICS.items():
        values = [reading.get(metric) for reading in numbers.values()]
        if any(value is not None for value in values):
            lines.append(f"{title:<{width}}" + "".join(f"{_show(value):>15}" for value in values))
    idle = [name for name, reading in numbers.items() if reading.get("core_busy", 1) < _BUSY_ENOUGH and name != DIRECT]
    if idle:
        lines += ["", f"Not saturated, client and mock engine were the limit: {', '.join(idle)}. It could serve more."]
    late = [
        name for name, reading in numbers.items() if reading.get("chunks_s_256", _DUE_CHUNKS_S) < 0.95 * _DUE_CHUNKS_S
    ]
    if late:
        lines += ["", f"Fell behind the pace of 256 streams: {', '.join(late)}. Late chunks are read several at once."]
    loud = [name for name, reading in numbers.items() if reading.get("others_busy", 0) > _QUIET_ENOUGH]
    if loud:
        lines += ["", f"Others used these cores before {', '.join(loud)}: do not trust this run."]
    lines += ["", *(f"FAULT {name}: {fault}" for name, fault in faults.items())]
    lines += [_show_verdict(verdict) for verdict in verdicts]
    return "\n".join(lines)


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on besides the routers."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "kernel": platform.release(),
    }


def describe_python(program: str) -> dict[str, str]:
    """The interpreter that ours runs in. How it was built is worth more than its version."""
    code = "import sys, sysconfig; print(sys.version); print(sysconfig.get_config_var('CONFIG_ARGS'))"
    lines = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    return {"program": Path(program).name, "version": lines[0], "built_with": lines[-1]}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Keep the run: raw rounds, medians, verdicts, machine, versions and options."""
    path.write_text(json.dumps(record, indent=2) + "\n")


def plot(path: Path, numbers: Mapping[str, Reading]) -> bool:
    """Bars of the main numbers on log scales, as PNG; false when matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for axis, metric in zip(axes.flat, _PLOTTED, strict=True):
        values = {name: reading[metric] for name, reading in numbers.items() if reading.get(metric, 0) > 0}
        if not values:
            axis.set_visible(False)
            continue
        bars = axis.bar(
            list(values), list(values.values()), color=["C1" if name == "ours" else "C0" for name in values]
        )
        axis.bar_label(bars, [_show(value) for value in values.values()], fontsize=8)
        axis.set_yscale("log")
        axis.margins(y=0.15)
        axis.set_title(METRICS[metric], fontsize=10)
        axis.tick_params(axis="x", labelsize=8, rotation=20)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _show_verdict(verdict: Verdict) -> str:
    threshold = verdict.threshold
    wanted = f"{METRICS[threshold.metric]}: {threshold.bound} {threshold.limit:g}"
    wanted += f" of {threshold.than}" if threshold.than else ""
    if verdict.value is None:
        return f"skipped  {wanted} ({verdict.reason})"
    return f"{'CROSSED' if verdict.is_crossed else 'holds  '}  {wanted}; is {verdict.value:.3g}"
