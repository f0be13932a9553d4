"""Every figure of /metrics: that it is there, and that it moves with what it counts."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve import manifest
from clipsieve.back.guard import REASONS
from clipsieve.back.meters import STAGES
from tests.back.made import FAKE, add_items
from tests.back.metered import Service
from tests.back.service import poll

PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}
STILL = {
    "clipsieve_build_info",
    "clipsieve_collection_disk_free_bytes",
    "clipsieve_collection_disk_size_bytes",
    "clipsieve_requests_waiting_limit",
}
MOVING = {
    "clipsieve_collection_commit_timestamp_seconds",
    "clipsieve_collection_items",
    "clipsieve_embed_batch_rows",
    "clipsieve_embed_compute_seconds",
    "clipsieve_embed_execution_seconds_total",
    "clipsieve_embed_failed_executions_total",
    "clipsieve_embed_prepare_seconds",
    "clipsieve_embed_queue_seconds",
    "clipsieve_embed_requests_total",
    "clipsieve_embed_waiting_rows",
    "clipsieve_ready",
    "clipsieve_request_seconds",
    "clipsieve_requests_in_flight",
    "clipsieve_requests_refused_total",
    "clipsieve_requests_total",
    "clipsieve_requests_waiting",
    "clipsieve_scan_questions",
    "clipsieve_text_cache_bytes",
    "clipsieve_text_cache_hits_total",
    "clipsieve_text_cache_misses_total",
    "clipsieve_text_cache_texts",
    *STAGES,
} - STILL


@pytest.fixture
def service(tmp_path):
    service = Service(add_items(tmp_path / "photos.clip", 9))
    yield service
    service.close()


def base(name):
    """The figure that a sample belongs to."""
    for end in ("_bucket", "_count", "_sum"):
        name = name.removesuffix(end)
    return name


def test_every_figure_is_listed_here_and_moves(service, tmp_path):
    samples = [service.samples()]
    model = service.models.get(FAKE.model.name)
    waiting = ("clipsieve_embed_waiting_rows", ("model", FAKE.model.name))
    threads = ThreadPoolExecutor(1)

    def ask_and_look():
        threads.submit(model.embed_texts, ["another"])
        poll(lambda: service.samples()[waiting] == 1)
        samples.append(service.samples())

    service.embedder.meanwhile = ask_and_look
    service.ask(text="bus")
    model.embed_texts(["bus"])  # as another collection of this model would
    service.ask(image_url="https://example.org/1.jpg")
    service.ask(text="fail", status=500)
    service.ask(text="meanwhile", deduplicate=True)
    threads.shutdown()
    add_items(tmp_path / "photos.clip", 2)
    service.ask(text="bus")
    service.gate.places.take("")
    samples.append(service.samples())
    assert service.send("/indices-list", Host="elsewhere.example").status_code == 421
    service.state.draining = True
    samples.append(service.samples())
    seen: dict[tuple[str, ...], set[float]] = {}
    for some in samples:
        for sample, value in some.items():
            seen.setdefault(sample, set() if sample in samples[0] else {0.0}).add(value)
    assert {base(name) for name, *_ in seen} - PROCESS == MOVING | STILL
    assert {base(name) for (name, *_), values in seen.items() if len(values) > 1} - PROCESS - STILL == MOVING


def test_figures_count_what_was_done(service, tmp_path):
    service.ask(text="bus")
    service.ask(text="bus")
    service.ask(image_url="https://example.org/1.jpg")
    service.ask(text="fail", status=500)
    add_items(tmp_path / "photos.clip", 2)
    service.ask(text="cat")
    found = service.samples()
    fake = ("model", FAKE.model.name)
    texts, images = (("kind", "text"), fake), (("kind", "image"), fake)
    photos = ("collection", "photos")
    expected = {
        ("clipsieve_collection_items", photos): 11,
        ("clipsieve_text_cache_hits_total", fake): 0,
        ("clipsieve_embed_batch_rows_bucket", *texts[:1], ("le", "1.0"), fake): 2,
        ("clipsieve_embed_batch_rows_count", *texts): 2,
        ("clipsieve_embed_batch_rows_sum", *images): 1,
        ("clipsieve_embed_failed_executions_total", *texts): 1,
        ("clipsieve_embed_requests_total", *texts, ("outcome", "succeeded")): 2,
        ("clipsieve_embed_requests_total", *texts, ("outcome", "failed")): 1,
        ("clipsieve_embed_queue_seconds_count", *texts): 2,
        ("clipsieve_scan_questions_sum", photos, ("modality", "image")): 4,  # those of before the commit too
        ("clipsieve_scan_questions_count", photos, ("modality", "image")): 4,
        ("image_prepro_time_count",): 1,
        ("text_prepro_time_count",): 2,
        ("clipsieve_ready",): 1,
        ("clipsieve_requests_waiting_limit",): 2,
    }
    assert {name: found[name] for name in expected} == expected
    commit = found["clipsieve_collection_commit_timestamp_seconds", photos]
    assert commit == pytest.approx((tmp_path / "photos.clip" / manifest.NAME).stat().st_mtime)


def test_refusals_are_counted_by_their_reason(service):
    def refused():
        return {
            labels[0][1]: value
            for (name, *labels), value in service.samples().items()
            if name == "clipsieve_requests_refused_total"
        }

    assert refused() == dict.fromkeys(REASONS, 0)
    service.send("/indices-list", Host="elsewhere.example")
    service.send("/indices-list", Origin="https://elsewhere.example")
    service.send("/knn-service", "[" * 100)
    for _ in range(service.gate.places.most):
        assert service.gate.places.take("")
    service.ask(text="bus", status=503)
    assert refused() == dict.fromkeys(REASONS, 0) | {"host": 1, "origin": 1, "body": 1, "busy": 1}


def test_a_folder_that_went_is_missing_and_no_error(service, tmp_path):
    (tmp_path / "photos.clip").rename(tmp_path / "gone.clip")
    names = {name for name, *_ in service.samples()}
    assert "clipsieve_collection_disk_free_bytes" not in names
    assert "clipsieve_ready" in names
