"""One target in a process of its own, which an input may end: the input is on disk before it is read.

    python -m benchmarks.fuzz.child TARGET SEED SECONDS SCRATCH FOUND [INPUT ...]

Reads the target's seeds and the inputs given, then what it makes of them until the time is over. An input that reaches
lines which none before it reached joins those that others are made of. Prints JSON lines: what was found, and at the
end how many inputs were read.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.fuzz.mutate import mutate
from benchmarks.fuzz.targets import TARGETS
from clipsieve.errors import ClipsieveError

MOST_SECONDS = 5.0
"""Processor time that one small input may cost."""
MOST_BYTES = 400 << 20
"""Memory that it may add, in the moment that it needs most."""
CEILING = 4 << 30
"""Memory at which reading fails, before this machine does."""
CURRENT = "current"
"""Name, in the scratch folder, of the input that is being read."""

_OURS = str(Path(__file__).parents[2])
Lines = set[tuple[str, int, int]]


def main(name: str, seed: str, seconds: str, scratch: str, found: str, *inputs: str) -> None:
    """See the module."""
    faulthandler.enable()
    target, rng = TARGETS[name], random.Random(f"{name} {seed}")
    work = Path(scratch)
    (work / "work").mkdir(exist_ok=True)
    read = target.prepare(work / "work")
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + CEILING, resource.RLIM_INFINITY))
    reader = Reader(read, work / CURRENT, Path(found))
    seeds = target.seeds()
    for data in seeds[:1]:
        read(data)  # the first costs what is imported and made once
    pool = [*seeds, *(Path(path).read_bytes() for path in inputs)]
    for data in pool:
        reader.take(data)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        data = mutate(rng, pool, target.words)
        if reader.take(data):
            pool.append(data)
    print(json.dumps({"inputs": reader.count}))


class Reader:
    """Reads inputs, and keeps those that should not have happened, one of each kind."""

    def __init__(self, read: Callable[[bytes], object], current: Path, keep: Path) -> None:
        self.count, self.found = 0, dict[str, str]()
        self._read, self._current, self._keep = read, current, keep
        self._seen: Lines = set()

    def take(self, data: bytes) -> bool:
        """Whether the input reached lines that none before it did."""
        self.count += 1
        self._current.write_bytes(data)
        lines: Lines = set()
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins here
        before, start = _status("VmRSS"), time.process_time()
        sys.settrace(_tracer(lines))
        answer = self._answer(data)
        sys.settrace(None)
        took, grew = time.process_time() - start, _status("VmHWM") - before
        if took > MOST_SECONDS:
            self._note(data, "slow", f"{took:.1f} s of processor time")
        if grew > MOST_BYTES:
            self._note(data, "memory", f"{grew >> 20} MB of memory at its peak")
        new = not lines <= self._seen
        self._seen |= lines
        if new and answer is not None and (again := self._answer(data)) != answer:
            self._note(data, "another answer", f"{answer[:2000]}\n\nand then\n\n{again and again[:2000]}")
        return new

    def _answer(self, data: bytes) -> str | None:
        try:
            return repr(self._read(data))
        except ClipsieveError as error:
            return f"{type(error).__name__}: {error}"
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            inside = next((f for f in reversed(frames) if "/clipsieve/" in f.filename), frames[-1])
            where = f"{Path(inside.filename).name} {inside.name}"
            self._note(data, f"{type(error).__name__} in {where}", traceback.format_exc())
            return None

    def _note(self, data: bytes, kind: str, words: str) -> None:
        if kind not in self.found:
            self.found[kind] = str(keep(self._keep, data, kind, words))
            print(json.dumps({"found": {kind: self.found[kind]}}), flush=True)


def keep(folder: Path, data: bytes, kind: str, words: str) -> Path:
    """Write an input down, and beside it what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{kind}\n\n{words}", errors="backslashreplace")
    return path


def _tracer(lines: Lines) -> Callable[[FrameType, str, Any], Any]:
    """Notes which lines of this repository come after which."""

    def called(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) or "site-packages" in name:
            return None
        last = -frame.f_lineno

        def local(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                lines.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return local

        return local

    return called


def _status(what: str) -> int:
    """A figure of this process's memory, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{what}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
