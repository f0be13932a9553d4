"""Files of others with changed bytes, read in this process, which they may end: `python -m tests.index.mutated KIND
FROM UNTIL FOLDER PROGRESS`.

Reads mutations FROM to UNTIL of one kind of file. The number of the one at hand is in the file PROGRESS; what is found
wrong is printed, a line each that begins with WRONG: faiss prints lines as well.
"""

import faulthandler
import io
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import peer_tables, vector_sources
from clipsieve.errors import ClipsieveError
from clipsieve.index.collection import open_collection
from clipsieve.types import Example, MetaClass

ROWS, DIM = 8, 4
VECTORS = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
MOST_SECONDS = 20
MOST_BYTES = 400 << 20
CHANGES = 3
"""Mutations of each byte."""

Files = dict[str, bytes]
Read = Callable[[Path], object]


def table() -> pa.Table:
    return pa.table(
        {
            "key": [f"k{i}" for i in range(ROWS)],
            "caption": ["a bus", None, "x" * 20, "", "b", "c", "d", "e"],
            "vector": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
            "year": pa.array([1984, None, -1, 0, 1, 2, 3, 4]),
            "tags": pa.array([[{"t": "x"}], [], None, [], [], [], [], []]),
            "kind": pa.array(["u", "v"] * 4).dictionary_encode(),
        }
    )


def ipc(new: Callable[..., pa.ipc.RecordBatchFileWriter], compression: str | None) -> bytes:
    sink = io.BytesIO()
    with new(sink, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table())
    return sink.getvalue()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink, compression="zstd")
    return sink.getvalue()


def npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, VECTORS)
    return sink.getvalue()


def hdf5() -> bytes:
    import h5py

    sink = io.BytesIO()
    with h5py.File(sink, "w", libver="latest") as file:
        group = file.create_group("dataset")
        texts = ["a bus", "", *("x" * i for i in range(ROWS - 2))]
        group.create_dataset("caption", data=texts, dtype=h5py.string_dtype(), chunks=(4,), compression="gzip")
        group.create_dataset("width", data=np.arange(ROWS))
    return sink.getvalue()


def weights() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)})


def index(factory: str) -> bytes:
    import faiss

    made = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    faiss.cvar.distance_compute_blas_threshold = 20
    if isinstance(made, faiss.IndexIVF):
        made.cp.min_points_per_centroid = 1
    made.train(np.random.default_rng(1).normal(size=(200, DIM)).astype(np.float32))
    made.add(VECTORS)
    return bytes(faiss.serialize_index(made))


def on_disk(folder: Path) -> Files:
    """An index whose lists lie in a file of their own beside it."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    part, whole, lists = (str(folder / name) for name in ("part.index", "image.index", "image.ivfdata"))
    Path(part).write_bytes(index("IVF2,Flat"))
    empty = faiss.read_index(part)
    empty.reset()
    merge_ondisk(empty, [part], lists)
    faiss.write_index(empty, whole)
    return {"image.index": Path(whole).read_bytes(), "image.ivfdata": Path(lists).read_bytes()}


def imported(name: str, source: type = vector_sources.TableSource) -> Read:
    return lambda folder: [dict(block.columns) for block in source(folder / name).blocks(0, 100)]


def asked(folder: Path) -> object:
    """A folder of clip-retrieval, opened in place."""
    with open_collection(folder) as collection:
        query = MetaClass("a", [Example(image=0)], [Example(image=1)])
        questions: tuple[Callable[[], object], ...] = (
            lambda: collection.nearest(VECTORS[2]),
            lambda: collection.search(query, k=3).hits,
            lambda: collection.vectors([0, ROWS - 1]),
            lambda: collection.items(list(range(ROWS))),
            lambda: collection.select("year > 0"),
        )
        return [tried(question) for question in questions]


def tensors(folder: Path) -> object:
    from clipsieve.inference.tensors import read_tensors

    return read_tensors(folder / "w.safetensors")


def tried(read: Callable[[], object]) -> str:
    try:
        return repr(read())
    except ClipsieveError as error:
        return str(error)


def _peer(name: str, data: bytes) -> Files:
    """Files of a folder of clip-retrieval, of which the one named is another one."""
    whole = {"img_emb/img_emb_0.npy": npy(), "metadata/metadata_0.parquet": parquet()}
    return {name: data, **{other: content for other, content in whole.items() if other != name}}


def _bare(files: Files) -> Files:
    return {**files, **({} if "metadata/0.arrow" in files else {"metadata/0.parquet": parquet()})}


def _arrow(make: Callable[..., pa.ipc.RecordBatchFileWriter], compression: str | None) -> tuple[Files, Read]:
    data = ipc(make, compression)
    return {"t.arrow": data}, imported("t.arrow")


def kinds(folder: Path) -> dict[str, Callable[[], tuple[Files, Read]]]:
    """Kind -> its files, the first of which is mutated, and how they are read."""
    return {
        "arrow": lambda: _arrow(pa.ipc.new_file, None),
        "arrow-zstd": lambda: _arrow(pa.ipc.new_file, "zstd"),
        "arrow-lz4": lambda: _arrow(pa.ipc.new_file, "lz4"),
        "stream": lambda: _arrow(pa.ipc.new_stream, None),
        "stream-zstd": lambda: _arrow(pa.ipc.new_stream, "zstd"),
        "arrow-metadata": lambda: (
            _bare({"metadata/0.arrow": ipc(pa.ipc.new_file, None), "image.index": index("Flat")}),
            asked,
        ),
        "parquet": lambda: ({"t.parquet": parquet()}, imported("t.parquet")),
        "parquet-metadata": lambda: (_peer("metadata/metadata_0.parquet", parquet()), asked),
        "npy": lambda: ({"v.npy": npy()}, imported("v.npy", vector_sources.NpySource)),
        "npy-vectors": lambda: (_peer("img_emb/img_emb_0.npy", npy()), asked),
        "hdf5": lambda: ({"metadata.hdf5": hdf5()}, lambda f: peer_tables.read_table(f / "metadata.hdf5").to_pydict()),
        "safetensors": lambda: ({"w.safetensors": weights()}, tensors),
        **{
            f"faiss-{factory}": lambda factory=factory: (_bare({"image.index": index(factory)}), asked)  # type: ignore[misc]
            for factory in ("Flat", "SQ8", "IVF2,Flat", "IVF2,PQ2x4", "HNSW4")
        },
        "faiss-on-disk": lambda: (_bare(on_disk(folder)), asked),
        "faiss-on-disk-lists": lambda: (_bare(dict(reversed(on_disk(folder).items()))), asked),
    }


def mutation(data: bytes, number: int) -> bytes:
    """The data with one byte that is another one, or in one of ten also its end cut off; always the same."""
    rng = random.Random(number)
    made = bytearray(data)
    at = number // CHANGES % len(made)
    made[at] = ((made[at] ^ 1 << rng.randrange(8)), 0xFF, (made[at] + 128) & 0xFF)[number % CHANGES]
    return bytes(made if rng.random() < 0.9 else made[: rng.randrange(len(made))])


def _memory(what: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) * 1024


def main(kind: str, start: str, until: str, folder: str, progress: str) -> None:
    """See the module."""
    scratch = Path(folder) / "made"
    scratch.mkdir(exist_ok=True)
    files, read = kinds(scratch)[kind]()
    first, data = next(iter(files.items()))
    at, noted = Path(folder) / "at", Path(progress)
    at.mkdir(exist_ok=True)
    for name, content in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content)
    read(at)  # what is whole is read, and imports cost nothing afterwards
    total = len(data) * CHANGES
    count = int(until) - int(start)
    step = max(1, total // count)
    numbers = [number * step for number in range(int(start), min(int(until), total))]
    for position, number in enumerate(numbers, int(start)):
        noted.write_text(str(position))
        for cache in (p for p in at.iterdir() if p.name.startswith("cache.sqlite")):
            cache.unlink()
        (at / first).unlink()
        (at / first).write_bytes(mutation(data, number))
        Path("/proc/self/clear_refs").write_text("5")
        before, began = _memory("VmRSS"), time.monotonic()
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True, file=sys.__stderr__)
        try:
            read(at)
        except ClipsieveError:
            pass
        except Exception as error:
            print(f"WRONG {number}: {type(error).__name__}: {error}", flush=True)
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - began > MOST_SECONDS:
            print(f"WRONG {number}: took {time.monotonic() - began:.0f} s", flush=True)
        if (more := _memory("VmHWM") - before) > MOST_BYTES:
            print(f"WRONG {number}: took {more >> 20} MB", flush=True)
    noted.write_text("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
