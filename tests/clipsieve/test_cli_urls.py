"""Lists of URLs on the command line, from a real server to a list that img2dataset reads."""

import csv
import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.clipsieve.test_cli import COLOURS, keys
from tests.clipsieve.test_cli import run as run  # the fixture
from tests.inference.pictures import encoded
from tests.inference.webserver import answer, dripping, serving

HERE = "--allow-private-addresses"
MODEL = ("--model", "fake")


@pytest.fixture(scope="module")
def site():
    from PIL import Image

    pages = {
        f"/{name}/{i}.png": encoded(Image.new("RGB", (20 + i, 20), (r + i, g, b)))
        for name, (r, g, b) in COLOURS.items()
        for i in range(4)
    }
    with serving({**pages, "/no.png": answer(200, b"", X_Robots_Tag="clipsieve: noai")}) as site:
        yield site


@pytest.fixture(scope="module")
def listed(site, tmp_path_factory):
    """A CSV list of the site's images, and of two that cannot be had."""
    path = tmp_path_factory.mktemp("list") / "list.csv"
    names = [*(f"{name}/{i}.png" for name in COLOURS for i in range(4)), "no.png", "gone.png"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption", "year"])
        writer.writerows([f"{site.url}/{name}", f"a {name}, found", 2000 + i] for i, name in enumerate(names))
    return path


def test_a_list_becomes_a_collection_and_runs_again_for_nothing(run, site, listed, tmp_path):
    out = tmp_path / "c"
    done = json.loads(run("inference", listed, out, *MODEL, HERE, "--retries", 0, "--json").stdout)
    assert (done["embedded"], done["skipped"]) == (12, 2)
    assert keys(run("search", out, "red", "-k", 1, "--where", "year = 2002", "--json")) == [f"{site.url}/red/2.png"]
    again = json.loads(run("inference", listed, out, *MODEL, HERE, "--json").stdout)
    assert (again["embedded"], again["before"]) == (0, 14)
    added = json.loads(run("add", out, listed, HERE, "--json").stdout)
    assert (added["same"], added["embedded"]) == (14, 0)


def test_without_leave_nothing_private_is_fetched(run, listed, tmp_path):
    assert "not on the public internet" in run("inference", listed, tmp_path / "c", *MODEL, code=1).stderr
    done = json.loads(run("inference", listed, tmp_path / "c", *MODEL, HERE, "--json").stdout)
    assert (done["embedded"], done["recovered"], done["before"]) == (12, 12, 14)
    told = json.loads(run("info", tmp_path / "c", "--skipped", "--json").stdout)
    assert sorted(item["key"].rpartition("/")[2] for item in told["items"]) == ["gone.png", "no.png"]
    assert json.loads(run("info", tmp_path / "c", "--json").stdout)["skipped"] == 2


def test_img2datasets_names_are_understood(run, site, tmp_path):
    path = tmp_path / "l.tsv"
    path.write_text(f"page\ttitle\n{site.url}/red/1.png\tone\n")
    words = ["--input_dataset", path, "--output_folder", tmp_path / "c", "--input_format", "urls", "--thread_count=2"]
    run("inference", *words, "--url_col", "page", "--caption_col", "title", *MODEL, HERE)
    assert keys(run("search", tmp_path / "c", "red", "--json")) == [f"{site.url}/red/1.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--url-column", "where"], "has no column 'where'; its columns are url, caption, year"),
        (["--max-bytes", "much"], "The size 'much' is not understood"),
        (["--connections", "0"], "at least one connection"),
        (["--timeout", "-1"], "give a number of seconds"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(run, listed, tmp_path, words, said):
    result = run("inference", listed, tmp_path / "c", *MODEL, *words, code=2)
    assert said in result.stderr
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "c").exists()


@pytest.fixture(scope="module")
def web(run, listed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "web.clip"
    run("inference", listed, folder, *MODEL, HERE, "--retries", 0)
    return folder


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_what_search_finds_goes_out_with_url_and_caption(run, site, web, tmp_path, suffix):
    out = tmp_path / f"hits.{suffix}"
    run("search", web, "green", "-k", 4, "--out", out)
    found = {row["url"]: row["caption"] for row in read(out)}
    assert found == {f"{site.url}/green/{i}.png": f"a green/{i}.png, found" for i in range(4)}
    run("search", web, "green", "--threshold", "2", "--out", out)
    assert read(out) == []
    shown = json.loads(run("search", web, "green", "-k", 1, "--json").stdout)["hits"][0]
    assert shown["caption"] == found[shown["url"]]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_exported_list_has_url_and_caption_and_becomes_a_collection_again(run, site, web, tmp_path, suffix):
    out = tmp_path / f"list.{suffix}"
    run("filter", web, "green", "-k", 4, "--as", "list", "--out", out)
    rows = read(out)
    assert {row["url"] for row in rows} == {f"{site.url}/green/{i}.png" for i in range(4)}
    assert all(row["caption"].startswith("a green/") for row in rows)
    again = json.loads(run("inference", out, tmp_path / "c", *MODEL, HERE, "--json").stdout)
    assert again["embedded"] == 4


def test_a_list_in_text_holds_the_urls(run, site, web, tmp_path):
    run("filter", web, "green", "-k", 1, "--as", "list", "--out", tmp_path / "l.txt")
    assert (tmp_path / "l.txt").read_text().startswith(f"{site.url}/green/")


def test_images_from_the_web_are_not_copied_and_it_is_said_why(run, web, tmp_path):
    said = json.loads(run("filter", web, "green", "-k", 2, "--out", tmp_path / "o", "--json", code=1).stdout)
    assert said["written"] == 0
    assert "it was fetched from http" in said["skipped"][0]["reason"]
    assert "export a list" in said["skipped"][0]["reason"]
    assert json.loads(run("remove", web, "--missing", "--dry-run", "--json").stdout)["removed"] == 0


@pytest.mark.slow
def test_ctrl_c_ends_it_soon_although_hundreds_are_waiting(tmp_path):
    """In a process of its own, because what is tested is that its threads let it end."""
    with serving({f"/{i}": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n") for i in range(500)}) as site:
        (tmp_path / "l.txt").write_text("\n".join(f"{site.url}/{i}" for i in range(500)))
        words = ["inference", "l.txt", "c", "--model", "mini", HERE, "--connections", "2", "--timeout", "3"]
        process = subprocess.Popen(
            [sys.executable, "-m", "clipsieve", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while not site.asked:
                assert process.poll() is None, process.stderr.read()
                site.closing.wait(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)  # 500 images of 3 s each, two at a time, would take ten minutes
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
