"""Whether splits, statistics and rollouts do what docs/experiments.md says: the real functions in simulated traffic.

`python -m loadtests.experiments [false-alarms] [rollouts] [shares] [cost] [--quick] [--out FOLDER]`: runs what is
named, or all, on every core; writes a table and a plot of each into the folder (default: docs/experiments) and exits
with 1 if one does not hold. `--quick` is a tenth of everything, to see whether it runs: too little to show anything.
"""

import argparse
import sys
from pathlib import Path

from loadtests.experiments import cost, false_alarms, rollouts, shares

_PARTS = {"false-alarms": false_alarms.run, "rollouts": rollouts.run, "shares": shares.run, "cost": cost.run}


def main() -> int:
    """Run the parts, write what came of them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *_PARTS], help=", ".join(_PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in args.parts or _PARTS:
        report = _PARTS[name](args.out, is_quick=args.quick)
        text = "\n".join(report.lines)
        print(f"\n## {name}\n\n{text}", flush=True)
        (args.out / f"{name}.md").write_text(text + "\n")
        failed += [f"{name}: {fault}" for fault in report.faults]
    for fault in failed:
        print(f"MISSED {fault}", file=sys.stderr)
    return 1 if failed and not args.quick else 0


if __name__ == "__main__":
    sys.exit(main())
