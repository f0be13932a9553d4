import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.index import duplicates, witness
from clipsieve.index.duplicates import (
    LEAST_RATIO,
    MOST_RATIO,
    REFERENCE,
    USUAL_RATIO,
    Candidates,
    Groups,
    first_of_near,
    group_items,
    hash_codes,
    measure_ratio,
    measure_threshold,
    quality_ranks,
)
from clipsieve.index.flat import FlatIndex
from clipsieve.index.rows import Rows
from clipsieve.inference.decode import decode
from clipsieve.perceptual import hashes_as_array, perceptual_hash
from clipsieve.types import Float32, Int64
from tests.inference.pictures import encoded, picture


def unit(vectors: np.ndarray) -> Float32:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def hashes_of(images: list[Image.Image]) -> witness.Hashes:
    return hashes_as_array([perceptual_hash(image) for image in images])[0]


def candidates_of(hashes: witness.Hashes, ids: Int64 | None = None, usable: np.ndarray | None = None) -> Candidates:
    """Vectors are those of the hashes, save that the first two items' are exchanged: they alone tell nothing."""
    near = witness.descriptors(hashes)
    ids = np.arange(len(hashes), dtype=np.int64) if ids is None else ids
    vectors = near.copy()
    vectors[:2] = vectors[1::-1]
    rows = Rows(64, [(ids, vectors)])
    by_hash = FlatIndex(Rows(64, [(np.arange(len(hashes), dtype=np.int64), near)]))
    usable = np.ones(len(hashes), np.bool_) if usable is None else usable
    return Candidates(ids, rows.take, FlatIndex(rows), hashes, usable, by_hash)


def grouped(images: list[Image.Image], ids: Int64 | None = None, **options: object) -> list[int]:
    found: Int64 = group_items(candidates_of(hashes_of(images), ids), USUAL_RATIO, **options)
    return list(map(int, found))


def copies_of(image: Image.Image, count: int, rng: np.random.Generator) -> list[Image.Image]:
    """Others of the picture: cut by up to a twentieth at two sides, and noisy."""
    made = []
    for _ in range(count):
        left, top = rng.integers(0, 6, 2)
        pixels = np.asarray(image)[top:, left:] + rng.normal(0, 4, (image.height - top, image.width - left, 3))
        made.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return made


def leaders(hashes: witness.Hashes, ratio: float) -> list[int]:
    """The definition, item by item: of all pairs, and of all neighbours."""
    n = len(hashes)
    one, other = np.triu_indices(n, 1)
    lying = np.full((n, n), np.inf, np.float32)
    lying[one, other] = lying[other, one] = witness.plain_difference(hashes[one], hashes[other])
    reference = np.sort(lying, axis=1)[:, REFERENCE - 1]
    difference = witness.difference(hashes[one], hashes[other])
    copies = difference.alike & (
        (difference.whole < witness.SURELY) | (difference.whole < ratio * np.minimum(reference[one], reference[other]))
    )
    pairs = zip(one.tolist(), other.tolist(), difference.whole.tolist(), copies.tolist(), strict=True)
    differing = {(a, b): whole for a, b, whole, is_copy in pairs if is_copy}
    groups: list[int] = []
    for i in range(n):
        heads = [(differing[g, i], g) for g in range(i) if groups[g] == g and (g, i) in differing]
        groups.append(min(heads)[1] if heads else i)
    return groups


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(9, 30), st.sampled_from([4, 64]))
def test_it_is_leader_clustering(seed: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = [picture(int(i), (90, 80)) for i in rng.integers(0, 10_000, max(1, n // 2))]
    images = [copies_of(pictures[i], 1, rng)[0] for i in rng.integers(0, len(pictures), n)]
    hashes = hashes_of(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        patch.setattr(duplicates, "NEIGHBOURS", n)
        patch.setattr(witness, "WORTH_FITTING", np.inf)
        assert group_items(candidates_of(hashes), 0.25).tolist() == leaders(hashes, 0.25)


def test_groups_do_not_chain() -> None:
    image = picture(1, (200, 200))
    cuts = [image.crop((0, 0, 200 - cut, 200)) for cut in (0, 22, 44)]
    assert grouped(cuts) == [0, 0, 2]
    assert grouped(cuts[1:]) == [0, 0]


def test_a_hash_groups_what_the_pictures_do_not() -> None:
    codes = hash_codes(["x", None, "x", None, "y"])
    ids = np.array([3, 10, 11, 12, 40])
    assert grouped([picture(i) for i in range(5)], ids, codes=codes) == [3, 10, 3, 12, 40]


def test_many_copies_are_one_group_though_few_neighbours_are_looked_at() -> None:
    images = [picture(i) for i in range(4)] + [picture(0)] * 100
    assert set(grouped(images)) == {0, 1, 2, 3}
    assert set(grouped(images, codes=hash_codes([None, *"abc", *["z"] * 100]))) == {0, 1, 2, 3}


def test_known_groups_stay_and_new_items_join_them() -> None:
    rng = np.random.default_rng(0)
    base = [picture(i, (90, 80)) for i in range(30)]
    images = base + [copies_of(image, 1, rng)[0] for image in base[:10]]
    whole = grouped(images)
    assert whole == [*range(30), *range(10)]
    assert grouped(images, known=np.array(whole[:30])) == whole


def test_pictures_that_say_nothing_are_alone() -> None:
    images = [Image.new("RGB", (40, 40), "white")] * 3 + [picture(1)] * 2
    hashes = hashes_of(images)
    usable = witness.contrast(hashes) >= witness.LEAST_CONTRAST
    assert group_items(candidates_of(hashes, usable=usable), USUAL_RATIO).tolist() == [0, 1, 2, 3, 3]


def test_what_many_others_come_as_near_to_is_no_copy() -> None:
    """Of pictures that vary a little all around, two need more than to agree; of copies among them, one is found."""
    rng = np.random.default_rng(3)
    base = np.asarray(picture(5, (90, 80))).astype(float)
    alike = []
    for _ in range(60):
        noise = np.asarray(picture(int(rng.integers(10**6)), (90, 80))).astype(float) - 127
        alike.append(Image.fromarray((base + 0.05 * noise).clip(0, 255).astype(np.uint8)))
    copy = decode(encoded(alike[7], "JPEG", quality=60))
    hashes = hashes_of([*alike, copy])
    made = candidates_of(hashes)
    pairs = np.stack([np.arange(59), np.arange(1, 60)], axis=1)
    assert made.differences(pairs).alike.mean() > 0.5
    groups = group_items(made, 0.25)
    assert groups.tolist() == [*range(60), 7]


def test_the_ratio_does_not_depend_on_how_many_have_copies() -> None:
    rng = np.random.default_rng(4)
    base = [picture(5 * i, (60, 50)) for i in range(60)]
    images = base + [copies_of(image, 1, rng)[0] for image in base]
    alone, copied = (measure_ratio(candidates_of(hashes_of(some)), np.arange(len(some))) for some in (base, images))
    assert LEAST_RATIO < alone < MOST_RATIO
    assert copied == pytest.approx(alone, abs=0.05)
    assert measure_ratio(candidates_of(hashes_of(base[:9])), np.arange(9)) == USUAL_RATIO


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_worse_copies_are_all_but_the_best_that_counts(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(100, n, replace=False)).astype(np.int64)
    of = ids[rng.integers(0, n, n)]
    pixels, sizes = rng.integers(0, 3, n), rng.integers(0, 3, n)
    groups = Groups(ids, of, quality_ranks(pixels, sizes))
    only, without = rng.choice(100, 60, replace=False), rng.choice(100, 10, replace=False)
    for some, gone in ((None, None), (only, None), (None, without), (only, without)):
        counts = [i for i in range(n) if (some is None or ids[i] in some) and (gone is None or ids[i] not in gone)]
        best = {
            group: max((i for i in counts if of[i] == group), key=lambda i: (pixels[i], sizes[i], -ids[i]))
            for group in {of[i] for i in counts}
        }
        assert groups.worse(some, gone).tolist() == [ids[i] for i in counts if best[of[i]] != i]


def test_the_threshold_lies_between_copies_and_likeness() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 32))
    distinct = unit(centres[rng.integers(0, 40, 3000)] + 0.5 * rng.normal(size=(3000, 32)))
    copies = unit(distinct[:900] + 0.003 * rng.normal(size=(900, 32)))
    mixed = rng.permutation(np.concatenate([distinct, copies]))
    threshold = measure_threshold(mixed[:800], mixed[800:])
    likeness = np.sort((distinct[:500] @ distinct.T) - 2 * np.eye(500, 3000))[:, -1]
    assert (distinct[:900] * copies).sum(axis=1).min() > threshold
    assert (likeness > threshold).mean() < 0.01
    assert measure_threshold(mixed[:3], mixed[3:]) == duplicates.UNMEASURED


def test_lookup_by_id() -> None:
    groups = Groups(np.array([2, 4, 6]), np.array([2, 2, 6]))
    assert groups(np.array([6, 4, 5, 9, 0])).tolist() == [6, 2, 5, 9, 0]
    assert Groups(np.zeros(0, np.int64), np.zeros(0, np.int64))(np.array([7])).tolist() == [7]
    with pytest.raises(InputError, match="one each"):
        Groups(np.array([1]), np.zeros(0, np.int64))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([4, 64]))
def test_the_first_of_near_ones(seed: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 4), 8))
    vectors = unit(centres[rng.integers(0, len(centres), n)] + 0.15 * rng.normal(size=(n, 8)))
    if (np.abs(vectors @ vectors.T - 0.97) < 1e-5).any():
        return  # a near-tie is decided by rounding
    kept: list[int] = []
    for i in range(n):
        if all(float(vectors[i] @ vectors[j]) < 0.97 for j in kept):
            kept.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        assert first_of_near(vectors, 0.97).tolist() == kept
