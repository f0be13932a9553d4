"""Every benchmark, one after the other, each in a process of its own: `make bench`, or `python -m benchmarks --quick`.

The demo model's figures need a data set and are not among them: `python -m benchmarks.demo_model`.
"""

import subprocess
import sys

ALL = ("labelling", "exact_scan", "search", "large_answers", "memory", "pipeline")


def main() -> int:
    """Run all with the given options; 1 if one of them failed to run."""
    failed = 0
    for name in ALL:
        print(f"\n{name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False).returncode
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
