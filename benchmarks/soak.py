"""The service under mixed load for a while: 16 clients, mistakes and broken connections, a growing collection.

    python -m benchmarks.soak [--minutes 10] [--out FOLDER]

A collection of 600 scenes under the demo model is served by `clipsieve back`. Each client asks, at random: texts,
vectors and images by clip-retrieval's protocol, pages and distributions by /api/v1, metadata, images; and it sends what
is wrong: bodies that are no JSON, too large, unknown names, requests that break off. Meanwhile images are added and
removed. It passes if every answer is what the request deserves (200, a 4xx, or 503 with Retry-After), and the memory is
at the end what it was after a third. Writes soak.json and soak.png into the folder.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import ours
from clipsieve.demo_scenes import make_scenes

CLIENTS, SCENES = 16, 600
GROWTH = 1.1
"""Most that the memory may be at the end, over what it was after a third of the time."""

WORDS = ("red", "green", "blue", "yellow", "circle", "square", "triangle", "star", "cross")


def main() -> int:
    """Run it, print what came of it, and keep the figures and the plot; 1 if it did not pass."""
    parser = argparse.ArgumentParser(description="The service under mixed load.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "raw")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipsieve-soak-") as scratch:
        base = Path(scratch)
        make_scenes(base / "images", SCENES)
        run(base, "inference", base / "images", base / "photos.clip", "--model", "mini", "--thumbs")
        run(base, "index", base / "photos.clip")
        with ours(base / "photos.clip") as (port, pid):
            record = soak(base, port, pid, args.minutes * 60)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(record, args.out / "soak.png")
    for line in report(record):
        print(line)
    return 0 if passed(record) else 1


def run(base: Path, *words: object) -> None:
    """A command, which must succeed."""
    subprocess.run([sys.executable, "-m", "clipsieve", *map(str, words)], check=True, capture_output=True, cwd=base)


class Client(threading.Thread):
    """Asks until the time is over, and keeps what came back: (when, kind, status, seconds)."""

    def __init__(self, port: int, end: float, seed: int, image: bytes) -> None:
        super().__init__()
        self.seen: list[tuple[float, str, int, float]] = []
        self._port, self._end, self._random, self._image = port, end, random.Random(seed), image
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def run(self) -> None:
        """See the class."""
        kinds: dict[str, tuple[int, Callable[[], int]]] = {
            "text": (6, lambda: self._knn(text=self._text())),
            "vector": (6, lambda: self._knn(embedding_input=self._vector())),
            "many": (1, lambda: self._knn(embedding_input=self._vector(), num_result_ids=3000, deduplicate=True)),
            "image": (1, self._upload),
            "search": (6, self._search),
            "distribution": (2, lambda: self._post("/api/v1/distribution", {"class": self._class()})),
            "metadata": (3, lambda: self._post("/metadata", {"ids": self._ids(), "indice_name": None})),
            "thumbnail": (4, lambda: self._get(f"/api/v1/items/{self._random.randrange(500)}/image?size=128")),
            "metrics": (1, lambda: self._get("/metrics")),
            "no json": (1, lambda: self._raw("POST", "/knn-service", b"{")),
            "no name": (1, lambda: self._post("/api/v1/search", {"collection": "nobody", "class": self._class()})),
            "no image": (1, lambda: self._knn(image="AAAA")),
            "no number": (1, lambda: self._knn(embedding_input=["x"])),
            "too large": (1, self._too_large),
            "broken off": (1, self._break_off),
            "nowhere": (1, lambda: self._get("/nowhere")),
        }
        names, weights = list(kinds), [weight for weight, _ in kinds.values()]
        while time.time() < self._end:
            (name,) = self._random.choices(names, weights)
            start = time.perf_counter()
            try:
                status = kinds[name][1]()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                status = -1
            self.seen.append((time.time(), name, status, time.perf_counter() - start))
            if status == 503:
                time.sleep(1)

    def _raw(self, method: str, path: str, body: bytes | None, type_: str = "application/json") -> int:
        self._connection.request(method, path, body, {"Content-Type": type_} if body is not None else {})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status == 503 and not answer.headers.get("Retry-After"):
            return 599
        return answer.status

    def _get(self, path: str) -> int:
        return self._raw("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> int:
        return self._raw("POST", path, json.dumps(body).encode())

    def _knn(self, **fields: Any) -> int:
        return self._post("/knn-service", {"modality": "image", "num_images": 40, "indice_name": None, **fields})

    def _search(self) -> int:
        body = {"class": self._class(), "limit": 50, "view": self._random.choice(["matched", "rejected"])}
        return self._post("/api/v1/search", body)

    def _upload(self) -> int:
        edge = "----soak"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="data"; filename="a.jpg"\r\n\r\n'.encode()
        body = head + self._image + f"\r\n--{edge}--\r\n".encode()
        return self._raw("POST", "/api/v1/uploads", body, f"multipart/form-data; boundary={edge}")

    def _too_large(self) -> int:
        self._connection.putrequest("POST", "/knn-service")
        self._connection.putheader("Content-Length", str(10**9))
        self._connection.endheaders()
        answer = self._connection.getresponse()
        answer.read()
        self._connection.close()
        return answer.status

    def _break_off(self) -> int:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as raw:
            raw.sendall(b"POST /knn-service HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        return 0

    def _text(self) -> str:
        return " ".join(self._random.sample(WORDS, 2)) + str(self._random.randrange(500))

    def _class(self) -> dict[str, Any]:
        return {"positive": [self._text()], "negative": [self._text()]}

    def _vector(self) -> list[float]:
        return [self._random.gauss(0, 1) for _ in range(self.dim)]

    dim = 256

    def _ids(self) -> list[int]:
        return self._random.sample(range(500), 40)


def soak(base: Path, port: int, pid: int, seconds: float) -> dict[str, Any]:
    """All clients for so long, and the collection changed meanwhile."""
    image = next(path for path in sorted((base / "images").rglob("*")) if path.suffix in (".jpg", ".png", ".webp"))
    info = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    info.request("GET", "/api/v1/info")
    Client.dim = json.load(info.getresponse())["collections"][0]["dim"]
    start = time.time()
    clients = [Client(port, start + seconds, seed, image.read_bytes()) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    memory, changes, turn = [], 0, 0
    while time.time() < start + seconds:
        memory.append((time.time() - start, resident(pid)))
        if turn % 20 == 10:
            make_scenes(base / "images", SCENES + 20 * (changes + 1))
            run(base, "add", base / "photos.clip", base / "images")
            run(base, "remove", base / "photos.clip", "--ids", str(500 + changes))
            changes += 1
        turn += 1
        time.sleep(1)
    for client in clients:
        client.join()
    seen = [(when - start, kind, status, took) for client in clients for when, kind, status, took in client.seen]
    return {"seconds": seconds, "clients": CLIENTS, "changes": changes, "memory": memory, "requests": sorted(seen)}


def resident(pid: int) -> float:
    """Memory of a process in MiB, without files that it maps."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


EXPECTED = {"no json": {400}, "no name": {404}, "no image": {400}, "no number": {400}, "too large": {413},
            "broken off": {0}, "nowhere": {404}}  # fmt: skip


def wrong(record: dict[str, Any]) -> Counter[tuple[str, int]]:
    """Answers that their requests did not deserve, by kind and status."""
    return Counter(
        (kind, status) for _, kind, status, _ in record["requests"] if status not in EXPECTED.get(kind, {200}) | {503}
    )


def growth(record: dict[str, Any]) -> float:
    """The memory in the last sixth over that after the first third."""
    third = record["seconds"] / 3
    early = [used for when, used in record["memory"] if third <= when < 1.5 * third]
    late = [used for when, used in record["memory"] if when >= 2.5 * third]
    return statistics.median(late) / statistics.median(early) if early and late else 1.0


def passed(record: dict[str, Any]) -> bool:
    """Whether nothing was wrong and the memory stayed."""
    return not wrong(record) and growth(record) <= GROWTH


def report(record: dict[str, Any]) -> list[str]:
    """What came of it, in lines."""
    requests = record["requests"]
    took = np.array([seconds for *_, status, seconds in requests if status == 200])
    busy = sum(status == 503 for _, _, status, _ in requests)
    return [
        f"{len(requests):,} requests of {record['clients']} clients in {record['seconds']:.0f} s, "
        f"{record['changes']} additions and removals meanwhile",
        f"200: {len(took):,}, p50 {np.median(took) * 1e3:.0f} ms, p99 {np.quantile(took, 0.99) * 1e3:.0f} ms",
        f"503: {busy:,}",
        f"answers that were not deserved: {dict(wrong(record)) or 'none'}",
        f"memory at the end over that after a third: {growth(record):.3f} (at most {GROWTH})",
        "passed" if passed(record) else "FAILED",
    ]


def plot(record: dict[str, Any], path: Path) -> None:
    """Latency and memory over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 7), sharex=True)
    good = [(when, took * 1e3) for when, _, status, took in record["requests"] if status == 200]
    above.scatter(*zip(*good, strict=True), s=2, alpha=0.3)
    above.set_yscale("log")
    above.set_ylabel("ms until answered")
    below.plot(*zip(*record["memory"], strict=True))
    below.set_ylim(bottom=0)
    below.set_ylabel("MiB of memory")
    below.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
