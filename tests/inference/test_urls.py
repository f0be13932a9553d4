"""Lists of URLs as a source: a real server, real files."""

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.captions import NO_TEXT
from clipsieve.errors import InputError
from clipsieve.inference import urls
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.fetch import FetchOptions
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import read_manifest
from clipsieve.shards import read_metadata, read_skipped
from clipsieve.types import ImageItem, Skipped
from tests.inference.pictures import encoded, jpeg, picture
from tests.inference.webserver import answer, serving

HERE = FetchOptions(connections=4, timeout=10, retries=0, allow_private=True)
COUNT = 12


@pytest.fixture
def site():
    with serving({f"/{i}.jpg": jpeg(i) for i in range(COUNT)}) as site:
        yield site


def table_of(site, path, **columns):
    """A Parquet list of all images of the site."""
    addresses = [f"{site.url}/{i}.jpg" for i in range(COUNT)]
    pq.write_table(pa.table({"url": addresses, **columns}), path)
    return path


def keys(source, start=0):
    return [item.key for item in source.items(start)]


def test_a_list_comes_in_its_order_with_captions_and_metadata(site, tmp_path):
    path = table_of(
        site,
        tmp_path / "laion.parquet",
        TEXT=[f" photo {i} " if i % 2 else None for i in range(COUNT)],
        width=list(range(COUNT)),
        nested=[{"a": i} for i in range(COUNT)],
        digest=[b"x"] * COUNT,
    )
    source = open_source(path, format="urls", fetching=HERE)
    assert source.total == COUNT
    items = list(source.items())
    assert [item.key for item in items] == [f"{site.url}/{i}.jpg" for i in range(COUNT)]
    assert [item.data for item in items] == [jpeg(i) for i in range(COUNT)]
    assert [item.caption for item in items[:2]] == [None, "photo 1"]
    assert dict(items[3].meta) == {"url": f"{site.url}/3.jpg", "meta.width": 3, "nested.a": 3}


def test_it_goes_on_from_any_point_without_fetching_what_came_before(site, tmp_path):
    source = open_source(table_of(site, tmp_path / "l.parquet"), fetching=HERE)
    whole = keys(source)
    for start in (0, 1, 7, COUNT, COUNT + 3):
        site.asked.clear()
        assert keys(source, start) == whole[start:]
        assert sorted(site.asked) == sorted(key.removeprefix(site.url) for key in whole[start:])


@pytest.mark.parametrize("partitions", [1, 2, 3, 5])
def test_partitions_take_turns_and_share_everything_once(site, tmp_path, partitions):
    half = COUNT // 2
    addresses = [f"{site.url}/{i}.jpg" for i in range(COUNT)]
    (tmp_path / "a.txt").write_text("\n".join(addresses[:half]))
    (tmp_path / "b.csv").write_text("\n".join(["link", *addresses[half:]]))
    for partition in range(partitions):
        source = open_source(tmp_path, format="urls", fetching=HERE, partition=partition, partitions=partitions)
        assert keys(source) == addresses[partition::partitions]
        assert keys(source, 2) == addresses[partition::partitions][2:]
        assert source.total == len(addresses[partition::partitions])


@pytest.mark.parametrize("name", ["url", "URL", "image_url", "Link"])
def test_the_column_of_urls_is_found_by_its_name(site, tmp_path, name):
    path = tmp_path / "l.csv"
    path.write_text(f"text,{name}\none,{site.url}/1.jpg\n")
    (item,) = open_source(path, fetching=HERE).items()
    assert (item.caption, item.meta) == ("one", {"url": f"{site.url}/1.jpg"})


def test_columns_that_are_named_count(site, tmp_path):
    path = tmp_path / "l.json"
    path.write_text(json.dumps([{"url": "page", "where": f"{site.url}/1.jpg", "title": "one", "caption": "no"}]))
    source = open_source(path, url_column="where", caption_column="title", fetching=HERE)
    assert "url_column=where caption_column=title" in source.name
    (item,) = source.items()
    assert (item.key, item.caption) == (f"{site.url}/1.jpg", "one")
    assert item.meta == {"url": f"{site.url}/1.jpg", "meta.url": "page", "meta.caption": "no"}
    with pytest.raises(InputError, match="has no column 'who'; its columns are url, where, title, caption"):
        open_source(path, url_column="who")


def test_a_key_column_names_the_items(site, tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text("\n".join(json.dumps({"url": f"{site.url}/1.jpg", "key": key}) for key in (7, "", "a", "7")))
    items = list(open_source(path, fetching=HERE).items())
    assert [item.key for item in items] == ["7", f"{site.url}/1.jpg", "a", "7"]
    assert isinstance(items[3], Skipped)
    assert len(site.asked) == 3


def test_what_is_named_twice_is_fetched_once(site, tmp_path):
    path = tmp_path / "l.txt"
    path.write_text(f"{site.url}/1.jpg\n{site.url}/1.jpg\n")
    first, second = open_source(path, fetching=HERE).items()
    assert isinstance(first, ImageItem)
    assert "a second time" in second.reason
    assert len(site.asked) == 1


def test_rows_without_a_url_and_failures_are_skipped_with_a_reason(site, tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(f"url,caption\n,none\n{site.url}/gone.jpg,x\nfile:///etc/passwd,x\n{site.url}/1.jpg,x\n")
    none, gone, local, fine = open_source(path, fetching=HERE).items()
    assert (none.key, gone.key) == ("l.csv#0", f"{site.url}/gone.jpg")
    assert "no URL in its column 'url'" in none.reason
    assert "answered 404" in gone.reason
    assert "only those are fetched" in local.reason
    assert isinstance(fine, ImageItem)


def test_private_addresses_are_refused_unless_allowed(site, tmp_path):
    source = open_source(table_of(site, tmp_path / "l.parquet"))
    assert all("not on the public internet" in item.reason for item in source.items())
    assert site.asked == []


def test_a_list_of_something_else_is_said_at_once(tmp_path):
    (tmp_path / "l.csv").write_text("name,size\na,1\n")
    with pytest.raises(InputError, match=r"its columns are name, size. Name it with --url-column"):
        open_source(tmp_path / "l.csv", format="urls")
    with pytest.raises(InputError, match="give a format"):
        open_source(tmp_path / "l.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="it is empty"):
        open_source(tmp_path / "empty.csv", format="urls")


def test_a_damaged_list_is_listed_like_any_other_file(site, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "b.txt").write_text(f"{site.url}/1.jpg")
    source = open_source(tmp_path, format="urls", fetching=HERE)
    assert source.total is None
    bad, good = source.items()
    assert "cannot be read" in bad.reason
    assert isinstance(good, ImageItem)
    assert keys(source, 1) == [good.key]


def test_one_of_several_lists_can_be_read_alone(site, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(f"{site.url}/{i}.jpg")
    source = open_source(tmp_path, format="urls", fetching=HERE)
    before = source.states()
    (tmp_path / "1.txt").write_text(f"{site.url}/{1}.jpg\n")
    changed = {path for path, state in source.states().items() if before[path] != state}
    assert changed == {str(tmp_path / "1.txt")}
    assert keys(source.only(changed)) == [f"{site.url}/1.jpg"]
    assert len(keys(source)) == 3


def test_the_format_is_told_by_name_and_columns(site, tmp_path):
    table_of(site, tmp_path / "list.parquet")
    table_of(site, tmp_path / "both.parquet", image=[jpeg(i) for i in range(COUNT)])
    (tmp_path / "notes.txt").write_text("see below")
    assert open_source(tmp_path / "list.parquet").name.startswith("urls:")
    assert open_source(tmp_path / "both.parquet").name.startswith("parquet:")
    assert open_source(tmp_path / "both.parquet", url_column="url").name.startswith("urls:")
    with pytest.raises(InputError, match="give a format"):
        open_source(tmp_path / "notes.txt")


def test_a_slow_server_holds_up_neither_the_others_nor_the_memory(tmp_path, monkeypatch):
    """The first image comes last. What is fetched meanwhile stops at the limit, and goes on when there is room."""
    monkeypatch.setattr(urls, "HELD_BYTES", 3000)
    enough, release = threading.Event(), threading.Event()
    asked = []

    def slow(handler):
        assert release.wait(30)
        answer(200, bytes(1000))(handler)

    def quick(handler):
        asked.append(handler.path)
        if len(asked) == 3:
            enough.set()
        answer(200, bytes(1000))(handler)

    with serving({"/0": slow, **{f"/{i}": quick for i in range(1, 20)}}) as site:
        (tmp_path / "l.txt").write_text("\n".join(f"{site.url}/{i}" for i in range(20)))
        items = open_source(tmp_path / "l.txt", fetching=HERE).items()

        def let_go():
            assert enough.wait(30)
            release.set()

        thread = threading.Thread(target=let_go)
        thread.start()
        first = next(items)
        thread.join()
        assert first.key.endswith("/0")
        # Up to the limit of three, and what the other connections had begun when it was reached.
        assert 3 <= len(asked) <= 3 + HERE.connections
        assert [item.key.rpartition("/")[2] for item in items] == [str(i) for i in range(1, 20)]


@pytest.mark.parametrize("held", [1, 3000, 10**9])
def test_however_little_may_be_held_everything_comes_in_order(tmp_path, monkeypatch, held):
    monkeypatch.setattr(urls, "HELD_BYTES", held)
    monkeypatch.setattr(urls, "AHEAD", 16)
    rng = np.random.default_rng(held)
    sizes = [int(size) for size in rng.integers(1, 2000, 150)]
    gone = set(rng.choice(150, 30, replace=False).tolist())
    with serving({f"/{i}": bytes(size) for i, size in enumerate(sizes) if i not in gone}) as site:
        (tmp_path / "l.txt").write_text("\n".join(f"{site.url}/{i}" for i in range(150)))
        items = list(open_source(tmp_path / "l.txt", fetching=HERE).items())
    assert [item.key.rpartition("/")[2] for item in items] == [str(i) for i in range(150)]
    assert [isinstance(item, Skipped) for item in items] == [i in gone for i in range(150)]
    assert [len(i.data) for i in items if isinstance(i, ImageItem)] == [s for i, s in enumerate(sizes) if i not in gone]


def test_leaving_early_ends_the_fetching(tmp_path):
    with serving({f"/{i}": bytes(10) for i in range(900)}) as site:
        (tmp_path / "l.txt").write_text("\n".join(f"{site.url}/{i}" for i in range(900)))
        items = open_source(tmp_path / "l.txt", fetching=HERE).items()
        next(items)
        items.close()  # type: ignore[attr-defined]  # it is a generator
        asked = len(site.asked)
        assert asked < 900
        assert not [t for t in threading.enumerate() if t.name.startswith("clipsieve-fetch")]


# ------------------------------------------------------------------------------------------------- into a collection


def collected(folder):
    manifest = read_manifest(folder)
    rows = [row for shard in manifest.shards if shard.rows for row in read_metadata(folder, shard).to_pylist()]
    skipped = [s for shard in manifest.shards for s in read_skipped(folder, shard)]
    return rows, skipped


def test_a_list_becomes_a_collection(site, tmp_path):
    site.pages["/page.jpg"] = answer(200, b"<html>not here</html>", Content_Type="image/jpeg")
    site.pages["/no.jpg"] = answer(200, jpeg(0), X_Robots_Tag="noai")
    site.pages["/png"] = answer(200, encoded(picture(3)), Content_Type="text/plain")
    names = ["0.jpg", "page.jpg", "no.jpg", "gone.jpg", "png", "0.jpg"]
    rows = [{"URL": f"{site.url}/{name}", "TEXT": f"photo {name}", "WIDTH": i} for i, name in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    out = tmp_path / "c"
    summary = embed_collection(open_source(tmp_path / "l.parquet", fetching=HERE), FakeEmbedder(), out)
    assert (summary.read, summary.embedded, summary.skipped) == (6, 2, 4)
    stored, skipped = collected(out)
    assert [row["url"] for row in stored] == [row["key"] for row in stored] == [f"{site.url}/0.jpg", f"{site.url}/png"]
    assert [row["caption"] for row in stored] == ["photo 0.jpg", "photo png"]
    assert [row["WIDTH"] for row in stored] == [0, 4]
    assert all(row["image_path"] is None for row in stored)
    reasons = {s.key.rpartition("/")[2]: s.reason for s in skipped}
    assert "no image that Pillow reads" in reasons["page.jpg"]
    assert "X-Robots-Tag: noai" in reasons["no.jpg"]
    assert "404" in reasons["gone.jpg"]


@pytest.mark.slow
def test_only_what_may_go_better_is_asked_for_again(tmp_path):
    with serving({"/fine": jpeg(1), "/busy": answer(503)}) as site:
        (tmp_path / "l.txt").write_text("\n".join(f"{site.url}/{name}" for name in ("gone", "busy", "fine")))

        def embed(**options):
            site.asked.clear()
            fetching = FetchOptions(allow_private=True, retries=0, **options)
            done = embed_collection(open_source(tmp_path / "l.txt", fetching=fetching), FakeEmbedder(), tmp_path / "c")
            asked = set(site.asked) - {"/fine"}  # the last one, to compare keys
            return done.embedded, done.skipped, asked, read_manifest(tmp_path / "c").skipped

        assert embed() == (1, 2, {"/gone", "/busy"}, 2)
        assert embed() == (0, 0, {"/busy"}, 2)
        site.pages["/busy"] = jpeg(2)
        assert embed() == (1, 0, {"/busy"}, 1)
        assert embed() == (0, 0, set(), 1)
        site.pages["/gone"] = jpeg(3)
        assert embed(max_bytes=10**6) == (1, 0, {"/gone"}, 0)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_asks_for_nothing_twice(site, tmp_path):
    path = table_of(site, tmp_path / "l.parquet")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    embed_collection(open_source(path, fetching=HERE), FakeEmbedder(), whole)

    class Stopping(FakeEmbedder):
        batches = 0

        def embed_tensors(self, batch):
            if len(batch) == 4:  # not the probe's three
                self.batches += 1
                if self.batches == 3:
                    raise KeyboardInterrupt
            return super().embed_tensors(batch)

    with pytest.raises(KeyboardInterrupt):
        embed_collection(open_source(path, fetching=HERE), Stopping(), parts, batch_size=4)
    site.asked.clear()
    summary = embed_collection(open_source(path, fetching=HERE), FakeEmbedder(), parts, batch_size=4)
    assert (summary.before, summary.read) == (8, 4)
    assert sorted(site.asked) == sorted(f"/{i}.jpg" for i in range(7, COUNT))  # the last one of before, to compare keys
    assert [row["key"] for row in collected(parts)[0]] == [row["key"] for row in collected(whole)[0]]
    vectors = [
        np.concatenate([np.load(path) for path in sorted((folder / "img_emb").glob("*.npy"))])
        for folder in (whole, parts)
    ]
    assert np.array_equal(*vectors)


def test_each_list_has_columns_of_its_own(site, tmp_path):
    (tmp_path / "a.csv").write_text(f"url,caption\n{site.url}/1.jpg,one\n")
    (tmp_path / "b.tsv").write_text(f"link\ttitle\n{site.url}/2.jpg\ttwo\n")
    (tmp_path / "c.csv").write_text(f"{site.url}/3.jpg,three\n")
    (tmp_path / "d.csv").write_text("name,size\na,1\n")
    first, second, third, none = open_source(tmp_path, format="urls", fetching=HERE).items()
    assert (first.caption, second.caption, third.caption) == ("one", None, None)
    assert second.meta["title"] == "two"
    assert "d.csv' has no column that is named as URLs are" in none.reason


def test_a_column_that_only_some_lists_have(site, tmp_path):
    (tmp_path / "a.csv").write_text(f"where,other\n{site.url}/1.jpg,x\n")
    (tmp_path / "b.csv").write_text(f"where,title\n{site.url}/2.jpg,two\n")
    (tmp_path / "c.csv").write_text("url,title\na,three\nb,four\n")
    source = open_source(tmp_path, format="urls", url_column="where", caption_column="title", fetching=HERE)
    first, second, *lost = source.items()
    assert "has no column 'title'; its columns are where, other." in str(first.meta[NO_TEXT])
    assert (second.caption, set(second.meta)) == ("two", {"url"})
    assert [one.key for one in lost] == ["c.csv#0", "c.csv#1"]
    with pytest.raises(InputError, match="has no column 'nobody'"):
        open_source(tmp_path, format="urls", url_column="where", caption_column="nobody")
