"""Indices made, extended and measured.

A new index file is written under a name that the manifest does not use, the manifest is replaced, and only then the old
file goes: a killed build leaves the collection as it was, and what it wrote is removed by the next one.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from clipsieve import perceptual, shards
from clipsieve.durable import TEMPORARY, write_file
from clipsieve.errors import InputError, MissingExtra
from clipsieve.index import coarse, costs, duplicates, faiss_index, witness
from clipsieve.index.calibrate import SAMPLE
from clipsieve.index.faiss_index import FaissIndex
from clipsieve.index.flat import FlatIndex
from clipsieve.index.kinds import KindRecall, kinds_of, kinds_of_json, to_json
from clipsieve.index.measure import RECALL_AT, measure_kinds
from clipsieve.index.plan import EXACT_ROWS, FLAT_ROWS, Plan, choose_index, lists_for
from clipsieve.index.pools import EmbedTexts, make_pools
from clipsieve.index.region_rows import ROLES as REGIONS
from clipsieve.index.rows import Rows
from clipsieve.index.stored import FLAT, ROLES, Modality, all_ids, all_rows, entry_of, rows_of, shards_of
from clipsieve.index.train import (
    Progress,
    check_device,
    fill,
    fill_on_disk,
    keeps_half,
    open_faiss,
    positions,
    train,
    tune_and_measure,
)
from clipsieve.manifest import Index, Manifest, Shard
from clipsieve.protocols import VectorIndex
from clipsieve.types import Int64
from clipsieve.writer import Writer, open_writer, write_array

GROWTH = 3
"""An index is made anew rather than extended once its collection is so many times as large as when it was trained."""


PAIRING_BYTES = 2**30
"""Memory that finding near-duplicates may take, whatever a search may hold afterwards."""


@dataclass(frozen=True, slots=True)
class Built:
    """One index after `build_indices`.

    entry   as the manifest has it
    action  "built", "extended", "measured" or "kept"
    why     a sentence: what was chosen, or why nothing was to do
    lacks   why it has no figure for questions by text; "" where it has one, or needs none
    """

    entry: Index
    action: str
    why: str
    lacks: str = ""


def build_indices(
    folder: str | os.PathLike[str],
    *,
    recall: float = 0.95,
    memory_bytes: int = 4 << 30,
    device: str = "cpu",
    rebuild: bool = False,
    factory: str | None = None,
    progress: Progress | None = None,
    texts: EmbedTexts | None = None,
    latency_ms: float | None = None,
) -> list[Built]:
    """Index the collection's images, captions, regions and crops as far as that was not done; commit once for each.

    recall        wanted of an approximate index, 0..1, for each kind of question; what was reached is in the entry
    memory_bytes  what a process that searches may hold
    device        "cpu", or "cuda" to train and fill with faiss-gpu
    rebuild       make everything anew: the kind is chosen again, duplicates and the background sample too
    factory       a faiss factory string, or "flat", in place of the choice by size and memory
    texts         embeds texts by the collection's model, to measure with; called only where an index is approximate.
                  Without, or where it raises, captions are the only texts, or there are none: then no figure either
    latency_ms    what a question may take: an index is made where reading all vectors takes longer, measured here and
                  now. By default from plan.EXACT_ROWS on

    InputError for options that cannot be, MissingExtra without the faiss that is needed; the folder's own errors.
    """
    with open_writer(folder) as writer:
        clean_indices(writer.folder, writer.manifest)
        results = build_indices_of(writer, recall, memory_bytes, device, rebuild, factory, progress, texts, latency_ms)
        clean_indices(writer.folder, writer.manifest)
    return results


def build_indices_of(
    writer: Writer,
    recall: float = 0.95,
    memory_bytes: int = 4 << 30,
    device: str = "cpu",
    rebuild: bool = False,
    factory: str | None = None,
    progress: Progress | None = None,
    texts: EmbedTexts | None = None,
    latency_ms: float | None = None,
) -> list[Built]:
    """`build_indices` for a writer that is at work already. Files of indices that are no longer named stay."""
    if not 0 < recall <= 1:
        raise InputError(f"A recall of {recall} was asked for; it lies above 0 and at most at 1.")
    if latency_ms is not None and not (latency_ms > 0 and math.isfinite(latency_ms)):
        raise InputError(f"A latency of {latency_ms} milliseconds was asked for; give a number above 0, like 100.")
    check_device(device)
    results = []
    for modality in (*ROLES, *REGIONS):
        parts = shards_of(writer.manifest, modality)
        if not parts:
            continue
        job = _Job(
            writer, modality, parts, recall, memory_bytes, device, factory, progress or _silent, texts, latency_ms
        )
        made = job.run(rebuild)
        if made is not None:
            results.append(made)
    if not results:
        raise InputError(f"{writer.folder} holds no vectors yet; run `clipsieve inference` first.")
    return results


class _Job:
    """One modality of one collection, indexed under the writer's lock."""

    def __init__(
        self,
        writer: Writer,
        modality: str,
        parts: list[Shard],
        recall: float,
        memory_bytes: int,
        device: str,
        factory: str | None,
        progress: Progress,
        texts: EmbedTexts | None,
        latency_ms: float | None,
    ) -> None:
        self.writer, self.modality, self.parts = writer, modality, parts
        self.folder = writer.folder
        self.recall, self.memory, self.device, self.factory = recall, memory_bytes, device, factory
        self.progress, self.texts = progress, texts
        self.latency_ms = latency_ms
        self.lacks = ""
        # Removed rows are in the index, which covers whole shards; searches leave them out.
        self.rows = all_rows(self.folder, writer.manifest, parts, modality)
        self.dim = self.rows.dim

    def run(self, rebuild: bool) -> Built | None:
        """What was done; None where there is nothing to index: no region was found in any image."""
        entry = None if rebuild else entry_of(self.writer.manifest, self.modality)
        new = [s for s in self.parts if entry is None or s.number not in entry.shards]
        if entry is not None and not new and self._lacks_kinds(entry):
            return self._measure_again(entry)
        if entry is not None and not new:
            if self._keeps_coarse(entry.kind) and "coarse" not in entry.files:
                plan = Plan(FLAT, False, 0, "It had no coarse copy of its rows, by which they are read faster.")
                return self._commit(plan, None, {}, entry, "extended")
            return Built(entry, "kept", f"It covers all {entry.rows:,} rows.")
        if not self.rows.count and self.modality in REGIONS:
            return None
        plan = self._plan()
        if self.factory is not None:
            plan = dataclasses.replace(plan, kind=self.factory, why=f"{self.factory} was asked for.")
        if entry is None or not self._extends(entry, new, plan):
            return self._commit(plan, *self._make(plan), None, "built")
        if entry.kind == FLAT:
            return self._commit(plan, None, {}, entry, "extended")
        plan = Plan(entry.kind, False, plan.bytes, f"{sum(s.rows for s in new):,} rows were added to it.")
        return self._commit(plan, *self._extend(entry, new), entry, "extended")

    def _plan(self) -> Plan:
        most = EXACT_ROWS if self.modality in ROLES else FLAT_ROWS  # of regions there is no coarse copy
        scan = 0.0 if self.latency_ms is None or self.factory is not None else costs.exact_ms(self.rows)
        return choose_index(self.rows.count, self.dim, self.memory, self.latency_ms, scan, most)

    def _extends(self, entry: Index, new: list[Shard], plan: Plan) -> bool:
        covered = max(s.last_id for s in self.parts if s.number in entry.shards)
        if covered > min(s.first_id for s in new):  # regions were found in older images: its rows would be out of order
            return False
        if entry.kind == FLAT:
            return plan.kind == FLAT
        trained = int(entry.parameters.get("trained_rows", entry.rows))
        asked = self.factory is None or self.factory == entry.kind
        return asked and self.rows.count <= GROWTH * trained and "lists" not in entry.files

    def _make(self, plan: Plan) -> tuple[FaissIndex | None, dict[str, Any]]:
        if plan.kind == FLAT:
            return None, {}
        index = train(plan.kind, self.rows, self.device, self.progress)
        if plan.on_disk:
            lists = self.folder / self._free("ivfdata")
            index = fill_on_disk(index, self.rows, lists, self.memory, self.progress)
        else:
            index = fill(index, self.rows, self.device, self.progress)
        tuned, parameters = self._tuned(index)
        return tuned, parameters | {"trained_rows": self.rows.count}

    def _extend(self, entry: Index, new: list[Shard]) -> tuple[FaissIndex, dict[str, Any]]:
        covered = [s for s in self.parts if s.number in entry.shards]
        index = open_faiss(self.folder, entry, self._ids(covered)).index
        rows = all_rows(self.folder, self.writer.manifest, new, self.modality)
        index = fill(index, rows, self.device, self.progress)
        trained = entry.parameters.get("trained_rows", entry.rows)
        tuned, parameters = self._tuned(index, entry)
        return tuned, parameters | {"trained_rows": trained}

    def _measured(self, index: Any) -> FaissIndex:
        """The filled index with the error of its scores."""
        made = FaissIndex(index, positions(self._all_ids), score_error=0.0)
        if not made.lossless and not keeps_half(index, self.rows):
            made = dataclasses.replace(made, score_error=faiss_index.measure_error(made, self.rows))
        return made

    def _lacks_kinds(self, entry: Index) -> bool:
        """Whether an index says less of its recall than could be measured: an older one, or one without texts."""
        if entry.kind == FLAT or entry.recall is None or entry.name in REGIONS:
            return False
        sources = {kind.source for kind in kinds_of(entry)}
        return "kinds" not in entry.parameters or ("text" not in sources and self.texts is not None)

    def _measure_again(self, entry: Index) -> Built:
        index = open_faiss(self.folder, entry, self._all_ids)
        tuned, parameters = self._tuned(index.index, entry)
        if self.lacks and "kinds" in entry.parameters:
            return Built(entry, "kept", f"It covers all {entry.rows:,} rows.", self.lacks)
        parameters = {**entry.parameters, **parameters, "effort": tuned.effort}
        entry = dataclasses.replace(entry, parameters=parameters, recall=tuned.recall)
        manifest = self.writer.manifest
        others = tuple(i for i in manifest.indices if i.name != self.modality)
        self.writer.commit(dataclasses.replace(manifest, indices=(*others, entry)))
        return Built(entry, "measured", "Its recall was not known for each kind of question.", self.lacks)

    def _tuned(self, index: Any, before: Index | None = None) -> tuple[FaissIndex, dict[str, Any]]:
        """The index with its effort and recall, and what the entry is to say of each kind of question.

        before  the entry of the index before rows were added
        """
        made = self._measured(index)
        if made.exhaustive:
            return made, {}
        if self.modality in REGIONS:
            self.progress("tuning", 0, 1)
            effort = None if before is None else before.parameters.get("effort")
            tuned = tune_and_measure(made, self.rows, self.recall, effort)
            self.progress("tuning", 1, 1)
            return tuned, {}
        self.progress("tuning", 0, 1)  # a model may have to be loaded first
        modality = cast(Modality, self.modality)
        pools, self.lacks = make_pools(self.folder, self.writer.manifest, modality, self.rows, self.texts)
        known = () if before is None else kinds_of(before)
        kinds = measure_kinds(
            made, self.rows, pools, self.recall, known, lambda done, total: self.progress("tuning", done, total)
        )
        return _summed_up(made, kinds), {"kinds": to_json(kinds)}

    @property
    def _all_ids(self) -> Int64:
        return self._ids(self.parts)

    def _ids(self, parts: list[Shard]) -> Int64:
        return all_ids(self.folder, self.writer.manifest, parts, self.modality)

    def _commit(
        self, plan: Plan, index: FaissIndex | None, parameters: dict[str, Any], before: Index | None, action: str
    ) -> Built:
        writer, files = self.writer, {}
        recall = None if index is None else index.recall
        if index is not None:
            path = self.folder / self._free("index")
            faiss_index.write_index(index, path)
            files["index"] = writer.file(path)
            if plan.on_disk:
                files["lists"] = writer.file(self.folder / self._free("ivfdata"))
            parameters |= {"effort": index.effort, "score_error": index.score_error, "recall_at": RECALL_AT}
            index = _for_own_rows(index, self.modality, kinds_of_json(parameters.get("kinds", [])))
            queries = self.rows.questions(self.rows.sample(costs.POSITIVES))
            parameters["search_ms"] = round(costs.question_ms(index, queries), 3)
        if self._keeps_coarse(plan.kind):
            paths = {role: self.folder / self._free(f"{role}.npy") for role in coarse.FILES}
            coarse.write_coarse(self.rows, paths)
            files |= {role: writer.file(path) for role, path in paths.items()}
        if self.modality == "image":
            groups, known = self._groups(index, before)
            path = self.folder / self._free("groups.npy")
            write_file(path, lambda file: write_array(file, groups))
            files["groups"] = writer.file(path)
            parameters |= known
        entry = Index(
            name=self.modality,
            kind=plan.kind,
            parameters=parameters,
            shards=tuple(s.number for s in self.parts),
            rows=self.rows.count,
            recall=recall,
            files=files,
        )
        manifest = writer.manifest
        others = tuple(i for i in manifest.indices if i.name != self.modality)
        background = manifest.background
        if self.modality == "image" and (before is None or not background):
            background = tuple(make_background(self.folder, manifest).tolist())
        writer.commit(dataclasses.replace(manifest, indices=(*others, entry), background=background))
        return Built(entry, action, plan.why, self.lacks)

    def _keeps_coarse(self, kind: str) -> bool:
        """Whether a coarse copy of the rows stands in for an index of this kind."""
        large = self.rows.count * self.dim >= coarse.LEAST_NUMBERS
        return kind == FLAT and self.modality in ROLES and large

    def _groups(self, index: FaissIndex | None, before: Index | None) -> tuple[Int64, dict[str, Any]]:
        """int64 (2, n): the group of each item, and its rank by quality; and what was measured for that."""
        ids = self._all_ids
        hashes, usable, sizes = _looks(self.folder, self.parts)
        near = witness.descriptors(hashes).astype(np.float16)
        by_hash = Rows(near.shape[1], [(range(len(ids)), near)])
        candidates = duplicates.Candidates(
            ids,
            self.rows.take,
            self._neighbours(self.rows, index, ids),
            hashes,
            usable,
            self._neighbours(by_hash, None, np.arange(len(ids))),
        )
        known = None
        if before is not None and "groups" in before.files and "duplicate_ratio" in before.parameters:
            known = np.load(self.folder / before.files["groups"].path)[0]
            cosine, ratio = before.parameters["duplicate_cosine"], before.parameters["duplicate_ratio"]
        else:
            drawn = np.random.default_rng(0).permutation(self.rows.sample(30_000, seed=1))
            half = min(1_000, len(drawn) // 2)
            sample, others = self.rows.take(np.sort(drawn[:half])), self.rows.take(np.sort(drawn[half:]))
            cosine = duplicates.measure_threshold(sample, others)
            ratio = duplicates.measure_ratio(candidates, np.searchsorted(ids, np.sort(drawn[:1_000])))
        groups = duplicates.group_items(
            candidates,
            ratio,
            codes=_hash_codes(self.folder, self.parts),
            known=known,
            progress=lambda done, total: self.progress("duplicates", done, total),
        )
        measured = {"duplicate_cosine": cosine, "duplicate_ratio": ratio, "hashed": int(hashes.any(axis=1).sum())}
        return np.stack([groups, duplicates.quality_ranks(*sizes)]), measured

    def _neighbours(self, rows: Rows, index: FaissIndex | None, ids: Int64) -> VectorIndex:
        """What finds near-duplicates: the index itself; where there is none, lists made for the purpose."""
        if index is not None:
            return index
        kind = f"IVF{lists_for(rows.count, rows.dim, self.memory)},Flat"
        if rows.count > FLAT_ROWS:  # comparing each with all others would take days
            kind = choose_index(rows.count, rows.dim, max(self.memory, PAIRING_BYTES), None, 0.0, 0).kind
        if kind == FLAT or int(re.findall(r"\d+", kind)[0]) < 64:
            return FlatIndex(rows)
        try:
            made = train(kind, rows, "cpu", self.progress)
        except MissingExtra:  # a flat collection needs no faiss; this is only slower
            return FlatIndex(rows)
        made = fill(made, rows, "cpu", self.progress)
        found = FaissIndex(made, positions(ids), score_error=0.0)
        if not found.lossless and not keeps_half(made, rows):
            found = dataclasses.replace(found, score_error=faiss_index.measure_error(found, rows))
        return dataclasses.replace(found, effort=8)

    def _free(self, suffix: str) -> str:
        """A name for a file of this modality: image.index, then image_2.index, image_3.index, ...

        None is used again at once: a reader of the last commit may not have opened the file yet.
        """
        used = [file.path for index in self.writer.manifest.indices for file in index.files.values()]
        found = [re.fullmatch(rf"{self.modality}(?:_(\d+))?\..*", path) for path in used]
        number = 1 + max((int(match[1] or 1) for match in found if match), default=0)
        return f"{self.modality}{'' if number == 1 else f'_{number}'}.{suffix}"


def _summed_up(index: FaissIndex, kinds: Sequence[KindRecall]) -> FaissIndex:
    """The index with what serves all kinds that use it: the greatest effort, and the least recall; 0 without any."""
    used = [kind for kind in kinds if kind.recall is not None]
    effort = max((kind.effort or 1 for kind in used), default=max(1, index.most_effort // 64))
    return dataclasses.replace(index, effort=effort, recall=min((kind.recall or 0.0 for kind in used), default=0.0))


def _for_own_rows(index: FaissIndex, modality: str, kinds: Sequence[KindRecall]) -> FaissIndex:
    """The index with the effort that questions like its rows take, and not what the hardest kind does."""
    own = [kind.effort for kind in kinds if (kind.source, kind.shape) == (modality, "one") and kind.effort is not None]
    return dataclasses.replace(index, effort=min(own)) if own else index


def make_background(folder: Path, manifest: Manifest) -> Int64:
    """The ids of a random sample of live images, which calibration is measured on: int64 (<= SAMPLE,), ascending."""
    parts = shards_of(manifest, "image")
    return rows_of(folder, manifest.dim, parts, "image", shards.read_removed(folder, manifest)).sample(SAMPLE)


def _hash_codes(folder: Path, parts: list[Shard]) -> Int64:
    """Content hashes of all items as numbers, -1 where a shard knows none."""
    hashes: list[str | None] = []
    for shard in parts:
        table = shards.read_metadata(folder, shard, ["content_hash"]) if "metadata" in shard.files else None
        known = table is not None and "content_hash" in table.column_names
        hashes += table["content_hash"].to_pylist() if known and table is not None else [None] * shard.rows
    return duplicates.hash_codes(hashes)


def _looks(folder: Path, parts: list[Shard]) -> tuple[witness.Hashes, Any, tuple[Int64, Int64]]:
    """Of all items: the hash (of the thumbnail where none was kept), whether it says something; pixels, bytes."""
    found: list[bytes | None] = []
    sizes: list[Int64] = []
    for shard in parts:
        table = None
        if "metadata" in shard.files:
            table = shards.read_metadata(folder, shard, [perceptual.COLUMN, "width", "height", "size"])
        columns = {name: table[name].to_pylist() for name in table.column_names} if table is not None else {}
        hashes = list(columns.get(perceptual.COLUMN, [None] * shard.rows))
        if "thumbs" in shard.files and None in hashes:
            thumbs = shards.read_thumbs(folder, shard)["thumb"].to_pylist()
            hashes = [
                perceptual.hash_of_thumbnail(thumb) if one is None and thumb is not None else one
                for one, thumb in zip(hashes, thumbs, strict=True)
            ]
        found += hashes
        width, height, size = (
            np.array([v if isinstance(v, int) else 0 for v in columns.get(name, [0] * shard.rows)], dtype=np.int64)
            for name in ("width", "height", "size")
        )
        sizes.append(np.stack([width * height, size]))
    made, known = perceptual.hashes_as_array(found)
    pixels, bytes_ = np.concatenate(sizes, axis=1)
    return made, known & (witness.contrast(made) >= witness.LEAST_CONTRAST), (pixels, bytes_)


def clean_indices(folder: Path, manifest: Manifest) -> None:
    """Delete index files that the manifest does not name: older ones, and those of builds that were killed."""
    used = {file.path for index in manifest.indices for file in index.files.values()}
    names = "|".join((*ROLES, *REGIONS))
    ours = re.compile(rf"\.?({names})(_\d+)?\.(index|ivfdata|(groups|coarse|coarse_\w+)\.npy)({re.escape(TEMPORARY)})?")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.name not in used:
            path.unlink()


def _silent(_what: str, _done: int, _total: int) -> None:
    pass
