"""What attacks work with: a folder each, the commands, one demo collection, one service."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from benchmarks.serving import listening

HEAVY = (
    *("clipsieve.cli", "clipsieve.opening", "clipsieve.index.collection", "clipsieve.inference.run", "faiss"),
    *("clipsieve.inference.from_open_clip", "clipsieve.inference.from_transformers", "open_clip", "transformers"),
    *("torchvision", "rich.progress", "httpx2", "pyarrow.parquet"),
)
"""What a process that runs a command has imported before it is forked."""

PATIENCE_S = 60


class Failed(Exception):
    """An attack got through; the argument says what was seen."""


def require(holds: object, seen: str) -> None:
    """Failed, unless it holds."""
    if not holds:
        raise Failed(" ".join(seen.split())[:300])


@dataclass(frozen=True)
class Done:
    """A command that ended. `code` is negative where a signal ended it, None where it had to be ended."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self.out + self.err

    @property
    def json(self) -> dict[str, Any]:
        """Its answer with --json."""
        require(self.code == 0, f"exit code {self.code}: {self.err[-300:]}")
        return dict(json.loads(self.out))

    def refused(self, *words: str) -> str:
        """The sentence that it ended in, which must have one of the words, where any are given."""
        require(self.code is not None, "it did not end")
        require((self.code or 0) >= 0, f"signal {-(self.code or 0)}")
        require("Traceback" not in self.err, f"a traceback: {self.err[-200:]}")
        require(self.code, f"exit code 0: {self.said[-200:]}")
        sentence = self.err.rpartition("Error: ")[2].strip()
        require(sentence, f"no sentence: {self.err[-200:]}")
        require(not words or any(word.lower() in sentence.lower() for word in words), f"it says: {sentence}")
        return sentence


def clipsieve(*words: object, cwd: Path, memory: int | None = None) -> Done:
    """A command of ours in a process of its own, forked from one that has imported what all need.

    memory  bytes of address space that it may have beyond what it has at its start
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *HEAVY])
    out, err = cwd / f".out{time.monotonic_ns()}", cwd / f".err{time.monotonic_ns()}"
    process = context.Process(target=_command, args=([os.fspath(w) if isinstance(w, Path) else str(w) for w in words],
                                                     str(cwd), str(out), str(err), memory))  # fmt: skip
    process.start()
    process.join(PATIENCE_S)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return Done(code, *texts)


def _command(words: list[str], cwd: str, out: str, err: str, memory: int | None) -> None:
    os.chdir(cwd)
    for number, name in ((1, out), (2, err)):
        with open(name, "w") as file:  # noqa: PTH123 (a name of any bytes)
            os.dup2(file.fileno(), number)
    sys.stdout = open(1, "w", closefd=False, errors="surrogateescape")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = ["clipsieve", *words]
    if memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    from clipsieve.cli import main

    main()


@dataclass(frozen=True)
class Answer:
    """What the service answered; status 0 where the connection ended without."""

    status: int
    body: bytes
    heads: str = ""

    @property
    def json(self) -> Any:
        """The answer's value."""
        return json.loads(self.body)

    def refused(self, most: int = 1500) -> str:
        """The sentence that it refuses with: a 4xx or 503 in JSON, not longer than `most` bytes."""
        require(400 <= self.status < 500 or self.status in (500, 503), f"{self.status}: {self.body[:150]!r}")
        require(self.status != 500 or b"error of the service" not in self.body, f"500: {self.body[:150]!r}")
        require(len(self.body) <= most, f"{self.status} with {len(self.body):,} bytes: {self.body[:100]!r}")
        return f"{self.status} {self.body[:150].decode(errors='replace')}"


@dataclass
class Service:
    """`clipsieve back` over collections that attacks may spoil."""

    port: int
    pid: int
    folder: Path

    def ask(self, path: str, value: Any = None, headers: Mapping[str, str] | None = None, method: str = "") -> Answer:
        """GET, or POST of bytes or of a value as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data,
                               {"Content-Type": "application/json", **(headers or {})})  # fmt: skip
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), str(answer.headers))
        except (OSError, http.client.HTTPException):
            return Answer(0, b"")
        finally:
            connection.close()

    def knn(self, **fields: Any) -> Answer:
        """A question to the demo collection by clip-retrieval's protocol."""
        return self.ask("/knn-service", {"modality": "image", "num_images": 3, "indice_name": "demo", **fields})

    def search(self, collection: str = "demo", where: str | None = None, text: str = "red") -> Answer:
        """A question by our own."""
        body = {"collection": collection, "class": {"positive": [text]}, "limit": 3}
        return self.ask("/api/v1/search", body if where is None else {**body, "where": where})

    def embed(self, given: Any, **fields: Any) -> Answer:
        """OpenAI's way to embed."""
        return self.ask("/v1/embeddings", {"input": given, "model": "m", **fields})

    def server(self) -> int:
        """The process that answers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else self.pid


@dataclass
class Lab:
    """What all attacks share, and a folder for each of them."""

    base: Path
    images: Path
    demo: Path
    service: Service
    spoilt: list[str] = field(default_factory=list)

    def folder(self, name: str) -> Path:
        """A new folder."""
        path = self.base / "attacks" / re.sub(r"\W+", "-", name)
        path.mkdir(parents=True)
        return path


SPOILT = ("overwritten", "truncated", "metadata", "emptied", "dropped", "half-dropped")
"""Copies of the demo collection, each for one attack on the folder of a service."""


@contextlib.contextmanager
def open_lab(base: Path, attacks_on_service: Callable[[Path], Mapping[str, Path]]) -> Iterator[Lab]:
    """The lab in a folder. `attacks_on_service` makes more collections to be served, by name."""
    (base / "attacks").mkdir()
    done = clipsieve("demo", "--out", base / "d", "--count", "24", cwd=base)
    require(done.code == 0, f"the demo cannot be made: {done.err}")
    demo = base / "d" / "collection"
    served = {name: Path(shutil.copytree(demo, base / "served" / name)) for name in SPOILT}
    served |= {"demo": demo, **attacks_on_service(base)}
    names = base / "served.json"
    names.write_text(json.dumps({name: str(path) for name, path in served.items()}))
    words = [
        "back",
        "--indices-paths",
        names,
        "--port",
        "0",
        "--json",
        "--log-level",
        "error",
        "--model",
        "mini",
        "--preload",
    ]
    with listening([sys.executable, "-m", "clipsieve", *map(str, words), "--log-level", "error"]) as (port, pid):
        yield Lab(base, base / "d" / "images", demo, Service(port, pid, base / "served"))


def jpeg(color: str = "red", size: tuple[int, int] = (60, 40), kind: str = "JPEG", **options: Any) -> bytes:
    """An encoded image of one colour."""
    sink = io.BytesIO()
    Image.new("RGB", size, color).save(sink, kind, **options)
    return sink.getvalue()


def rows(collection: Path) -> list[dict[str, Any]]:
    """All rows of metadata."""
    return [row for path in sorted((collection / "metadata").glob("*")) for row in pq.read_table(path).to_pylist()]


def skipped(collection: Path) -> list[dict[str, Any]]:
    """All that was skipped."""
    return [row for path in sorted((collection / "skipped").glob("*")) for row in pq.read_table(path).to_pylist()]


def exported(folder: Path) -> list[Path]:
    """The files of an export."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.exists() else []
