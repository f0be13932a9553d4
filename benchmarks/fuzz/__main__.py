"""Feed broken input to whatever reads foreign bytes, and keep what should not have happened.

    python -m benchmarks.fuzz [--minutes 10] [--only NAME ...] [--seed 0] [--found FOLDER]

Inputs are made of small good ones and of those kept in tests/fuzz_corpus, guided by the lines that they reach. Found
is: an error that is none of clipsieve/errors.py, a process that dies or hangs, a small input that costs seconds or
hundreds of megabytes, an answer that is another one the second time. What is found lies in build/fuzz/NAME with a .txt
that says what came of it; once it is mended, the input moves to tests/fuzz_corpus/NAME, where the slow suite reads it.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fuzz.child import CURRENT, keep

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "fuzz_corpus"
FOUND = ROOT / "build" / "fuzz"
HANG_S = 60
"""Seconds without a new input after which a process is ended."""


@dataclass
class Result:
    """What came of a target: how many inputs were read, and what was found, each kind -> its input."""

    inputs: int = 0
    found: dict[str, str] = field(default_factory=dict)


def run(name: str, seconds: float, seed: int = 0, found: Path = FOUND) -> Result:
    """One target for so many seconds, beside the starts of its processes. One that dies is followed by another."""
    end, result, turn = time.monotonic() + seconds, Result(), 0
    corpus = [path for path in sorted((CORPUS / name).glob("*")) if path.suffix != ".txt"]
    while turn == 0 or time.monotonic() < end:
        left = max(0.0, end - time.monotonic())
        with tempfile.TemporaryDirectory(prefix="clipsieve-fuzz-") as scratch:
            ended = _child(name, f"{seed}.{turn}", left, Path(scratch), found / name, corpus)
            for said in map(json.loads, (Path(scratch) / "out").read_text().splitlines()):
                result.inputs += said.get("inputs", 0)
                result.found = said.get("found", {}) | result.found
            if ended is None:
                break
            kind, words = ended
            if kind not in result.found:
                data = (Path(scratch) / CURRENT).read_bytes()
                result.found[kind] = str(keep(found / name, data, kind, words))
                with contextlib.suppress(ValueError):
                    corpus.remove(next((p for p in corpus if p.read_bytes() == data), Path()))
        turn += 1
    return result


def _child(
    name: str, seed: str, seconds: float, scratch: Path, found: Path, corpus: list[Path]
) -> tuple[str, str] | None:
    """How a process died, which writes what it found into `scratch`: a short name of that, and where. None if well."""
    words = [sys.executable, "-m", "benchmarks.fuzz.child", name, seed, str(seconds), scratch, found, *corpus]
    with (scratch / "out").open("w+") as out, (scratch / "err").open("w+") as err:
        with subprocess.Popen([str(word) for word in words], stdout=out, stderr=err, cwd=ROOT) as process:
            current, hung = scratch / CURRENT, False
            while process.poll() is None:
                time.sleep(0.1)
                if current.exists() and time.time() - current.stat().st_mtime > HANG_S and not hung:
                    hung = True
                    process.send_signal(signal.SIGABRT)  # its faulthandler says where
        err.seek(0)
        said = err.read()
    if process.returncode == 0:
        return None
    if process.returncode > 0 or not current.exists():
        raise RuntimeError(f"The target {name} cannot be run:\n{said}")
    frame = next((line.strip() for line in said.splitlines() if "/clipsieve/" in line), "")
    return ("hangs" if hung else signal.Signals(-process.returncode).name) + f" {frame[-60:]}", said


def main() -> int:
    """Run it, print what came of each target; 1 if anything was found."""
    from benchmarks.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Feed broken input to the readers.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", action="append", choices=TARGETS, help="this target; may be given more than once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=FOUND, help="folder for what is found")
    args = parser.parse_args()
    names, bad = args.only or list(TARGETS), 0
    for name in names:
        result = run(name, args.minutes * 60 / len(names), args.seed, args.found.absolute())
        bad += len(result.found)
        print(f"{name:12} {result.inputs:>8,} inputs, {len(result.found)} found", flush=True)
        for kind, path in result.found.items():
            print(f"    {kind}: {path}", flush=True)
    return min(1, bad)


if __name__ == "__main__":
    sys.exit(main())
