import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.errors import InputError
from clipsieve.peer_flags import PEERS, Grammar, rewrite

GRAMMARS = {
    "inference": Grammar(
        "inference",
        {"--help": False, "--json": False, "--text": False, "--no-text": False}
        | dict.fromkeys(
            ["--model", "--format", "--batch-size", "--workers", "--shard-size", "--image-key", "--caption-key"], True
        ),
        ("input", "out"),
    ),
    "inference.worker": Grammar("inference.worker", {"--tasks": True, "--partitions": True}, ("input", "out")),
    "end2end": Grammar("end2end", {"--run-back": False, "--no-run-back": False, "--model": True}, ("input", "out")),
    "index": Grammar(
        "index",
        {"--rebuild": False} | dict.fromkeys(["--into", "--memory", "--recall", "--threads"], True),
        ("folder",),
    ),
    "back": Grammar("back", dict.fromkeys(["--indices-paths", "--port", "--model", "--columns"], True), ("folders",)),
    "front": Grammar("front", dict.fromkeys(["--default-backend", "--default-index", "--url-column"], True)),
    "filter": Grammar(
        "filter",
        {"--dedup": False, "--no-dedup": False}
        | dict.fromkeys(["--image", "--not", "--out", "--as", "--threshold", "-k"], True),
        ("folder", "text"),
    ),
    "label": Grammar(
        "label",
        {"--eval": False, "--reject": False}
        | dict.fromkeys(["--set", "--out", "--format", "--only", "--truth", "--batch-size"], True),
        ("folder",),
    ),
}


def spell(command, words, is_file=lambda name: False):
    return rewrite(words.split(), GRAMMARS[command], is_file)


@pytest.mark.parametrize(
    ("command", "theirs", "ours"),
    [
        ("inference", "--input_dataset photos --output_folder out", "photos out"),
        ("inference", "--output-folder=out --input-dataset=photos", "photos out"),
        ("inference", "photos --output_folder out", "photos out"),
        ("inference", "--input_dataset photos out", "photos out"),
        ("inference", "photos out --clip_model ViT-B/32", "--model ViT-B/32 photos out"),
        ("inference", "photos out --input_format webdataset", "--format webdataset photos out"),
        ("inference", "photos out --num_prepro_workers 4", "--workers 4 photos out"),
        ("inference", "photos out --write_batch_size=1000", "--shard-size 1000 photos out"),
        ("inference", "a b --wds_image_key jpg --wds_caption_key txt", "--image-key jpg --caption-key txt a b"),
        ("inference", "photos out --enable_text False", "--no-text photos out"),
        ("inference", "photos out --enable_text=True", "--text photos out"),
        ("inference", "photos out --enable_text", "--text photos out"),
        ("inference", "--enable_text photos out", "--text photos out"),
        ("inference", "photos out --noenable_text", "--no-text photos out"),
        ("inference", "photos out --enable_image True --enable_metadata", "photos out"),
        ("inference", "photos out --distribution_strategy sequential", "photos out"),
        ("inference", "photos out --output_partition_count None", "photos out"),
        ("inference", "photos out --use_mclip False --use_jit=False", "photos out"),
        ("index", "--embeddings_folder e --index_folder i", "--into i e"),
        ("index", "e --max_index_memory_usage 4G --nb_cores 2", "--memory 4G --threads 2 e"),
        ("index", "e --copy_metadata True --image_subfolder img_emb", "e"),
        ("front", "--default_backend http://a --default_index=b", "--default-backend http://a --default-index b"),
        ("front", "--default_backend None --url_column u", "--url-column u"),
        ("back", "--default_backend None --url_column None", ""),
        ("filter", "--query cat --indice_folder i --output_folder o", "--out o -k 100 i cat"),
        ("filter", "--query cat --output_folder o --indice_folder i --num_results 7", "--out o -k 7 i cat"),
        ("filter", "--query c --output_folder o --indice_folder i --threshold .2", "--out o --threshold .2 -k 100 i c"),
        ("filter", "--query cat --output_folder o --indice_folder i --threshold None", "--out o -k 100 i cat"),
        ("filter", "--query cat.jpg --output_folder o --indice_folder i", "--out o -k 100 i cat.jpg"),
        ("label", "--root r --classifier_json_file c --output_file o.csv", "--set c --out o.csv --format directai r"),
        ("label", "--root r --classifier_json_file c.json --eval_only True", "--set c.json --eval --truth folder r"),
        ("label", "--root r --classifier_json_file c.json --images_to_classify_fp l", "--set c.json --only l r"),
        ("label", "--root r --classifier_json_file c.json --eval_only False", "--set c.json r"),
    ],
)  # fmt: skip
def test_what_the_peers_write_is_what_we_write(command, theirs, ours):
    assert spell(command, theirs) == (ours.split(), [])


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        ("photos out --shard_size 10", "--shard-size 10 photos out"),
        ("photos out --shard-size=10", "--shard-size 10 photos out"),
        ("photos out --text=False", "--no-text photos out"),
        ("photos out --no_text", "--no-text photos out"),
        ("photos out --no-text False", "--text photos out"),
        ("photos out --json True", "--json photos out"),
        ("photos out --json False", "photos out"),
        ("--help", "--help"),
    ],
)
def test_ours_may_be_spelt_as_python_fire_would(ours, same):
    assert spell("inference", ours) == (same.split(), [])


def test_a_query_that_is_an_image_file_becomes_an_image():
    words = "--query cat.JPG --output_folder o --indice_folder i"
    assert spell("filter", words, is_file=lambda name: name == "cat.JPG")[0] == (
        ["--out", "o", "--image", "cat.JPG", "-k", "100", "i"]
    )
    assert "--image" not in spell("filter", words.replace("cat.JPG", "cat"), is_file=lambda name: True)[0]


def test_our_own_filter_has_no_limit_of_the_peers():
    assert spell("filter", "i cat --out o")[0] == ["--out", "o", "i", "cat"]


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ("--cache_path x", "read where they are"),
        ("--use_jit True", "not traced"),
        ("--enable_image False", "always embedded"),
        ("--enable_wandb True", "Weights & Biases"),
        ("--slurm_nodes 4", "Slurm"),
        ("--wds_number_file_per_input_file 10000", "--shard-size"),
    ],
)
def test_what_means_nothing_here_is_taken_with_a_note(words, about):
    argv, notes = spell("inference", f"photos out {words}")
    assert argv == ["photos", "out"]
    (note,) = notes
    assert note.startswith(words.split()[0].replace("_", "-"))
    assert about in note


@pytest.mark.parametrize(
    ("command", "words", "about"),
    [
        ("inference", "photos out --input_datset x", "did you mean --input-dataset?"),
        ("inference", "photos out --modle x", "did you mean --model?"),
        ("inference", "photos out --xyzzy x", "clipsieve inference --help"),
        ("inference", "photos out --use_mclip True", "multilingual"),
        ("inference", "photos out --distribution_strategy pyspark", "one process"),
        ("inference", "photos out --enable_text=perhaps", "switch"),
        ("inference", "--output_folder out", "needs its INPUT"),
        ("index", "e --image_subfolder other", "img_emb"),
        ("index", "e --index_folder", "needs a value"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_helps(command, words, about):
    with pytest.raises(InputError, match=r"^[`-]") as caught:
        spell(command, words)
    assert about in str(caught.value)


def test_values_are_never_taken_for_options():
    assert spell("filter", "i cat --not --odd_one --out o")[0] == ["--not", "--odd_one", "--out", "o", "i", "cat"]
    assert rewrite(["i", "--out", "o", "--", "--cat_like"], GRAMMARS["filter"])[0] == (
        ["--out", "o", "--", "i", "--cat_like"]
    )
    assert rewrite(["--query", "-5 degrees", "--indice_folder", "i"], GRAMMARS["filter"])[0][-3:] == (
        ["--", "i", "-5 degrees"]
    )


def test_true_is_a_text_unless_python_spells_it():
    assert spell("filter", "i --dedup true story") == (["--dedup", "i", "true", "story"], [])
    assert spell("filter", "i --dedup True story") == (["--dedup", "i", "story"], [])


plain = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda s: not s.startswith("-"))


@given(st.lists(plain, max_size=4), st.lists(plain, max_size=3))
def test_an_ordinary_call_passes_unchanged(texts, negatives):
    options = [word for negative in negatives for word in ("--not", negative)]
    argv, notes = rewrite([*options, "folder", *texts], GRAMMARS["filter"])
    assert (argv, notes) == ([*options, "folder", *texts], [])


@given(st.sampled_from(sorted(GRAMMARS)), st.lists(st.text(max_size=12), max_size=6))
def test_it_answers_or_raises_input_error_and_is_stable(command, words):
    try:
        argv, _ = rewrite(words, GRAMMARS[command], lambda name: False)
    except InputError:
        return
    assert rewrite(argv, GRAMMARS[command], lambda name: False)[0] == argv


def test_the_workers_partitions_are_its_own_and_inferences_are_not():
    words = "--tasks [0,1] --output_partition_count 4 --input_dataset a --output_folder b"
    assert spell("inference.worker", words) == (["--tasks", "[0,1]", "--partitions", "4", "a", "b"], [])
    assert "shards are cut by" in spell("inference", "--output_partition_count 4 a b")[1][0]


def test_end2end_is_spelt_as_the_peer_does_and_img2dataset():
    words = "--url_list a --output_folder b --run_back False --url_col link --thread_count 4"
    assert spell("end2end", words) == (
        ["--no-run-back", "--url-column", "link", "--connections", "4", "a", "b"],
        [],
    )


@pytest.mark.parametrize("command", sorted(PEERS))
@pytest.mark.parametrize("dash", ["_", "-"])
def test_every_peers_option_is_taken_in_both_spellings(command, dash):
    for option in PEERS[command]:
        try:
            rewrite([f"--{option.replace('-', dash)}", "True"], GRAMMARS[command])
        except InputError as error:
            assert "has no option" not in str(error)  # noqa: PT017
