import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.commands_evaluate import first_of_each, prompt, read_names
from clipsieve.errors import InputError
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.parts import Parts
from tests.inference.pictures import jpeg, write_tree

CLASSES = [f"class_{letter}" for letter in "abcdefg"]
COUNT = 6


class Near(FakeEmbedder):
    """A FakeEmbedder of few dimensions, so that neighbours are near."""

    def __init__(self, name):
        super().__init__(4, name)


@pytest.fixture
def evaluate():
    def call(*arguments):
        parts = Parts(lambda name, **_: Near(name))
        return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments), "--model", "near"], obj=parts)

    return call


def write_images(root, first):
    files = {f"{name}/{i}.jpg": jpeg(first + 10 * c + i) for c, name in enumerate(CLASSES) for i in range(COUNT)}
    return write_tree(root, files), files


def expected(images, truth, references, classes):
    model = KNeighborsClassifier(n_neighbors=min(10, len(classes)), weights="distance", metric="cosine")
    shares = model.fit(references, classes).predict_proba(images)
    return [top_k_accuracy_score(truth, shares, labels=CLASSES, k=k) for k in (1, 5)]


def test_the_figures_are_scikit_learns(evaluate, tmp_path):
    folder, files = write_images(tmp_path / "test", 0)
    shown, train = write_images(tmp_path / "train", 500)
    near = Near("near")
    images, truth = near.embed_images(list(files.values())), [key.split("/")[0] for key in files]
    words = near.embed_texts([f"A photo of a class {name[-1]}." for name in CLASSES])
    done = evaluate(folder, "--zero-shot", "--few-shot", shown, "--shots", "2", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    top1, top5 = expected(images, truth, words, CLASSES)
    assert (found["zero_shot"]["top1"], found["zero_shot"]["top5"]) == (top1, top5)
    taken = [key for key in train if int(key.split("/")[1][0]) < 2]
    rows = near.embed_images([train[key] for key in taken])
    top1, top5 = expected(images, truth, rows, [key.split("/")[0] for key in taken])
    assert (found["few_shot"]["top1"], found["few_shot"]["top5"]) == (top1, top5)
    assert (found["images"], found["classes"], found["few_shot"]["references"]) == (42, 7, 14)
    assert 0 < top1 < 1


def test_what_cannot_be_read_is_no_shot(evaluate, tmp_path):
    folder, _ = write_images(tmp_path / "test", 0)
    shown, train = write_images(tmp_path / "train", 500)
    broken = min(train)
    (shown / broken).write_bytes(b"no image")
    done = evaluate(folder, "--few-shot", shown, "--shots", "2", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["few_shot"]
    assert (found["references"], found["skipped"]) == (2 * len(CLASSES), 1)


def test_a_collection_and_a_table_give_the_same(evaluate, tmp_path):
    folder, files = write_images(tmp_path / "test", 0)
    embed_collection(open_source(folder), Near("near"), tmp_path / "test.clip")
    table = {"image": list(files.values()), "label": [key.split("/")[0] for key in files]}
    pq.write_table(pa.table(table), tmp_path / "test.parquet")
    plain = evaluate(folder, "--zero-shot").stdout
    assert "zero-shot" in plain
    assert "by 'A photo of a {text}.'" in plain
    assert evaluate(tmp_path / "test.clip", "--zero-shot").stdout == plain
    assert evaluate(tmp_path / "test.parquet", "--zero-shot", "--truth", "label").stdout == plain


def test_what_is_not_counted_is_told(evaluate, tmp_path):
    folder, _ = write_images(tmp_path / "test", 0)
    (folder / "class_a" / "broken.jpg").write_bytes(b"no image")
    names = tmp_path / "names.json"
    names.write_text(json.dumps(dict.fromkeys(CLASSES[:3], "x") | {"class_b": "a bus"}))
    done = evaluate(folder, "--zero-shot", "--names", names, "--template", "{label}, {text}")
    assert done.exit_code == 0, done.output
    assert "18 images of 3 classes" in done.stdout
    assert "1 images could not be read" in done.stdout
    assert "24 images are none of the classes and not counted: class_d" in done.stdout
    assert "broken.jpg is left out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --zero-shot, --few-shot INPUT, or both"),
        (["--zero-shot", "--neighbours", "0"], "neighbours 0"),
        (["--zero-shot", "--template", "a photo"], "the same for every class"),
        (["--zero-shot", "--template", "{x}"], "only {text} and {label}"),
        (["--zero-shot", "--truth", "colour"], "no column 'colour'"),
    ],
)
def test_what_cannot_be_meant(evaluate, tmp_path, arguments, words):
    folder, _ = write_images(tmp_path / "test", 0)
    done = evaluate(folder, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_one_class_is_none(evaluate, tmp_path):
    folder = write_tree(tmp_path / "one", {"a/1.jpg": jpeg(1)})
    assert "two or more can be told apart" in evaluate(folder, "--zero-shot").stderr


def test_texts_of_classes(tmp_path):
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text("n01440764 tench,  Tinca tinca\nn01443537\n\n")
    assert read_names(path) == {"n01440764": "tench, Tinca tinca", "n01443537": "n01443537"}
    assert prompt("This is {label}: {text}", "tench", "n1") == "This is n1: tench"
    for text in ("", "[]"):
        path = tmp_path / "names.json"
        path.write_text(text)
        with pytest.raises(InputError, match=r"names\.json"):
            read_names(path)


def test_the_first_of_each_class():
    said = ["b", "a", None, "a", "b", "c", "b"]
    assert first_of_each(said, ["a", "b"], 2) == [0, 1, 3, 4]
    assert first_of_each(said, ["a", "b"], None) == [0, 1, 3, 4, 6]
    assert np.array(first_of_each([], ["a"], 1)).size == 0
