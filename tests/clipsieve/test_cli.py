"""The commands over a small real collection, with an embedder that needs no weights."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.command import STOPPED, Command
from clipsieve.commands_build import parse_latency, size
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.index.build import build_indices
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.parts import Parts
from clipsieve.peer_flags import PEERS, rewrite
from tests.inference.pictures import write_tree

COLOURS = {"red": (220, 30, 30), "green": (20, 200, 40), "blue": (30, 40, 220)}
PER_COLOUR = 10

GROUP: Any = get_command(cli.app)
COMMANDS = GROUP.commands


class ColourEmbedder(FakeEmbedder):
    """Images lie where their mean colour points; texts where the colours they name do, "not red" away from it."""

    def __init__(self, name="fake"):
        super().__init__(dim=4, name=name)

    def preprocess_image(self, image):
        return {"colour": list(image.resize((1, 1)).getpixel((0, 0)))}

    def embed_tensors(self, batch):
        import numpy as np

        rows = np.array([[*one["colour"], 40] for one in batch], np.float32).reshape(-1, 4)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_texts(self, texts):
        import numpy as np

        named = [[c for name, c in COLOURS.items() if name in text] or [(90, 90, 90)] for text in texts]
        return self.embed_tensors([{"colour": list(np.mean(colours, axis=0))} for colours in named])


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "photos"
    for name, (r, g, b) in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(PER_COLOUR):
            image = Image.new("RGB", (24 + i, 20), (r + i, g + i, b + i))
            image.save(folder / name / f"{i}.png")
            (folder / name / f"{i}.txt").write_text(f"a {name} picture")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def run():
    """Runs a command line in this process; checks the exit code; gives the result with .stdout and .stderr."""

    def run(*argv, code=0, load=lambda name, **_: ColourEmbedder(name)):
        result = CliRunner().invoke(cli.app, [str(a) for a in argv], obj=Parts(load))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def photos(images, tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("collection") / "photos.clip"
    run("inference", images, folder, "--model", "fake", "--batch-size", "7")
    run("index", folder)
    return folder


def lines(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def keys(result):
    return [hit["key"] for hit in json.loads(result.stdout)["hits"]]


def test_who_decodes_as_the_reference_finds_its_images_again(run, tmp_path):
    folder = tmp_path / "clear"
    folder.mkdir()
    for i, colour in enumerate([*COLOURS.values(), (128, 128, 128)]):
        Image.new("RGBA", (24, 20), (*colour, 0)).save(folder / f"{i}.png")  # seen by nobody but the reference
    ask = ("--image", folder / "2.png", "-k", 1, "--json")
    out = tmp_path / "reference"
    run("inference", folder, out, "--model", "fake", "--decode", "reference")
    run("inference", folder, out, "--model", "fake")
    assert keys(run("search", out, *ask)) == ["2.png"]
    Image.new("RGBA", (24, 20), (200, 200, 30, 0)).save(folder / "4.png")
    run("add", out, folder)  # as the collection has it
    assert keys(run("search", out, "--image", folder / "4.png", "-k", 1, "--json")) == ["4.png"]
    refused = run("inference", folder, out, "--model", "fake", "--decode", "own", code=2)
    assert "--decode reference" in refused.stderr
    assert '"decoding": "reference"' in (out / "clipsieve.json").read_text()
    own = tmp_path / "own"
    run("inference", folder, own, "--model", "fake")
    (hit,) = json.loads(run("search", own, *ask).stdout)["hits"]
    assert hit["score"] > 0.9999
    assert keys(run("search", own, *ask)) == ["0.png"]  # all are white to it
    assert '"decoding"' not in (own / "clipsieve.json").read_text()  # which older releases read
    assert "must be one of" in run("inference", folder, own, "--model", "fake", "--decode", "other", code=2).stderr


def test_inference_says_what_it_did_and_runs_again_for_nothing(run, images, tmp_path):
    out = tmp_path / "c"
    said = run("inference", images, out, "--model", "fake")
    assert "30 images embedded into" in said.stdout
    assert "1 skipped" in said.stdout
    again = json.loads(run("inference", images, out, "--model", "fake", "--json").stdout)
    assert (again["embedded"], again["before"], again["model"]) == (0, 31, "fake")


def test_inference_takes_the_peers_call(run, images, tmp_path):
    words = ["--input_dataset", images, "--output_folder", tmp_path / "c", "--clip_model", "fake"]
    said = run("inference", *words, "--enable_text", "False", "--use_jit=True")
    assert "Note: --use-jit has no effect" in said.stderr
    assert not (tmp_path / "c" / "text_emb").exists()


def test_index_and_info(run, photos, tmp_path):
    assert "kept" in run("index", photos).stdout
    built = json.loads(run("index", photos, "--rebuild", "--json").stdout)
    assert [(i["name"], i["kind"], i["rows"]) for i in built["indices"]] == [
        ("image", "flat", 30),
        ("text", "flat", 30),
    ]
    told = json.loads(run("info", photos, "--json").stdout)
    assert (told["count"], told["model"], told["skipped"], told["advice"]) == (30, "fake", 1, [])
    said = run("info", photos).stdout
    for line in (
        "images      30; 0 removed since, 1 skipped on the way in",
        "image index flat, exact, 30 rows; every question reads all of them, about ",
        f"vectors {size(told['bytes']['vectors'])}, metadata ",
    ):
        assert line in said


def test_info_says_what_is_not_indexed_and_what_is_worth_doing(run, images, tmp_path):
    folder = tmp_path / "c"
    run("inference", images / "red", folder, "--model", "fake")
    said = run("info", folder).stdout
    assert "image index none; every question reads all vectors, about " in said
    assert f"advice      Run `clipsieve index {folder}`: it finds duplicates" in said
    build_indices(folder, factory="IVF1,Flat")
    run("add", folder, images)
    said = run("info", folder).stdout
    assert re.search(
        r"image index IVF1,Flat, .* 10 rows, searched in [\d.]+ ms; 30 more are read beside it, about", said
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**50, "1,048,576.0 GiB")],
)
def test_sizes_in_words(count, words):
    assert size(count) == words


def test_index_into_another_folder_makes_a_collection_of_its_own(run, images, photos, tmp_path):
    elsewhere = tmp_path / "index"
    run("index", "--embeddings_folder", photos, "--index_folder", elsewhere)
    assert keys(run("search", elsewhere, "red", "-k", 5, "--json")) == keys(
        run("search", photos, "red", "-k", 5, "--json")
    )
    run("index", photos, "--into", elsewhere)
    assert "leave --into out" in run("index", photos, "--into", photos, code=2).stderr


def test_search_shows_a_table_with_reasons_and_the_claim(run, photos):
    said = run("search", photos, "a red thing", "--not", "a blue thing", "-k", 3).stdout
    assert "looks like: a red thing; nearest not: a blue thing" in said
    assert said.splitlines()[-1].startswith("3 hits; exact: no better image exists in the collection; ")
    assert said.count("red/") == 3


def test_search_ranks_and_rejects(run, photos):
    question = ("search", photos, "red", "--not", "green", "--not", "blue", "-k", 40, "--json")
    first = [key.split("/")[0] for key in keys(run(*question))]
    assert (first[:PER_COLOUR], len(first)) == (["red"] * PER_COLOUR, 3 * PER_COLOUR)  # the others rank lower
    assert "choose soft or hard" in run(*question, "--veto", "firm", code=2).stderr
    answer = json.loads(run(*question, "--veto", "hard").stdout)
    assert {hit["key"].split("/")[0] for hit in answer["hits"]} == {"red"}
    assert answer["claim"] == "exact"
    assert [h["score"] for h in answer["hits"]] == sorted((h["score"] for h in answer["hits"]), reverse=True)
    high = run("search", photos, "red", "--threshold", "0.9999", "--json")
    assert len(keys(high)) < PER_COLOUR


def test_search_with_a_filter_a_modality_and_dedup(run, photos):
    assert len(keys(run("search", photos, "red", "--where", "width >= 30", "--json"))) == 12
    assert all(
        k.startswith("blue") for k in keys(run("search", photos, "blue", "--modality", "text", "-k", 5, "--json"))
    )
    assert len(keys(run("search", photos, "red", "--dedup", "-k", 40, "--json"))) <= 30
    assert "no such column" in run("search", photos, "red", "--where", "hight > 3", code=2).stderr.lower()


def test_search_by_image_and_by_both(run, photos, images):
    found = keys(run("search", photos, "--image", images / "green" / "3.png", "-k", 3, "--json"))
    assert all(key.startswith("green/") for key in found)
    mixed = run("search", photos, "red", "--not-image", images / "green" / "3.png", "-k", 3)
    assert "Note: Texts and images are compared by how unusual" in mixed.stderr
    assert str(images / "green" / "3.png") in mixed.stdout
    assert "broken.jpg" in run("search", photos, "--image", images / "broken.jpg", code=2).stderr


@pytest.fixture
def set_file(tmp_path):
    path = tmp_path / "colours.json"
    classes = [
        {"name": "red", "positive": ["red"], "negative": ["green"]},
        {"name": "green", "positive": ["green"]},
        {"name": "blue", "positive": ["blue"], "threshold": 0.9},
    ]
    path.write_text(json.dumps({"classes": classes}))
    return path


def test_search_a_class_of_a_set(run, photos, set_file):
    assert keys(run("search", photos, "--set", set_file, "--class", "blue", "-k", 2, "--json"))[0].startswith("blue/")
    assert "choose one with --class: red, green, blue" in run("search", photos, "--set", set_file, code=2).stderr
    assert "give one of the two" in run("search", photos, "red", "--set", set_file, code=2).stderr


@pytest.mark.parametrize("format", ["table", "jsonl", "csv", "parquet", "html"])
def test_search_writes_every_format(run, photos, tmp_path, format):
    out = tmp_path / "hits"
    run("search", photos, "red", "-k", 4, "--format", format, "--out", out)
    if format == "parquet":
        assert pq.read_table(out).num_rows == 4
        return
    text = out.read_text()
    assert text.count("red/") >= 4
    if format == "csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == 4
    if format == "html":
        assert text.count("data:image/webp;base64,") == 4
        assert "a red picture" in text  # the caption, for those who do not see


def test_filter_exports_what_matches(run, photos, tmp_path):
    out = tmp_path / "reds"
    said = json.loads(run("filter", photos, "red", "--not", "green", "--not", "blue", "--out", out, "--json").stdout)
    assert said["written"] == PER_COLOUR
    (note,) = said["notes"]
    assert "--not alone decides" in note
    assert f"{PER_COLOUR} of {3 * PER_COLOUR} images would be written" in note
    threshold = note.rpartition("--threshold ")[2].split()[0]
    proposed = int(note.rpartition("it writes ")[2].split()[0])
    question = ("filter", photos, "red", "--not", "green", "--not", "blue", "--threshold", threshold)
    kept = json.loads(run(*question, "--out", tmp_path / "proposed", "--json").stdout)
    assert (kept["written"], kept["notes"]) == (proposed, [])
    assert len(list(out.rglob("*.png"))) == PER_COLOUR
    assert "Every image would match" in run("filter", photos, "red", "--out", tmp_path / "x", code=2).stderr


@pytest.mark.parametrize(
    ("kind", "made"), [("link", "*/*.png"), ("list", "list.csv"), ("webdataset", "*.tar"), ("datasets", "*.parquet")]
)
def test_filter_exports_in_every_form(run, photos, tmp_path, kind, made):
    run("filter", photos, "red", "-k", 5, "--as", kind, "--out", tmp_path / "o")
    assert list((tmp_path / "o").glob(made))


def test_filter_takes_the_peers_call(run, photos, images, tmp_path):
    words = ["--indice_folder", photos, "--output_folder", tmp_path / "o", "--num_results", "4"]
    run("filter", "--query", "blue", *words, "--threshold", "None")
    assert len(list((tmp_path / "o").rglob("*.png"))) == 4
    run(
        "filter", "--query", images / "red" / "0.png", *words[:2], "--output_folder", tmp_path / "p", "--num_results", 2
    )
    assert all("red" in str(path) for path in (tmp_path / "p").rglob("*.png"))


def test_label_writes_and_grades(run, photos, set_file, tmp_path):
    out = tmp_path / "labels.parquet"
    said = run("label", photos, "--set", set_file, "--out", out, "--eval").stdout
    assert pq.read_table(out)["label"].to_pylist().count("green") == PER_COLOUR
    assert "accuracy 1.0000 of 30 images" in said
    assert (tmp_path / "labels.confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.parts"))
    assert "exists already" in run("label", photos, "--set", set_file, "--out", out, code=2).stderr
    wrong = run("label", photos, "--set", set_file, "--eval", "--truth", "caption", code=2)
    assert "No image has in column 'caption' one of the classes red, green, blue" in wrong.stderr
    graded = json.loads(run("label", photos, "--set", set_file, "--eval", "--json").stdout)
    assert (graded["accuracy"], graded["per_class"]["blue"]["recall"]) == (1.0, 1.0)


def test_label_formats(run, photos, set_file, tmp_path):
    run("label", photos, "--set", set_file, "--out", tmp_path / "l.csv")
    head, *rows = lines(tmp_path / "l.csv")
    assert {row[head.index("label")] for row in rows} == {"red", "green", "blue"}
    run("label", photos, "--set", set_file, "--out", tmp_path / "parts")
    assert (tmp_path / "parts" / "labels_000000.parquet").exists()
    run("label", photos, "--set", set_file, "--out", tmp_path / "coco.json")
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 30
    run("label", photos, "--set", set_file, "--out", tmp_path / "sorted", "--format", "folders")
    assert len(list((tmp_path / "sorted" / "green").rglob("*.png"))) == PER_COLOUR
    counted = json.loads(
        run("label", photos, "--set", set_file, "--out", tmp_path / "r.csv", "--reject", "--json").stdout
    )
    assert sum(counted["counts"].values()) + counted["none"] == 30


@pytest.fixture
def deploy_body(tmp_path):
    path = tmp_path / "classifier.json"
    names = list(COLOURS)
    path.write_text(
        json.dumps(
            {"classifier_configs": [{"name": n, "examples_to_include": [n]} for n in names], "augment_examples": False}
        )
    )
    return path


@pytest.mark.slow
def test_label_takes_directais_call_on_a_folder_of_images(run, images, deploy_body, tmp_path):
    words = ["--root", images, "--classifier_json_file", deploy_body]
    said = run("label", *words, "--output_file", tmp_path / "o.csv", "--concurrency", 2)
    assert "1 of 31 images could not be read" in said.stderr
    rows = lines(tmp_path / "o.csv")
    assert rows[0] == ["path", "label", "pred", "is_correct"]
    assert ["red/4", "red", "red", "1.0"] in rows
    assert len(rows) == 31
    listed = tmp_path / "list.txt"
    listed.write_text("red/1\nblue/2\n")
    said = run("label", *words, "--output_file", tmp_path / "p.csv", "--images_to_classify_fp", listed)
    assert "could not be read" not in said.stderr  # the others are not looked at
    assert {row[0] for row in lines(tmp_path / "p.csv")[1:]} == {"red/1", "blue/2"}
    assert "accuracy 1.0000" in run("label", *words, "--eval_only", "True").stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classifier.json", "list.txt", "o.csv", "p.csv"]


def test_directais_csv_has_the_folders_as_labels_where_there_are_any(run, images, deploy_body, tmp_path):
    def ask(root, out):
        run("label", "--root", root, "--classifier_json_file", deploy_body, "--output_file", tmp_path / out)
        return lines(tmp_path / out)

    red = (images / "red" / "1.png").read_bytes()
    write_tree(tmp_path / "in", {"red/a.b.png": red, "x, y/c.png": red})
    assert ask(tmp_path / "in", "folders.csv") == [
        ["path", "label", "pred", "is_correct"],
        ["red/a.b", "red", "red", "1.0"],
        ["x, y/c", "x, y", "red", "0.0"],
    ]
    write_tree(tmp_path / "flat", {"a.png": red})
    assert ask(tmp_path / "flat", "flat.csv") == [["path", "pred"], ["flat/a", "red"]]


def test_failures_are_one_sentence(run, photos, tmp_path):
    for argv, code in [
        (["search", tmp_path / "nowhere", "red"], 1),
        (["search", photos], 2),
        (["search", photos, "red", "--calibration", "odd"], 2),
        (["search", photos, "red", "--out", tmp_path / "no" / "such" / "folder.csv"], 1),
        (["index", photos, "--memory", "much"], 2),
        (["label", photos, "--set", tmp_path / "none.json", "--eval"], 1),
        (["inference", tmp_path / "nothing", tmp_path / "out"], 2),
    ]:
        said = run(*argv, code=code)
        assert said.stderr.startswith("Error: ")
        assert "Traceback" not in said.stderr
        assert said.stdout == ""


def test_an_unknown_option_is_misuse_with_a_hint(run, photos):
    assert "did you mean --threshold?" in run("search", photos, "red", "--treshold", "1", code=2).stderr


@pytest.mark.parametrize(
    "argv", [["Q" * 100_000], ["search", "--" + "Q" * 100_000], ["search", "c", "a", "-k", "Q" * 9000]]
)
def test_an_error_repeats_little_of_what_was_given(run, argv):
    assert run(*argv, code=2).stderr.count("Q") <= 200


def test_a_model_that_cannot_be_had_is_not_replaced(run, images, tmp_path):
    def load(name, **_):
        raise ModelUnavailable(f"The weights of {name!r} could not be fetched; use `--model mini`.")

    said = run("inference", images, tmp_path / "c", code=1, load=load)
    assert "laion2b_s34b_b79k" in said.stderr
    assert "--model mini" in said.stderr


def test_stopping_says_how_to_go_on(run, images, tmp_path):
    def load(name, **_):
        raise KeyboardInterrupt

    assert f"Stopped. {STOPPED['inference']}" in run("inference", images, tmp_path / "c", code=130, load=load).stderr


def test_every_peers_name_leads_to_an_option_that_exists():
    for name, options in PEERS.items():
        command = COMMANDS[name]
        assert isinstance(command, Command)
        grammar = command.grammar()
        for option, meaning in options.items():
            targets = [getattr(meaning, "option", None), *getattr(meaning, "on", ()), *getattr(meaning, "off", ())]
            assert all(t in grammar.options for t in targets if t is not None and t.startswith("--")), option
            if hasattr(meaning, "name"):
                assert meaning.name in grammar.arguments, option


def test_every_command_has_help_with_an_example_and_json():
    for name, command in COMMANDS.items():
        assert f"Example: clipsieve {name} " in command.help + " ", name
        assert "--json" in command.grammar().options, name


@pytest.mark.slow
def test_help_is_there_at_once_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom clipsieve.cli import app\n"
        "try:\n    app(['--help'], standalone_mode=True)\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'faiss', 'pyarrow', 'PIL', 'open_clip', 'transformers', 'sqlite3'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "loaded []" in said
    assert "inference" in said

    def fastest(argv):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *argv], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    # 0.2 s on a quiet machine; beside other work only a comparison means anything.
    bare = fastest(["-c", "pass"])
    assert fastest(["-m", "clipsieve", "--help"]) < max(0.5, 25 * bare)


def test_rewrite_knows_the_real_search():
    grammar = COMMANDS["search"].grammar()
    assert rewrite(["f", "x", "--not_image", "y", "--dedup=False"], grammar)[0] == [
        "--not-image",
        "y",
        "--no-dedup",
        "f",
        "x",
    ]


@pytest.fixture
def growing(images, run, tmp_path):
    """A folder of images of its own, and the collection of it."""
    shutil.copytree(images, tmp_path / "photos")
    run("inference", tmp_path / "photos", tmp_path / "c", "--model", "fake")
    run("index", tmp_path / "c")
    return tmp_path / "photos", tmp_path / "c"


def like(run, colour, folder):
    """The keys of the eleven images that are the likest; of each colour there are ten at first."""
    return set(keys(run("search", folder, colour, "-k", "11", "--json")))


@pytest.mark.slow
def test_add_and_remove_show_at_once_and_after_indexing(run, growing):
    photos, folder = growing
    assert "Nothing to add: 31 of 31 images are known" in run("add", folder, photos).stdout
    Image.new("RGB", (20, 20), COLOURS["red"]).save(photos / "new.png")
    Image.new("RGB", (20, 20), COLOURS["blue"]).save(photos / "red" / "0.png")
    said = run("add", folder, photos).stdout
    assert "2 images embedded" in said
    assert "1 take the place of older ones" in said
    assert json.loads(run("info", folder, "--json").stdout)["count"] == 31
    reds, blues = {f"red/{i}.png" for i in range(1, 10)}, {f"blue/{i}.png" for i in range(10)}
    assert like(run, "red", folder) > reds | {"new.png"}
    assert like(run, "blue", folder) == blues | {"red/0.png"}
    run("remove", folder, "--where", "key = 'new.png'")
    assert "new.png" not in like(run, "red", folder)
    assert "1 were removed before and stay so" in run("add", folder, photos).stdout
    run("index", folder)
    assert like(run, "blue", folder) == blues | {"red/0.png"}
    assert "new.png" not in keys(run("search", folder, "red", "-k", "40", "--json"))


def test_remove_what_is_missing_and_take_it_back(run, growing, tmp_path):
    photos, folder = growing
    (photos / "red" / "3.png").rename(tmp_path / "aside.png")
    assert "1 of 30 images would be removed" in run("remove", folder, "--missing", "--dry-run").stdout
    assert "1 images removed; 29 are left" in run("remove", folder, "--missing").stdout
    assert json.loads(run("remove", folder, "--missing", "--json").stdout)["removed"] == 0
    (tmp_path / "aside.png").rename(photos / "red" / "3.png")
    assert json.loads(run("add", folder, photos, "--json").stdout)["embedded"] == 1
    photos.rename(tmp_path / "elsewhere")
    assert "is a disk not mounted?" in run("remove", folder, "--missing", code=2).stderr


def test_remove_by_id_and_what_it_refuses(run, growing):
    _, folder = growing
    assert "2 images removed; 28 are left" in run("remove", folder, "--ids", "3, 4").stdout
    assert "Item 4 was removed" in run("remove", folder, "--ids", "4", code=1).stderr
    assert "'x' in --ids is no id" in run("remove", folder, "--ids", "1,x", code=2).stderr
    assert "one of --where, --ids and --missing" in run("remove", folder, code=2).stderr


def test_compact_drops_what_was_removed(run, growing):
    _, folder = growing
    assert "Nothing to do" in run("compact", folder).stdout
    run("remove", folder, "--where", "key like 'red/%'")
    before = like(run, "blue", folder)
    assert "10 removed images dropped; 1 shards are 1 now" in run("compact", folder).stdout
    assert like(run, "blue", folder) == before
    assert json.loads(run("info", folder, "--json").stdout)["removed"] == 0


def test_check_names_what_is_damaged_and_repairs(run, growing):
    photos, folder = growing
    assert run("check", folder).stdout.startswith("No problem in ")
    (folder / "metadata" / "metadata_000000.parquet").write_bytes(b"?")
    said = run("check", folder, code=1).stdout
    assert "metadata/metadata_000000.parquet has 1 bytes" in said
    assert "--repair" in said
    done = json.loads(run("check", folder, "--repair", "--json").stdout)["done"]
    assert "Shard 0 with 30 images was set aside" in done[-1]
    assert "30 images embedded" in run("add", folder, photos).stdout
    assert "No problem" in run("check", folder).stdout


def test_a_text_that_is_cut_is_told(run, photos):
    found = run("search", str(photos), "red " * 40 + "rest", "-k", "1", "--json")
    assert "'rest' is left out" in found.stderr
    assert "'rest' is left out" in json.loads(found.stdout)["notes"][0]
    found = run("search", str(photos), "red", "--not", "red " * 40 + "rest", "--long-text", "error", code=2)
    assert "leaves out 'rest'" in found.stderr


@pytest.mark.parametrize("words", [[""], ["red", "--not", " "]])
def test_an_empty_text_is_refused(run, photos, words):
    found = run("search", str(photos), *words, code=2)
    assert "an empty text" in found.stderr


@pytest.mark.parametrize(("text", "ms"), [("100ms", 100), ("0.5s", 500), ("2 S", 2000), ("40", 40), (None, None)])
def test_a_latency_is_milliseconds_or_seconds(text: str | None, ms: float | None) -> None:
    assert parse_latency(text) == ms


@pytest.mark.parametrize("text", ["", "0ms", "-1s", "fast", "1m", "1e3", "nan"])
def test_a_latency_that_is_none_is_told(text: str) -> None:
    with pytest.raises(InputError, match="latency"):
        parse_latency(text)


def test_texts_that_a_spreadsheet_computes_are_exact_where_asked(run, images, tmp_path):
    (tmp_path / "p").mkdir()
    shutil.copy(images / "red" / "0.png", tmp_path / "p" / "=1.png")
    folder = tmp_path / "c"
    run("inference", tmp_path / "p", folder, "--model", "fake")
    write_tree(tmp_path, {"set.json": json.dumps({"classes": [{"name": "@red", "positive": ["red"]}]}).encode()})
    commands = {
        "s": ["search", folder, "red", "--out", tmp_path / "s.csv"],
        "l": ["label", folder, "--set", tmp_path / "set.json", "--out", tmp_path / "l.csv"],
        "f": ["filter", folder, "red", "-k", "1", "--as", "list", "--out", tmp_path / "f.csv"],
    }
    for name, command in commands.items():
        for raw, wanted in (((), "'=1.png"), (("--raw-csv",), "=1.png")):
            run(*command, *raw)
            head, row = lines(tmp_path / f"{name}.csv")
            assert row[head.index("key")] == wanted
            path = tmp_path / f"{name}.csv"
            (tmp_path / "keys.csv").write_text(f"key\n{wanted}\n")
            assert "1 of 1 images" in run("remove", folder, "--ids", tmp_path / "keys.csv", "--dry-run").stdout
            path.unlink()
    assert "--raw-csv is for CSV" in run("search", folder, "red", "--raw-csv", code=2).stderr
