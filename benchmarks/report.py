"""The ratios that raw measurements amount to, beside their targets.

    python -m benchmarks.report [--raw FOLDER]

Ratios are of medians within one run, whose competitors alternated; times of two machines, or of two runs, are never
compared. A target at quick sizes means nothing, and is not judged.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import RAW, medians


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: a value, the most or least it may be, and what it aims at."""

    what: str
    value: float | str
    most: float | None = None
    least: float | None = None
    aim: float | None = None

    @property
    def target(self) -> str:
        """The target in words; empty where there is none."""
        goal = f"at most {self.most:g}" if self.most is not None else ""
        goal = f"at least {self.least:g}" if self.least is not None else goal
        return goal if self.aim is None else f"{goal}, aim {self.aim:g}"

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if isinstance(self.value, str) or (self.most is None and self.least is None):
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


Record = dict[str, Any]

LABELLING = {"100 x (10 + 10)": (1.25, 1.15), "10 x (5 + 5)": (1.65, 1.4)}


def labelling(record: Record) -> Iterator[Figure]:
    for name, case in record["cases"].items():
        seconds = medians(case["seconds"])
        floor = min((s for s in seconds if s.startswith("product")), key=lambda s: seconds[s])
        most, aim = LABELLING[name]
        yield Figure(f"labelling, {name}: over the matrix product ({floor})", seconds["label"] / seconds[floor], most,
                     aim=aim)  # fmt: skip
        rival = {how: seconds[f"flat_scatter_{how}"] / seconds["label"] for how in ("whole", "blocks")}
        yield Figure(f"flat scatter, {name}: over labelling", rival["whole"], least=3)
        yield Figure(f"flat scatter in our blocks, {name}: over labelling", rival["blocks"])
        disk = seconds["label_float16_on_disk"] / seconds["label"]
        yield Figure(f"labelling, {name}: from float16 files over float32 in memory", disk)


def exact_scan(record: Record) -> Iterator[Figure]:
    seconds = medians(record["seconds"])
    read = min((s for s in seconds if s.startswith("read")), key=lambda s: seconds[s])
    product = min((s for s in seconds if s.startswith("product")), key=lambda s: seconds[s])
    yield Figure(f"one exact question: over reading the rows ({read})", seconds["one_question"] / seconds[read], 1.3)
    yield Figure(
        f"16 questions in one pass: over the matrix product ({product})",
        seconds["sixteen_questions"] / seconds[product],
        1.5,
    )


def search(record: Record) -> Iterator[Figure]:
    yield Figure("recall of the index at 100, single queries", record["recall"])
    for name, case in record["cases"].items():
        seconds = medians(case["seconds"])
        share = f"{case['rejected']:.0%} of candidates rejected"
        most = 1.25 if name == "few" else None
        yield Figure(f"search, {share}: over plain faiss search", seconds["search"] / seconds["plain"], most)
        yield Figure(f"search, {share}: over the exact scan", seconds["search"] / seconds["scan"])
        ended = f"{case['scanned']} of {case['questions']} ended in a scan"
        yield Figure(f"search, {share}: overlap with the exact scan ({ended})", case["overlap"])


def qdrant(record: Record) -> Iterator[Figure]:
    if "cases" not in record:
        yield Figure("Qdrant's best_score", "not installed")
        return
    for name, case in record["cases"].items():
        seconds = medians(case["seconds"])
        for rival, overlap in case["overlap"].items():
            yield Figure(f"{rival}, {name} rejected: overlap with the exact scan", overlap)
            if rival in seconds and rival != "search":
                yield Figure(f"{rival}, {name} rejected: time over search", seconds[rival] / seconds["search"])


def large_answers(record: Record) -> Iterator[Figure]:
    hits, fetched = medians(record["hits"]), medians(record["metadata"])
    how = "ended in a scan" if record["scanned"] else "from the index"
    yield Figure(f"k = {record['k']:,} ({how}): over plain faiss search", hits["search"] / hits["plain"])
    for name in ("in_order", "shuffled"):
        what = f"{record['metadata_rows']:,} metadata rows {name.replace('_', ' ')}: over reading the columns"
        yield Figure(what, fetched[f"rows_{name}"] / fetched["columns_in_order"])


def memory(record: Record) -> Iterator[Figure]:
    what = f"labelling {record['rows']:,} rows from disk"
    yield Figure(f"{what}: greatest resident memory without mapped files, MiB", record["not_files_mib"], 1024)
    yield Figure(f"{what}: greatest resident memory, libraries included, MiB", record["peak_mib"])


def pipeline(record: Record) -> Iterator[Figure]:
    rounds = zip(record["pipeline_images_per_s"], record["forward_images_per_s"], strict=True)
    ratio = statistics.median(whole / floor for whole, floor in rounds)
    yield Figure(f"pipeline, {record['model']}: its rate over the forward pass's", ratio, least=0.85)


def regions(record: Record) -> Iterator[Figure]:
    whole, floor, seer = (record[f"{name}_images_per_s"] for name in ("pipeline", "forward", "detector"))
    ratio = statistics.median(w / f for w, f in zip(whole, floor, strict=True))
    yield Figure(f"regions, {record['detector']} and {record['model']}: their rate over the passes'", ratio, least=0.85)
    yield Figure("the detector alone, its regions chosen: images a second", statistics.median(seer))


def growing(record: Record) -> Iterator[Figure]:
    seconds = record["seconds"]
    made = [e + i for e, i in zip(seconds["embed"], seconds["index"], strict=True)]
    added = seconds["add"][: len(seconds["extend"])]  # the others are of the last round, where nothing is indexed
    whole = [a + e for a, e in zip(added, seconds["extend"], strict=True)]

    def share(part: Sequence[float], of: Sequence[float]) -> float:
        return statistics.median(p / o for p, o in zip(part, of, strict=False))

    what = f"adding {record['added']:,} to {record['rows']:,}"
    yield Figure(f"{what}: over embedding and indexing all", share(added, made), most=0.03)
    yield Figure(f"{what} and extending the index: over embedding and indexing all", share(whole, made), most=0.03)
    yield Figure(f"{what}: over embedding all", share(added, seconds["embed"]))
    part = record["added"] / record["rows"]
    fixed = [a - part * e for a, e in zip(added, seconds["embed"], strict=False)]
    each = statistics.median(fixed) / record["rows"] * 1e6
    yield Figure("adding: for each file that was there already, microseconds", each)
    yield Figure("extending the index: over making it", share(seconds["extend"], seconds["index"]))
    late = statistics.median(seconds["add"][-len(added) :]) / statistics.median(added)
    yield Figure(f"the last of {record['adds']} additions: over the first", late)
    alone = statistics.median(seconds["remove_one"]) * 1000
    yield Figure("removing one item, until searches know, ms", alone, most=50)
    yield Figure(f"removing {record['added']:,} items: over one", share(seconds["remove_many"], seconds["remove_one"]))
    asked = medians(record["question_seconds"])
    first = [r + a for r, a in zip(seconds["refresh"], seconds["ask_after_add"], strict=True)]
    yield Figure("the first question after an addition: over one before", statistics.median(first) / asked["covered"])
    recall = record["recall"]
    what = f"recall at 40 after {record['adds']} additions"
    yield Figure(f"{what}: less that of a collection made at once", recall["grown"] - recall["made_at_once"], least=0)
    yield Figure(f"{what} and indexing: less that", recall["grown_and_indexed"] - recall["made_at_once"])
    yield Figure("recall of a collection made at once", recall["made_at_once"])
    for name, words in (
        ("one_percent_not_covered", "one addition that is not indexed"),
        ("many_percent_not_covered", f"{record['adds']} additions that are not indexed"),
    ):
        yield Figure(f"a question with {words}: over one without", asked[name] / asked["covered"])
    half = asked["half_removed"] / asked["made_at_once"]
    yield Figure("a question where half is removed: over one before", half)
    opened = medians(record["opening_seconds"])
    yield Figure("opening a thousand small shards, ms", opened["many_shards"] * 1000)
    yield Figure("opening a thousand small shards: over one shard", opened["many_shards"] / opened["one_shard"])


def batcher(record: Record) -> Iterator[Figure]:
    for name, model in record["models"].items():
        alone = zip(model["loops"]["1"], model["alone_s"], strict=True)
        judged = name == "20 ms a call"  # the others share the processors with those who ask
        added = statistics.median(loop["median_s"] - seconds for loop, seconds in alone) * 1e3
        yield Figure(f"{name}: a lone row's time, ms more than without the batcher", added, 1 if judged else None)
        for threads, loops in model["loops"].items():
            rates = zip(loops, model["rows_per_s"], strict=True)
            ratio = statistics.median(loop["rows_per_s"] / floor for loop, floor in rates)
            yield Figure(f"{name}, {threads} threads: rows a second over batches of {record['max_batch']}", ratio)
        busy = statistics.median(loop["rows_per_s"] / loop["model_rows_per_s"] for loop in loops)
        yield Figure(f"{name}, {threads} threads: share of the time in the model", busy, least=0.95 if judged else None)
        rows = statistics.median(loop["rows_per_call"] for loop in loops)
        yield Figure(f"{name}, {threads} threads: rows in a call", rows, least=24 if judged else None)


def serving(record: Record) -> Iterator[Figure]:
    windows, clients = record["windows"], record["clients"]

    def middle(values: Iterable[float]) -> float:
        return statistics.median(values)

    ours = middle(w["ours"]["rate"] for w in windows)
    yield Figure(f"flat index, {clients} clients: requests a second", ours)
    theirs = middle(w["ours"]["rate"] / w["theirs"]["rate"] for w in windows)
    yield Figure(f"flat index, {clients} clients: rate over clip-retrieval's", theirs, least=10)
    alone = middle(w["ours"]["rate"] / w["faiss"] for w in windows)
    yield Figure("flat index: rate over faiss alone, a question at a time", alone, least=2.5)
    yield Figure("flat index: p99 over p50", middle(w["ours"]["p99"] / w["ours"]["p50"] for w in windows), most=4)
    yield Figure("flat index: p50, ms", middle(w["ours"]["p50"] * 1e3 for w in windows))
    costs = [c["request_ms"] - c["nearest_ms"] for c in record["ivf"]]
    yield Figure("IVF: processor time of HTTP, metadata and JSON, ms", middle(costs), most=1)
    crowded = [c["crowded_ms"] - c["nearest_ms"] for c in record["ivf"]]
    yield Figure(f"IVF: the same among {clients} clients, handing the interpreter over included, ms", middle(crowded))
    settling = [c["nearest_ms"] - c["search_ms"] for c in record["ivf"]]
    yield Figure("IVF: processor time of settling what was found, ms", middle(settling))
    yield Figure("IVF: processor time of faiss's search, ms", middle(c["search_ms"] for c in record["ivf"]))
    yield Figure("100,000 results: seconds", middle(c["ours"] for c in record["large"]))
    yield Figure("100,000 results: over clip-retrieval's", middle(c["ours"] / c["theirs"] for c in record["large"]))
    yield Figure("metadata in pages of 10,000: microseconds a row", middle(c["ours"] for c in record["paged"]))
    yield Figure("metadata in pages: over clip-retrieval's", middle(c["ours"] / c["theirs"] for c in record["paged"]))


def suppress(record: Record) -> Iterator[Figure]:
    for size in record["cases"]:
        seconds, images = medians(size["seconds"]), size["images"]
        large = size["boxes"] >= 300
        for case, kept in size["kept"].items():
            what = f"{size['boxes']} boxes, {case}"
            yield Figure(f"{what}: boxes kept of an image", kept / images)
            rival, ours = seconds[f"{case}, loop"], seconds[f"{case}, all at once"]
            yield Figure(f"{what}: the loop over ours", rival / ours, least=3 if large else None)
            yield Figure(f"{what}: image by image over all at once", seconds[f"{case}, image by image"] / ours)
            yield Figure(f"{what}: ours over the matrix product", ours / seconds["product"])
            rate = images / seconds[f"{case}, stored"]
            yield Figure(f"{what}: images a second, from float16", rate, least=50 if large else 300)


def learning(record: Record) -> Iterator[Figure]:
    steps: list[int] = record["steps"]

    def users(case: Record, way: str, field: str, at: int) -> float:
        return statistics.mean(float(user[field][at]) for user in case["ways"][way])

    def over(cases: Sequence[Record], way: str, at: int) -> float:
        return statistics.mean(users(c, way, "after", at) - users(c, way, "text", at) for c in cases)

    everything: list[Record] = [case for cases in record["collections"].values() for case in cases]
    ways = list(everything[0]["ways"])
    every = {"all": everything, **record["collections"]}
    for name, cases in every.items():
        weak = [case for case in cases if users(case, ways[0], "after", 0) < record["weak"]]
        rest = [case for case in cases if case not in weak]
        if not weak:
            continue
        title = f"{name}, {len(weak)} classes under {record['weak']:g}"
        for way in ways:
            said = [statistics.mean(users(c, way, "after", at) for c in weak) for at in range(len(steps))]
            yield Figure(f"{title}: {way}, mAP after {steps} marks", " ".join(f"{value:.3f}" for value in said))
        yield Figure(f"{title}: ceiling", statistics.mean(case["ceiling"] for case in weak))
        for way in ways:
            least = 0.1 if way == "learned, spread" else None
            yield Figure(f"{title}: {way}, gain of {steps[2]} marks over the text", over(weak, way, 2), least=least)
        for kind in dict.fromkeys(case["kind"] for case in weak) if name != "all" else ():
            some = [case for case in weak if case["kind"] == kind]
            held = statistics.mean(case["ceiling"] - users(case, ways[0], "after", 0) for case in some)
            gains = f"{over(some, 'learned, spread', 2):+.3f}, {over(some, 'learned, spread', 3):+.3f} of {held:+.3f}"
            yield Figure(
                f"{name}, {kind} ({len(some)}): gain of {steps[2]} and {steps[3]} marks, of the ceiling's", gains
            )
        if rest:
            yield Figure(f"{name}, {len(rest)} other classes: learned, spread, gain", over(rest, "learned, spread", 2))


def triton(record: Record) -> Iterator[Figure]:
    windows, clients = record["windows"], record["clients"]

    def middle(values: Iterable[float]) -> float:
        return statistics.median(values)

    for form, least in (("json", 1.2), ("binary", 1.0)):
        ours, theirs = ([w[f"{name} {form}"] for w in windows] for name in ("ours", "triton"))
        what = f"{form}, {clients} clients"
        ratio = middle(o["rate"] / t["rate"] for o, t in zip(ours, theirs, strict=True))
        yield Figure(f"{what}: rate over Triton's", ratio, least=least)
        yield Figure(f"{what}: p99 over p50", middle(w["p99"] / w["p50"] for w in ours), most=1.5)
        rows = middle(w["rows_per_execution"] for w in ours)
        yield Figure(f"{what}: rows of an execution, of {record['max_batch']}", rows, least=24)
        for name, some in (("ours", ours), ("Triton", theirs)):
            yield Figure(f"{what}: {name}, requests a second", middle(w["rate"] for w in some))
            yield Figure(f"{what}: {name}, p50 in ms", middle(w["p50"] * 1e3 for w in some))
            yield Figure(f"{what}: {name}, p99 in ms", middle(w["p99"] * 1e3 for w in some))
            yield Figure(f"{what}: {name}, processor time of a request in ms", middle(w["server_ms"] for w in some))
        yield Figure(f"{what}: the client's processor time of a request in ms", middle(w["client_ms"] for w in ours))
        yield Figure(f"{what}: Triton, p99 over p50", middle(w["p99"] / w["p50"] for w in theirs))
        yield Figure(f"{what}: Triton, rows of an execution", middle(w["rows_per_execution"] for w in theirs))


def embedding(record: Record) -> Iterator[Figure]:
    def middle(values: Iterable[float]) -> float:
        return statistics.median(values)

    for name, case in record["cases"].items():
        windows = case["windows"]
        service, floor = [w["service"] for w in windows], [w["floor"] for w in windows]
        row_ms = middle(1e3 / f["rate"] for f in floor)
        yield Figure(f"{name}: a row of the model in batches, ms", row_ms)
        ratio = middle(s["rate"] / f["rate"] for s, f in zip(service, floor, strict=True))
        least = 0.9 if row_ms >= 20 else None
        yield Figure(f"{name}, {record['clients']} clients: rate over the model's own", ratio, least=least)
        rows = middle(s["rows_per_execution"] for s in service)
        yield Figure(f"{name}: rows of an execution, of {record['max_batch']}", rows, least=24)
        yield Figure(f"{name}: p50 in ms", middle(s["p50"] * 1e3 for s in service))
        yield Figure(f"{name}: p99 over p50", middle(s["p99"] / s["p50"] for s in service))
        costs = [s["server_ms"] - f["cpu_ms"] for s, f in zip(service, floor, strict=True)]
        if row_ms < 20:
            yield Figure(f"{name}: processor time of a request, the service less the model, ms", middle(costs))
            yield Figure(f"{name}: the same of the client, ms", middle(s["client_ms"] for s in service))


def page(record: Record) -> Iterator[Figure]:
    def middle(part: str, name: str) -> float:
        return float(statistics.median(one[name] for one in record[part]))

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


FIGURES: dict[str, Callable[[Record], Iterable[Figure]]] = {
    "labelling": labelling,
    "exact_scan": exact_scan,
    "search": search,
    "qdrant": qdrant,
    "large_answers": large_answers,
    "memory": memory,
    "pipeline": pipeline,
    "regions": regions,
    "growing": growing,
    "batcher": batcher,
    "serving": serving,
    "suppress": suppress,
    "learning": learning,
    "triton": triton,
    "embedding": embedding,
    "page": page,
    "onnx": onnx,
}


def section(name: str, record: Record) -> str:
    """One benchmark's table, as Markdown."""
    lines = [f"### {name}{' (quick: too small to judge)' if record['quick'] else ''}", ""]
    if facts := record.get("machine"):
        lines += [f"{facts['cpu']}, {facts['cores']} cores, load {facts['load_after'][0]}, {facts['when'][:10]}", ""]
    lines += ["| figure | value | target | |", "|---|---|---|---|"]
    for figure in FIGURES[name](record):
        value = figure.value if isinstance(figure.value, str) else f"{figure.value:.4g}"
        verdict = "" if figure.met is None or record["quick"] else "met" if figure.met else "MISSED"
        lines.append(f"| {figure.what} | {value} | {figure.target} | {verdict} |")
    return "\n".join(lines) + "\n"


def report(raw: Path, names: Sequence[str] = tuple(FIGURES)) -> str:
    """The tables of these benchmarks, as far as they were measured."""
    parts = []
    for name in names:
        path = raw / f"{name}.json"
        if not path.exists():
            parts.append(f"### {name}\n\nnot measured yet\n")
            continue
        try:
            parts.append(section(name, json.loads(path.read_text())))
        except KeyError as missing:
            parts.append(f"### {name}\n\n{path.name} was measured by another version ({missing} is not in it)\n")
    return "\n".join(parts)


def main() -> None:
    """Print all of them."""
    parser = argparse.ArgumentParser(description="The ratios of the last run, beside their targets.")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    print(report(parser.parse_args().raw))


if __name__ == "__main__":
    main()
