import base64
import json
import threading

import pytest
from typer.testing import CliRunner
from werkzeug.serving import WSGIRequestHandler, make_server

from clipsieve import cli
from clipsieve.back.app import create_embedding_app
from clipsieve.back.guard import Policy
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection
from clipsieve.errors import InputError
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.load_test import Target, Window, agree, served, summary
from tests.inference.pictures import encoded, picture


def window(throughput, latency=0.1, **more):
    return Window(2.0, [latency] * 4, round(2 * throughput), **more)


@pytest.mark.parametrize(
    ("throughputs", "latencies", "expected"),
    [
        ([100, 100], [1, 1], False),
        ([100, 109, 91], [1, 1, 1], True),
        ([100, 130, 100], [1, 1, 1], False),
        ([500, 100, 100, 100], [1, 1, 1, 1], True),
        ([100, 100, 100, 500], [1, 1, 1, 1], False),
        ([100, 100, 100], [1, 1, 1.5], False),
    ],
)
def test_when_windows_agree(throughputs, latencies, expected):
    assert agree([window(t, s) for t, s in zip(throughputs, latencies, strict=True)]) is expected


def test_the_figures_are_of_all_windows_together():
    def stats(rows, executions, requests, ns):
        figure = {"count": requests, "ns": ns}
        stages = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        return {
            "inference_count": rows,
            "execution_count": executions,
            "inference_stats": dict.fromkeys(stages, figure),
        }

    first = Window(2.0, [0.001 * i for i in range(1, 51)], 100, {"503: busy": 2}, stats(10, 5, 5, 0), {}, 0.05)
    last = Window(3.0, [0.001 * i for i in range(51, 101)], 100, {"503: busy": 1}, {}, stats(210, 15, 105, 10**9), 0.05)
    found = summary([first, last], True)
    assert (found["throughput"], found["requests"], found["rows"]) == (40, 100, 200)
    assert found["latency_ms"]["p50"] == pytest.approx(50.5)
    assert found["latency_ms"]["p99"] == pytest.approx(99.01)
    assert found["latency_ms"]["mean"] == pytest.approx(50.5)
    assert found["client_cpu_ms"] == pytest.approx(1)
    assert found["failed"] == {"503: busy": 3}
    assert found["server"]["rows_per_execution"] == 20
    assert found["server"]["queue_ms"] == pytest.approx(10)


def test_a_service_that_did_nothing_has_no_figures():
    nothing = served({}, {})
    assert (nothing["inference_count"], nothing["rows_per_execution"], nothing["queue_ms"]) == (0, None, None)


class Kept(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


@pytest.fixture
def service():
    """An embedding service in this process, which counts what it is asked; its address."""
    with batched(FakeEmbedder(16), BatchOptions(max_batch=8)) as embedder:
        app = create_embedding_app(lambda: embedder, Meters(), Protection(Policy(read_token="a-token-to-read")))
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Kept)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def load(service, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_READ_TOKEN", "a-token-to-read")

    def call(*arguments):
        words = ["load-test", service, "--concurrency", "4", "--window", "0.2", "--max-windows", "200", *arguments]
        return CliRunner().invoke(cli.app, list(map(str, words)))

    return call


@pytest.mark.parametrize(
    ("model", "tensors", "batch"),
    [("siglip_text", "binary", 1), ("embed_text", "json", 3), ("siglip_vision", "json", 1)],
)
@pytest.mark.slow
def test_it_measures_what_the_service_says_it_did(load, model, tensors, batch):
    done = load("--model", model, "--tensors", tensors, "-b", batch, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["stable"] is True
    assert len(found["windows"]) == 3
    assert found["rows"] == batch * found["requests"] > 0
    assert found["throughput"] == pytest.approx(found["rows"] / found["seconds"])
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
    server = found["server"]
    assert server["inference_count"] == pytest.approx(found["rows"], rel=0.5)  # what is under way at the ends differs
    assert 1 <= server["rows_per_execution"] <= 8
    assert 0 < server["queue_ms"] + server["compute_infer_ms"] <= server["success_ms"] <= latency["mean"] * 2
    assert "window 3: " in done.stderr


@pytest.mark.slow
def test_images_of_a_file_and_what_people_read(load, tmp_path):
    images = [base64.b64encode(encoded(picture(i, (6, 5)))).decode() for i in range(3)]
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"data": [{"INPUT_IMAGE": {"b64": image}} for image in images]}))
    done = load("-m", "embed_image", "--input-data", path)
    assert done.exit_code == 0, done.output
    for word in ("throughput", "p50", "p99", "queue", "compute", "executions", "processor time"):
        assert word in done.stdout
    done = load("-m", "embed_image", "--input-data", path, "--tensors", "json")
    assert done.exit_code == 2
    assert "Row 0" in done.stderr


@pytest.mark.slow
def test_what_is_refused_is_counted_and_is_a_failure(load):
    done = load("--model", "embed_text", "--parameter", "embed_model=other", "--max-windows", "3")
    assert done.exit_code == 1
    assert "400: The parameter embed_model is 'other'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nope"], "is not known"),
        (["--model", "embed_text", "--concurrency", "0"], "concurrency 0"),
        (["--model", "embed_text", "--max-windows", "2"], "max-windows 2"),
        (["--model", "embed_text", "--tensors", "xml"], "neither binary nor json"),
        (["--model", "embed_text", "--parameter", "x"], "NAME=VALUE"),
    ],
)
def test_what_cannot_be_meant(load, arguments, words):
    done = load(*arguments)
    assert done.exit_code in (1, 2)
    assert words in done.stderr


@pytest.mark.slow
def test_a_service_that_is_not_there():
    done = CliRunner().invoke(cli.app, ["load-test", "http://127.0.0.1:1", "--model", "embed_text"])
    assert done.exit_code == 1
    assert "does not answer as an embedding service" in done.stderr
    with pytest.raises(InputError, match="no address"):
        Target("ftp://x", "m").connect()
