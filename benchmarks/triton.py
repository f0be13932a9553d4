"""The embedding service beside a real Triton, under 60 clients.

    python3.11 -m venv FOLDER && FOLDER/bin/pip install nvidia-pytriton==0.7.0
    python -m benchmarks.triton --triton FOLDER [--quick]

The wheel of nvidia-pytriton holds Triton's server with its python backend, for Linux with glibc 2.35 or newer; without
--triton it is installed into a temporary folder. Both serve the same model of 64 token ids, which sleeps for 20 ms a
batch of 32 rows at most and gives the same 1,152 numbers for each: what is measured is the service. Both run all the
time and are asked in turn, JSON and bytes, by the clients of `closed_loop`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_loop import load
from benchmarks.measuring import keep, parser_of, set_scratch
from benchmarks.serving import listening
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.token_ids import TokenIds
from clipsieve.load_data import Input, bodies, make_rows
from clipsieve.load_test import Target, served
from clipsieve.types import Float32, Int64

MODEL, CLIENTS, MAX_BATCH, DIM, CONTEXT, SECONDS = "siglip_text", 60, 32, 1152, 64, 0.020

CONFIG = f"""
name: "{MODEL}"
backend: "python"
max_batch_size: {MAX_BATCH}
input [{{ name: "INPUT_IDS" data_type: TYPE_INT64 dims: [{CONTEXT}] }}]
output [{{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [{DIM}] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{}}
"""

THEIRS = f"""
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        self.row = np.random.default_rng(0).standard_normal({DIM}).astype(np.float32)

    def execute(self, requests):
        given = [pb.get_input_tensor_by_name(r, "INPUT_IDS").as_numpy() for r in requests]
        rows = np.tile(self.row, (len(np.concatenate(given)), 1))
        time.sleep({SECONDS})
        answers, first = [], 0
        for ids in given:
            some = rows[first : first + len(ids)]
            first += len(ids)
            answers.append(pb.InferenceResponse([pb.Tensor("EMBEDDING", some)]))
        return answers
"""

OURS = """
import sys
from benchmarks.triton import Sleeper
from clipsieve.cli import app
from clipsieve.parts import Parts
app(sys.argv[1:], obj=Parts(lambda name, **options: Sleeper()))
"""


class Sleeper(FakeEmbedder):
    """The same model for our service."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self._row = np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
        self._ids = TokenIds({"input_ids": np.zeros(CONTEXT, np.int64)}, 2**31)

    @property
    def context(self) -> int:
        """As the deployment's model has it."""
        return CONTEXT

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """As a real model's."""
        return self._ids.tensors(ids)

    def features_of_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """The same row for each, in due time."""
        rows = np.tile(self._row, (len(np.stack([one["input_ids"] for one in batch])), 1))
        time.sleep(SECONDS)
        return rows


def main() -> None:
    """Measure, print, keep."""
    parser = parser_of("The embedding service beside Triton.")
    parser.add_argument("--triton", type=Path, help="an environment with nvidia-pytriton 0.7; else one is made")
    args = parser.parse_args()
    set_scratch(args)
    rounds, seconds = (1, 0.5) if args.quick else (7, 4.0)
    with tempfile.TemporaryDirectory(prefix="clipsieve-triton-") as scratch, contextlib.ExitStack() as stack:
        base = Path(scratch)
        declared = Input("INPUT_IDS", "INT64", (CONTEXT,))
        forms = {"json": base / "json.pickle", "binary": base / "binary.pickle"}
        for form, file in forms.items():
            file.write_bytes(pickle.dumps(bodies(make_rows(declared), [declared], binary=form == "binary")))
        services = {
            "triton": stack.enter_context(theirs(base, args.triton or installed(base))),
            "ours": stack.enter_context(ours(MAX_BATCH)),
        }
        windows: list[dict[str, Any]] = []
        for i in range(rounds + 1):
            turn = [(name, form) for form in forms for name in services]
            turn = turn[i % 4 :] + turn[: i % 4]
            window = {f"{name} {form}": measured(*services[name], forms[form], seconds) for name, form in turn}
            print(json.dumps(window), flush=True)
            windows.append(window)
    keep(args, "triton", {"clients": CLIENTS, "max_batch": MAX_BATCH, "windows": windows[1:]})


def measured(port: int, pid: int, file: Path, seconds: float) -> dict[str, Any]:
    """What the clients saw, rows of an execution, and the service's processor time of a request."""
    target = Target(f"http://127.0.0.1:{port}", MODEL)
    before, used = target.statistics(), processor_seconds(pid)
    found: dict[str, Any] = load(port, target.path("/infer"), CLIENTS, seconds, file)
    used, counts = processor_seconds(pid) - used, served(before, target.statistics())
    return {
        **found,
        "rows_per_execution": counts["rows_per_execution"],
        "server_ms": used / counts["inference_count"] * 1e3,
    }


@contextlib.contextmanager
def ours(max_batch: int) -> Iterator[tuple[int, int]]:
    """`clipsieve embed-server` with the sleeping model: its port and its process."""
    words = ["embed-server", "--model", "sleeper", "--port", "0", "--max-batch", str(max_batch)]
    with listening([sys.executable, "-c", OURS, *words, "--json", "--log-level", "warning"]) as (port, pid):
        yield port, pid


@contextlib.contextmanager
def theirs(base: Path, environment: Path) -> Iterator[tuple[int, int]]:
    """Triton with the same: its port and its process."""
    (packages,) = environment.glob("lib/python3.*/site-packages")
    server = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    backend, model = base / "backends" / "python", base / "models" / MODEL
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(THEIRS)
    words = [str(server / "bin" / "tritonserver"), f"--model-repository={model.parent}"]
    words += [f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", "--allow-grpc=false"]
    words += ["--allow-metrics=false", f"--http-port={(port := free_port())}"]
    libraries = [packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR") or ""]
    variables = os.environ | {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PYTHONPATH": str(packages),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    log = base / "triton.log"
    with log.open("w") as said, subprocess.Popen(words, stdout=said, stderr=said, env=variables) as process:
        try:
            until = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/v2/health/ready"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Triton did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(60)


def installed(base: Path) -> Path:
    """An environment that holds Triton."""
    environment = base / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", "nvidia-pytriton==0.7.0"], check=True)
    return environment


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def processor_seconds(pid: int) -> float:
    """What a process and all below it used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = [c for task in Path(f"/proc/{pid}/task").glob("*/children") for c in task.read_text().split()]
    return own + sum(processor_seconds(int(child)) for child in children)


if __name__ == "__main__":
    main()
