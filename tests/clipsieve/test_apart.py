"""Files that a process of their own reads: what HDF5 lets a file ask for, and texts that end their reader."""

import h5py
import numpy as np
import pytest

from clipsieve import apart, peer_tables
from clipsieve.errors import CollectionDamaged, InputError
from clipsieve.vector_sources import read_table


def external_link(folder, group):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = [1, 2, 3]
    group["caption"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def soft_link(folder, group):
    group["caption"] = h5py.SoftLink("/dataset/width")


def external_storage(folder, group):
    (folder / "secret").write_bytes(b"the secret of the house!")
    group.create_dataset("caption", (3,), np.int64, external=[(str(folder / "secret"), 0, 24)])


def virtual(folder, group):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = [1, 2, 3]
    layout = h5py.VirtualLayout((3,), np.int64)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", shape=(3,))
    group.create_virtual_dataset("caption", layout)


def huge_chunks(folder, group):
    group.create_dataset("caption", (2**40,), np.int64, chunks=(2**28,))


def two_axes(folder, group):
    group.create_dataset("caption", data=np.zeros((3, 2)))


REFUSED = {
    "an external link": (external_link, "lies outside the file"),
    "a soft link": (soft_link, "lies outside the file"),
    "external storage": (external_storage, "lies outside the file"),
    "a virtual dataset": (virtual, "lies outside the file"),
    "columns of other lengths, in huge chunks": (huge_chunks, "differ in rows"),
    "two axes": (two_axes, "instead of one value a row"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_hdf5_that_is_refused(make, words, tmp_path):
    path = tmp_path / "metadata.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group["width"] = [1, 2, 3]
        make(tmp_path, group)
    for read in (peer_tables.count_rows, peer_tables.read_table):
        with pytest.raises(CollectionDamaged, match=words) as refused:
            read(path)
        assert str(path) in str(refused.value)


@pytest.mark.slow
def test_hdf5_that_claims_more_rows_than_it_holds(tmp_path):
    """2**40 rows that the file does not hold are zeros: each batch is small, and who reads may stop."""
    path = tmp_path / "metadata.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("dataset").create_dataset("width", (2**40,), np.int64, chunks=(2**20,))
    assert peer_tables.count_rows(path) == 2**40  # which no vectors have, so that it is refused before it is read
    assert next(apart.batches("hdf5", path, 10)).num_rows == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.json", b"null"),  # ends pyarrow's reader with SIGSEGV
        ("t.jsonl", b'{"a": "\xc8"}'),
        ("t.csv", b"\xaahttp\n1\n"),
        ("t.csv", b"a,a\n1,2\n"),
        ("t.csv", b""),
    ],
)
def test_texts_that_are_refused(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        read_table(tmp_path / name)


@pytest.mark.slow
def test_texts_keep_their_columns(tmp_path):
    (tmp_path / "t.csv").write_text("key,n\na,1\nb,2\n")
    (tmp_path / "none.csv").write_text("key,n\n")
    (tmp_path / "t.jsonl").write_text('{"key": "a", "n": {"m": [1]}}\n')
    assert read_table(tmp_path / "t.csv").to_pydict() == {"key": ["a", "b"], "n": [1, 2]}
    assert read_table(tmp_path / "none.csv").to_pydict() == {"key": [], "n": []}
    assert read_table(tmp_path / "t.jsonl").to_pydict() == {"key": ["a"], "n": [{"m": [1]}]}
