"""What reads foreign bytes, each as a function of one input, with small good inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz import files, folders, requests, words

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One reader.

    prepare  gets a folder to work in -> reads an input to its end, and returns what was in it
    seeds    makes good inputs
    words    what the format is made of, to be put into inputs
    """

    prepare: Callable[[Path], Read]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()


TARGETS: Mapping[str, Target] = {
    "manifest": Target(folders.manifest, folders.manifest_seeds),
    "shards": Target(folders.shards, folders.shard_seeds),
    "foreign": Target(folders.foreign, folders.foreign_seeds),
    "npy": Target(files.npy, files.npy_seeds, files.NPY_WORDS),
    "arrow": Target(files.arrow, files.arrow_seeds),
    "hdf5": Target(files.hdf5, files.hdf5_seeds),
    "tar": Target(files.tar, files.tar_seeds),
    "vector-tar": Target(files.vector_tar, files.vector_tar_seeds),
    "list": Target(files.list_, files.list_seeds, files.LIST_WORDS),
    "table": Target(files.table, files.list_seeds, files.LIST_WORDS),
    "parquet": Target(files.parquet, files.parquet_seeds),
    "image": Target(files.image, files.image_seeds),
    "class-set": Target(words.class_set, words.class_set_seeds),
    "directai": Target(words.directai, words.directai_seeds),
    "filter": Target(words.filter_, words.filter_seeds, words.FILTER_WORDS),
    "flags": Target(words.flags, words.flag_seeds, words.FLAG_WORDS),
    "data-url": Target(words.data_url, words.data_url_seeds, words.URL_WORDS),
    "tensors": Target(requests.tensors, requests.tensor_seeds),
    "head": Target(requests.head, requests.head_seeds, requests.HEAD_WORDS),
    "body": Target(requests.body, requests.body_seeds),
}
"""Name -> reader."""
