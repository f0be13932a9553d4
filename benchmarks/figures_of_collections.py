"""What measurements of collections, their index and their rules amount to; a function for each benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.figure import Figure, Record
from benchmarks.measuring import medians

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
    copy, plain = record["cases"]["copy"], record["cases"]["float32"]
    seconds = medians(copy["seconds"])
    read = min((s for s in seconds if s.startswith("read")), key=lambda s: seconds[s])
    rows = f"{copy['rows']:,} rows"
    yield Figure(f"reading the coarse copy of {rows} ({read}), GB/s", copy["bytes"] / seconds[read] / 1e9)
    yield Figure(f"one question by the copy of {rows}: over reading it", seconds["one_question"] / seconds[read], 1.3)
    yield Figure(
        f"the product of that question alone ({copy['ways']['1']}): over reading", seconds["product_1"] / seconds[read]
    )
    yield Figure(
        f"16 questions by the copy in one pass: over its product ({copy['ways']['16']})",
        seconds["sixteen_questions"] / seconds["product_16"],
        1.5,
    )
    yield Figure("one question by the copy, milliseconds", seconds["one_question"] * 1000)
    yield Figure(
        "the same over reading all rows as float16", seconds["one_question"] / seconds["one_question_as_stored"]
    )
    yield Figure("rows settled again, per million and question", copy["settled"] * 1e6)
    yield Figure("making the copy, seconds", copy["making_s"])
    seconds = medians(plain["seconds"])
    read = min((s for s in seconds if s.startswith("read")), key=lambda s: seconds[s])
    product = min((s for s in seconds if s.startswith("product")), key=lambda s: seconds[s])
    what = f"one question to {plain['rows']:,} float32 rows"
    yield Figure(f"{what}: over reading them ({read})", seconds["one_question"] / seconds[read], 1.3)
    yield Figure(f"{what}, by a copy: over reading the rows", seconds["one_question_by_copy"] / seconds[read], 1.3)
    yield Figure(
        f"16 questions in one float32 pass: over the matrix product ({product})",
        seconds["sixteen_questions"] / seconds[product],
        1.5,
    )
    by_copy = seconds["sixteen_questions_by_copy"] / seconds[product]
    yield Figure("the same by a copy", by_copy, 1.5)


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


def recall(record: Record) -> Iterator[Figure]:
    for name, made in record["sets"].items():
        kinds = made["answers"].values()
        stated, found = (np.array([pair[side] for answers in kinds for pair in answers]) for side in (0, 1))
        yield Figure(f"{name}: recall stated less measured, mean", float((stated - found).mean()), most=0.01)
        below = float((found < stated - 0.05).mean())
        yield Figure(f"{name}: share of answers more than 0.05 below what they state", below, most=0.05)
        read = sum(made["scanned"].values())
        yield Figure(f"{name}: share of questions answered exactly, from all rows", read / (read + len(stated)))


def negatives(record: Record) -> Iterator[Figure]:
    for name, kinds in record["sets"].items():
        for kind, found in kinds.items():
            soft, hard = found["ways"]["P - max(0, N - P)"], found["ways"]["hard: P if P > N, else behind all"]
            title = f"{name}, {kind}"
            yield Figure(f"{title}: soft veto, gain in average precision over positives alone", soft["gain"], least=0)
            yield Figure(f"{title}: soft veto, share of cases that lose more than 0.02", soft["harmed"], most=0.05)
            yield Figure(f"{title}: hard veto, gain", hard["gain"])
            yield Figure(f"{title}: hard veto, share of cases that lose more than 0.02", hard["harmed"])


def thresholds(record: Record) -> Iterator[Figure]:
    shares: dict[str, list[float]] = {}
    for name, kinds in record["sets"].items():
        for kind, found in kinds.items():
            beyond = found.pop("beyond")
            yield Figure(f"{name}, {kind}: items not of the class over a score of 3, of one in a thousand", beyond)
            for line, value in found.items():
                yield Figure(f"{name}, {kind}: F1 at the line {line}", value)
                shares.setdefault(line, []).append(value / found["best"])
    for line, values in shares.items():
        yield Figure(f"all: share of the best line's F1 at {line}, mean", statistics.mean(values))
        yield Figure(f"all: share of the best line's F1 at {line}, least", min(values))


def mixed_examples(record: Record) -> Iterator[Figure]:
    for name, ways in record["sets"].items():
        for way, found in ways.items():
            said = f"{found['precision']:.3f}" if "alone" in way else f"{found['precision']:.3f}, {found['share']:.2f}"
            yield Figure(f"{name}: {way}, average precision, share that the image decides", said)
    for way in next(iter(record["sets"].values())):
        lost = [ways["better alone"]["precision"] - ways[way]["precision"] for ways in record["sets"].values()]
        shares = [ways[way]["share"] for ways in record["sets"].values()]
        yield Figure(f"all: {way}, mean loss against the better one alone", statistics.mean(lost))
        yield Figure(f"all: {way}, mean share that the image decides", statistics.mean(shares))
