"""The service beside clip-retrieval's, and beside faiss without a service, under 16 clients.

    python -m benchmarks.serving [--quick]

200,000 x 512 clustered rows, 40 results with metadata, questions that are vectors: the model takes no part. Ours is
`clipsieve back`, theirs clip-retrieval 2.45's own `clip_back` in an environment of its own, over a flat index that we
exported; faiss alone searches the same index from as many threads, a question at a time, without HTTP or metadata.
Windows of some seconds alternate. Then a question with 100,000 results; metadata in pages; and an IVF index, for what
HTTP, metadata and JSON cost in processor time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import MODEL, arguments, keep
from clipsieve.index import faiss_index
from clipsieve.index.build import build_indices
from clipsieve.index.examples import unit_rows
from clipsieve.index.peer_export import export_peer
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, Float32
from clipsieve.writer import open_writer

DIM, K, CLIENTS = 512, 40, 16
QUESTIONS = 256

PEER = """
import importlib.util, sys, types
# Its __init__ imports the inference, and with it torch and wandb: the package is entered beside that.
package = types.ModuleType("clip_retrieval")
package.__path__ = list(importlib.util.find_spec("clip_retrieval").submodule_search_locations)
sys.modules["clip_retrieval"] = package
sys.modules["torch"] = types.ModuleType("torch")  # imported for every question, used for texts and images alone
from clip_retrieval import clip_back
folder, port = sys.argv[1:]

def resources(indices_paths, clip_options):
    # As its load_clip_indices, without the weights of a model, which these questions do not need.
    index = clip_back.load_index(f"{folder}/image.index", False)
    provider, _ = clip_back.load_metadata_provider(folder, False, False, index, ["url", "caption"], False)
    options = dict.fromkeys(clip_back.ClipResource.__dataclass_fields__)
    options |= {"image_index": index, "text_index": index, "metadata_provider": provider,
                "metadata_is_ordered_by_ivf": False, "columns_to_return": ["url", "caption"]}
    return {"bench": clip_back.ClipResource(**options)}

clip_back.load_clip_indices = resources
clip_back.clip_back(port=int(port))
"""

CLIENT = """
import http.client, json, sys, threading, time
port, clients, seconds, bodies = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
bodies = json.load(open(bodies))
waits, failed, end = [], [], time.perf_counter() + seconds

def ask(number):
    connection, turn = http.client.HTTPConnection("127.0.0.1", port, timeout=120), number
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("POST", "/knn-service", bodies[turn % len(bodies)], {"Content-Type": "application/json"})
        answer = connection.getresponse()
        hits = answer.read()
        if answer.status != 200 or len(hits) < 1000:
            failed.append(answer.status)
        waits.append(time.perf_counter() - start)
        turn += 7

threads = [threading.Thread(target=ask, args=(n,)) for n in range(clients)]
start = time.perf_counter()
[t.start() for t in threads]
[t.join() for t in threads]
assert not failed, failed[:3]
print(json.dumps({"rate": len(waits) / (time.perf_counter() - start), "waits": sorted(waits)}))
"""

REQUIREMENTS = ("numpy<2", "pyarrow<16", "pandas<3", "faiss-cpu<2", "flask<4", "flask_restful<1", "flask_cors<5",
                "prometheus-client<1", "h5py<4", "fire<0.6", "tqdm", "fsspec", "pillow", "autofaiss<3", "setuptools<81",
                "requests")  # fmt: skip


def main() -> None:
    """Measure, print, keep."""
    args = arguments("The service beside clip-retrieval's.")
    n, rounds, seconds = (5_000, 2, 1.0) if args.quick else (200_000, 5, 8.0)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="clipsieve-serving-") as scratch, contextlib.ExitStack() as stack:
        base = Path(scratch)
        write_collection(base / "bench", rng, n)
        export_peer(base / "bench", base / "peer")
        questions = unit_rows(rng.standard_normal((QUESTIONS, DIM)).astype(np.float32))
        bodies = base / "bodies.json"
        bodies.write_text(json.dumps([body_of(q) for q in questions]))
        theirs = stack.enter_context(peer(base))
        record: dict[str, Any] = {"rows": n, "dim": DIM, "k": K, "clients": CLIENTS, "windows": []}
        index = faiss_index.load_faiss().read_index(str(base / "peer" / "image.index"))
        with ours(base / "bench") as (port, _):
            for _ in range(rounds + 1):
                window = {
                    "ours": load(port, bodies, seconds),
                    "theirs": load(theirs, bodies, seconds),
                    "faiss": faiss_rate(index, questions, seconds),
                }
                record["windows"].append(window)
                print(json.dumps(window), flush=True)
            del record["windows"][0]
            record["large"] = [
                {"ours": large(port, questions[0], n), "theirs": large(theirs, questions[0], n)} for _ in range(rounds)
            ]
            record["paged"] = [{"ours": paged(port, n), "theirs": paged(theirs, n)} for _ in range(rounds)]
        build_indices(base / "bench", factory="IVF1024,Flat" if not args.quick else "IVF64,Flat")
        with ours(base / "bench") as (port, pid):
            record["ivf"] = [overhead(base / "bench", port, pid, bodies, questions, seconds) for _ in range(rounds)]
    keep(args, "serving", record)


def write_collection(folder: Path, rng: np.random.Generator, n: int) -> None:
    """Clustered rows with URLs and captions, in two shards."""
    centres = rng.standard_normal((max(2, n // 100), DIM)).astype(np.float32)
    with open_writer(folder, Manifest(MODEL, DIM)) as writer:
        for start in range(0, n, n // 2):
            rows = centres[rng.integers(0, len(centres), n // 2)]
            rows = unit_rows(rows + 0.7 * rng.standard_normal(rows.shape).astype(np.float32))
            names = tuple(f"{i}.jpg" for i in range(start, start + len(rows)))
            columns = {"url": [f"https://example.org/{name}" for name in names]}
            captions = [f"what is to be seen in {name}" for name in names]
            writer.append(Embeddings(rows, names, MODEL), captions=captions, columns=columns)


def body_of(question: Float32, **more: Any) -> str:
    """A request of /knn-service."""
    return json.dumps(
        {"embedding_input": question.tolist(), "modality": "image", "num_images": K, "indice_name": "bench", **more}
    )


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[tuple[int, int]]:
    """`clipsieve back`: its port, and the process that answers."""
    words = [sys.executable, "-m", "clipsieve", "back", str(folder), "--port", "0", "--json", "--log-level", "warning"]
    with listening(words) as (port, pid):
        yield port, int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@contextlib.contextmanager
def listening(words: list[str]) -> Iterator[tuple[int, int]]:
    """A service that says on stdout where it listens, as JSON: its port and its process."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while not said.endswith("}\n"):
                line = (process.stdout or sys.stdin).readline()
                if not line:
                    raise RuntimeError(f"{' '.join(words)} ended before it served.")
                said += line
            yield int(json.loads(said)["url"].rsplit(":", 1)[1]), process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def peer(base: Path) -> Iterator[int]:
    """clip-retrieval's service in an environment of its own: its port."""
    subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True)
    python = base / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "clip-retrieval==2.45.0"], check=True)
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(python), "-c", PEER, str(base / "peer"), str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 300
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/indices-list", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        raise RuntimeError("clip-retrieval's service did not start.") from None
                    time.sleep(0.2)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def load(port: int, bodies: Path, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """Requests a second, and how long each took, of clients that ask again as soon as they are answered."""
    words = [sys.executable, "-c", CLIENT, str(port), str(clients), str(seconds), str(bodies)]
    found: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    waits = found["waits"]
    return {
        "rate": found["rate"],
        "p50": waits[len(waits) // 2],
        "p99": waits[min(len(waits) - 1, int(0.99 * len(waits)))],
    }


def faiss_rate(index: Any, questions: Float32, seconds: float) -> float:
    """Questions a second of the index alone, asked one at a time by as many threads as there are clients."""
    end = time.perf_counter() + seconds

    def ask(number: int) -> int:
        done = 0
        while time.perf_counter() < end:
            index.search(questions[(number + 7 * done) % len(questions)][None], K)
            done += 1
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(ask, range(CLIENTS)))
    return done / (time.perf_counter() - start)


def post(port: int, path: str, body: str) -> Any:
    """An answer as JSON."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def large(port: int, question: Float32, n: int) -> float:
    """Seconds of a question with 100,000 results, 40 of them with metadata."""
    wanted = min(n, 100_000)
    start = time.perf_counter()
    hits = post(port, "/knn-service", body_of(question, num_result_ids=wanted))
    assert len(hits) == wanted, len(hits)
    return time.perf_counter() - start


def paged(port: int, n: int) -> float:
    """Microseconds a row of metadata, in two pages of 10,000: clip-retrieval's service needs seconds for each."""
    size = min(n // 2, 10_000)
    start = time.perf_counter()
    for first in range(0, 2 * size, size):
        rows = post(port, "/metadata", json.dumps({"ids": list(range(first, first + size)), "indice_name": "bench"}))
        assert len(rows) == size
    return (time.perf_counter() - start) / (2 * size) * 1e6


def overhead(folder: Path, port: int, pid: int, bodies: Path, questions: Float32, seconds: float) -> dict[str, float]:
    """Processor milliseconds of a request to an approximate index, alone and among many, and of faiss's search alone;
    and what searching took of the lone request, by the service's own clock in the same window."""
    from clipsieve.index.opened import Opened

    def spent() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def searched() -> tuple[float, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] != "#")
        return float(lines["knn_index_time_sum"]), float(lines["knn_index_time_count"])

    def cost(clients: int) -> tuple[float, float]:
        load(port, bodies, seconds / 4, clients)
        (took, count), before = searched(), spent()
        load(port, bodies, seconds, clients)
        after, (total, last) = spent(), searched()
        return (after - before) / (last - count) * 1e3, (total - took) / (last - count) * 1e3

    (request, nearest), (crowded, _) = cost(1), cost(CLIENTS)
    opened = Opened.of(folder)
    index, _ = opened.index("image")
    assert index is not None
    start, done = time.process_time(), 0
    while time.process_time() - start < seconds / 2:
        index.search(questions[done % len(questions)][None], 2 * K)
        done += 1
    search = (time.process_time() - start) / done * 1e3
    opened.close()
    return {"request_ms": request, "crowded_ms": crowded, "nearest_ms": nearest, "search_ms": search}


if __name__ == "__main__":
    main()
