"""Every benchmark, one after the other, each in a process of its own; then the report.

    make bench
    python -m benchmarks [--quick] [--only NAME ...] [--raw FOLDER] [--scratch FOLDER]

What needs a data set is not among them: `python -m benchmarks.demo_model` and `benchmarks.onnx`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.measuring import RAW

ALL = (
    "labelling",
    "exact_scan",
    "search",
    "qdrant",
    "large_answers",
    "memory",
    "pipeline",
    "regions",
    "growing",
    "batcher",
    "serving",
    "suppress",
    "learning",
    "triton",
    "embedding",
    "page",
)

APART = ("onnx", "negatives", "thresholds", "mixed_examples", "recall")
"""Those with a report that need a data set."""


def main() -> int:
    """Run them and print the report; 1 if one of them failed to run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks and print a report.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they run")
    parser.add_argument("--only", action="append", choices=ALL, help="this one; may be given more than once")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    parser.add_argument("--scratch", help="folder for temporary files (2 GB for memory), by default the system's")
    args = parser.parse_args()
    options = [*(["--quick"] if args.quick else []), "--raw", str(args.raw)]
    scratch = {"TMPDIR": args.scratch} if args.scratch else {}
    names, failed = args.only or ALL, []
    for name in names:
        print(f"\n[{name}]", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if subprocess.run(command, check=False, env=os.environ | scratch).returncode:
            failed.append(name)
    print("\n" + report.report(args.raw, [name for name in names if name not in failed]))
    if failed:
        print(f"Failed to run: {', '.join(failed)}", file=sys.stderr)
    return min(1, len(failed))


if __name__ == "__main__":
    sys.exit(main())
