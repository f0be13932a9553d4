"""What measurements of models, the services around them and the page amount to; a function for each benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.figure import Figure, Record
from benchmarks.measuring import medians


def pipeline(record: Record) -> Iterator[Figure]:
    rounds = zip(record["pipeline_images_per_s"], record["forward_images_per_s"], strict=True)
    ratio = median(whole / floor for whole, floor in rounds)
    yield Figure(f"pipeline, {record['model']}: its rate over the forward pass's", ratio, least=0.85)


def regions(record: Record) -> Iterator[Figure]:
    whole, floor, seer = (record[f"{name}_images_per_s"] for name in ("pipeline", "forward", "detector"))
    ratio = median(w / f for w, f in zip(whole, floor, strict=True))
    yield Figure(f"regions, {record['detector']} and {record['model']}: their rate over the passes'", ratio, least=0.85)
    yield Figure("the detector alone, its regions chosen: images a second", median(seer))


def batcher(record: Record) -> Iterator[Figure]:
    for name, model in record["models"].items():
        alone = zip(model["loops"]["1"], model["alone_s"], strict=True)
        judged = name == "20 ms a call"  # the others share the processors with those who ask
        added = median(loop["median_s"] - seconds for loop, seconds in alone) * 1e3
        yield Figure(f"{name}: a lone row's time, ms more than without the batcher", added, 1 if judged else None)
        for threads, loops in model["loops"].items():
            rates = zip(loops, model["rows_per_s"], strict=True)
            ratio = median(loop["rows_per_s"] / floor for loop, floor in rates)
            yield Figure(f"{name}, {threads} threads: rows a second over batches of {record['max_batch']}", ratio)
        busy = median(loop["rows_per_s"] / loop["model_rows_per_s"] for loop in loops)
        yield Figure(f"{name}, {threads} threads: share of the time in the model", busy, least=0.95 if judged else None)
        rows = median(loop["rows_per_call"] for loop in loops)
        yield Figure(f"{name}, {threads} threads: rows in a call", rows, least=24 if judged else None)


def serving(record: Record) -> Iterator[Figure]:
    windows, clients = record["windows"], record["clients"]

    ours = median(w["ours"]["rate"] for w in windows)
    yield Figure(f"flat index, {clients} clients: requests a second", ours)
    theirs = median(w["ours"]["rate"] / w["theirs"]["rate"] for w in windows)
    yield Figure(f"flat index, {clients} clients: rate over clip-retrieval's", theirs, least=10)
    alone = median(w["ours"]["rate"] / w["faiss"] for w in windows)
    yield Figure("flat index: rate over faiss alone, a question at a time", alone, least=2.5)
    yield Figure("flat index: p99 over p50", median(w["ours"]["p99"] / w["ours"]["p50"] for w in windows), most=4)
    yield Figure("flat index: p50, ms", median(w["ours"]["p50"] * 1e3 for w in windows))
    costs = [c["request_ms"] - c["nearest_ms"] for c in record["ivf"]]
    yield Figure("IVF: processor time of HTTP, metadata and JSON, ms", median(costs), most=1)
    crowded = [c["crowded_ms"] - c["nearest_ms"] for c in record["ivf"]]
    yield Figure(f"IVF: the same among {clients} clients, handing the interpreter over included, ms", median(crowded))
    settling = [c["nearest_ms"] - c["search_ms"] for c in record["ivf"]]
    yield Figure("IVF: processor time of settling what was found, ms", median(settling))
    yield Figure("IVF: processor time of faiss's search, ms", median(c["search_ms"] for c in record["ivf"]))
    yield Figure("100,000 results: seconds", median(c["ours"] for c in record["large"]))
    yield Figure("100,000 results: over clip-retrieval's", median(c["ours"] / c["theirs"] for c in record["large"]))
    yield Figure("metadata in pages of 10,000: microseconds a row", median(c["ours"] for c in record["paged"]))
    yield Figure("metadata in pages: over clip-retrieval's", median(c["ours"] / c["theirs"] for c in record["paged"]))


def triton(record: Record) -> Iterator[Figure]:
    windows, clients = record["windows"], record["clients"]

    for form, least in (("json", 1.2), ("binary", 1.0)):
        ours, theirs = ([w[f"{name} {form}"] for w in windows] for name in ("ours", "triton"))
        what = f"{form}, {clients} clients"
        ratio = median(o["rate"] / t["rate"] for o, t in zip(ours, theirs, strict=True))
        yield Figure(f"{what}: rate over Triton's", ratio, least=least)
        yield Figure(f"{what}: p99 over p50", median(w["p99"] / w["p50"] for w in ours), most=1.5)
        rows = median(w["rows_per_execution"] for w in ours)
        yield Figure(f"{what}: rows of an execution, of {record['max_batch']}", rows, least=24)
        for name, some in (("ours", ours), ("Triton", theirs)):
            yield Figure(f"{what}: {name}, requests a second", median(w["rate"] for w in some))
            yield Figure(f"{what}: {name}, p50 in ms", median(w["p50"] * 1e3 for w in some))
            yield Figure(f"{what}: {name}, p99 in ms", median(w["p99"] * 1e3 for w in some))
            yield Figure(f"{what}: {name}, processor time of a request in ms", median(w["server_ms"] for w in some))
        yield Figure(f"{what}: the client's processor time of a request in ms", median(w["client_ms"] for w in ours))
        yield Figure(f"{what}: Triton, p99 over p50", median(w["p99"] / w["p50"] for w in theirs))
        yield Figure(f"{what}: Triton, rows of an execution", median(w["rows_per_execution"] for w in theirs))


def embedding(record: Record) -> Iterator[Figure]:
    for name, case in record["cases"].items():
        windows = case["windows"]
        service, floor = [w["service"] for w in windows], [w["floor"] for w in windows]
        row_ms = median(1e3 / f["rate"] for f in floor)
        yield Figure(f"{name}: a row of the model in batches, ms", row_ms)
        ratio = median(s["rate"] / f["rate"] for s, f in zip(service, floor, strict=True))
        least = 0.9 if row_ms >= 20 else None
        yield Figure(f"{name}, {record['clients']} clients: rate over the model's own", ratio, least=least)
        rows = median(s["rows_per_execution"] for s in service)
        yield Figure(f"{name}: rows of an execution, of {record['max_batch']}", rows, least=24)
        yield Figure(f"{name}: p50 in ms", median(s["p50"] * 1e3 for s in service))
        yield Figure(f"{name}: p99 over p50", median(s["p99"] / s["p50"] for s in service))
        costs = [s["server_ms"] - f["cpu_ms"] for s, f in zip(service, floor, strict=True)]
        if row_ms < 20:
            yield Figure(f"{name}: processor time of a request, the service less the model, ms", median(costs))
            yield Figure(f"{name}: the same of the client, ms", median(s["client_ms"] for s in service))


def page(record: Record) -> Iterator[Figure]:
    def middle(part: str, name: str) -> float:
        return float(median(one[name] for one in record[part]))

    rows = f"{record['rows']:,} items"
    yield Figure(f"{rows}: first contentful paint, ms", middle("opened", "painted"))
    yield Figure("its files asked for by a plain client, one after the other, ms", middle("opened", "server"))
    yield Figure(f"{rows}: Enter to the results in their places, ms", middle("typed", "cells"))
    yield Figure("of that, waiting for /search, ms", middle("typed", "search"))
    yield Figure("a plain client waits for the same question, ms", middle("typed", "server"))
    yield Figure("the same in a tab that shows its first picture, ms", middle("at_once", "cells"))
    yield Figure(f"{rows}: Enter to all pictures in sight, ms", middle("typed", "pictures"))
    yield Figure(f"{rows}: Enter to the counts, ms", middle("typed", "counts"))
    yield Figure("of that, waiting for /distribution, ms", middle("typed", "distribution"))
    scrolled = record["scrolled"]
    yield Figure("hits scrolled over", scrolled["reached"], least=10_000)
    yield Figure("most cells in the page meanwhile", scrolled["most"], most=150)


def onnx(record: Record) -> Iterator[Figure]:
    for kind in ("float", "int8"):
        for what, seconds in record["seconds"].items():
            middle = medians(seconds)
            yield Figure(
                f"{kind}, batches of {record['batch']} {what}: speed over torch's", middle["torch"] / middle[kind]
            )
        answers = record["answers"][kind]
        yield Figure(f"{kind}: recall at 10 of the model's own nearest of {record['images']:,}", answers["recall"])
        gain = answers["top1"] - record["answers"]["torch"]["top1"]
        yield Figure(f"{kind}: top-1 without examples", answers["top1"])
        yield Figure(f"{kind}: the same, less the model's own", gain)
        yield Figure(f"{kind}: least cosine of an image's two vectors", answers["least_cosine"])
        yield Figure(f"{kind}: megabytes", sum(record["sizes"][kind].values()) / 1e6)
