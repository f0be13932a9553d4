"""What people and programs write: class sets, DirectAI's configurations, filters, options and data URLs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from clipsieve import classset
from clipsieve.back import openai
from clipsieve.back.deployed import from_stored, read_classifier, read_detector, to_stored
from clipsieve.back.pydantic_v1 import parse
from clipsieve.errors import ClipsieveError
from clipsieve.index.metadata import SqliteMetadata
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.peer_flags import PEERS, rewrite
from clipsieve.types import Embeddings
from clipsieve.writer import open_writer

Read = Callable[[bytes], object]

_SQL = """( ) ' " , || and or not in (1,2) between like glob is null case when then end x'00' 1e999 9223372036854775808
    cast( as blob) instr( replace( printf( substr( trim( count( json_extract( -> ->> strftime( key caption year id tags
    select from items exists( hex( zeroblob( randomblob( unicode( length( collate nocase ? :a @b"""
FILTER_WORDS = tuple(f" {word} ".encode() for word in re.findall(r"\S+", _SQL))
FLAG_WORDS = (
    *(f"\n--{name}".encode() for peers in PEERS.values() for name in peers),
    *(b"=True", b"=False", b"\n--", b"\n-k", b"\n-1.5", b"=None", b"--no", b"\nTrue", b"[1,2]", b"{}"),
)
URL_WORDS = (
    b"data:",
    b"DATA:",
    b"image/png",
    b";base64",
    b",",
    b"%2C",
    b" ",
    b"\n",
    b"=",
    b"-_",
    b"application/octet-stream",
)
PNG = base64.b64decode(b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")


def class_set(_: Path) -> Read:
    """Class sets of both dialects, which must survive being written and read again."""

    def read(data: bytes) -> object:
        classes = classset.loads(data)
        text = classset.dumps(classes)
        again = classset.loads(text)
        assert classset.dumps(again) == text, "it is another one, once written and read"
        return text, _tried(lambda: classset.unknown_fields(json.loads(data)))

    return read


def class_set_seeds() -> list[bytes]:
    """One of each dialect."""
    values: list[Any] = [
        {
            "classes": [
                {"name": "bus", "positive": ["red bus", {"image": "17"}], "negative": [], "threshold": 0.2},
                {"name": "cat", "positive": [{"image": "f" * 64, "box": [0, 0, 0.5, 1]}], "negative": ["a dog"]},
            ],
            "calibration": "background", "templates": ["a {}"], "nms": 0.5, "mode": "agnostic",
        },
        *deploy_bodies(),
    ]  # fmt: skip
    return [json.dumps(value).encode() for value in values]


def directai(_: Path) -> Read:
    """Deploy bodies, which must survive being stored; and what is stored, by whomever."""

    def read(data: bytes) -> object:
        made = []
        for kind in (read_classifier, read_detector):
            made.append(_tried(lambda kind=kind: _deployed(kind, data)))  # type: ignore[misc]
        return [*made, _tried(lambda: from_stored(data, "id").to_json("id"))]

    return read


def directai_seeds() -> list[bytes]:
    """Bodies of both kinds, and what is stored of them."""
    bodies = deploy_bodies()
    kept = [to_stored(read_classifier(bodies[0])[0], "a"), to_stored(read_detector(bodies[1])[0], "b")]
    return [*(json.dumps(body).encode() for body in bodies), *kept]


def filter_(folder: Path) -> Read:
    """Filters over a small table."""
    fake = FakeEmbedder(8)
    with open_writer(folder / "c", Manifest(fake.model, 8)) as writer:
        keys = tuple("abcdef")
        columns: dict[str, list[object]] = {
            "year": [1984, None, 3, 4, 5, 2**60],
            "a.b": ["x", "é", "", None, "'", "z" * 99],
            "tags": [["x"], [], None, ["y"], ["z"], ["1"]],
        }
        writer.append(
            Embeddings(fake.embed_texts(keys), keys, fake.model), captions=["a bus", *[None] * 5], columns=columns
        )
    store = SqliteMetadata(folder / "c", read_manifest(folder / "c"))

    def read(data: bytes) -> object:
        found = store.select(
            data.decode("utf-8", "surrogateescape"), limit_s=2, count=lambda text, least, ids: ids % 3
        ).tolist()
        return store.get(found)

    return read


def filter_seeds() -> list[bytes]:
    """What people ask."""
    texts = """
        year > 1990 and caption like '%bus%'
        "a.b" = 'x' or key in ('a', 'b')
        length(caption) between 1 and 9
        case when year is null then 0 else year % 2 = 1 end
        substr(key, 1, 2) glob 'a*'
        count('bus') >= 2
        json_extract(tags, '$[0]') = 'x'
        tags ->> 0 = 'y'
        date(year, 'unixepoch') < '2000-01-01'
        not (id & 3)
        instr(upper(caption), 'BUS') > 0
        replace(trim(key), 'a', 'b') = 'b'
        round(year / 3.0, 2) != 1e3
    """
    return [text.strip().encode() for text in texts.strip().splitlines()]


def flags(_: Path) -> Read:
    """Options in the peers' spellings; the input is a command and its words, one on each line."""
    from clipsieve.cli import app

    commands: Any = typer.main.get_command(app)
    grammars = {name: command.grammar() for name, command in commands.commands.items() if hasattr(command, "grammar")}

    def read(data: bytes) -> object:
        command, *given = data.decode("utf-8", "surrogateescape").split("\n")
        return rewrite(given, grammars.get(command, grammars["back"]), lambda name: name == "a.jpg")

    return read


def flag_seeds() -> list[bytes]:
    """Lines out of the peers' manuals."""
    return [
        b"inference\n--input_dataset\nimages\n--output_folder\nout\n--enable_text\nFalse\n--clip_model=ViT-B/32",
        b"back\n--indices_paths=indices.json\n--port\n1234\n--enable_hdf5\n--noenable_faiss_memory_mapping",
        b"filter\n--query\na.jpg\n--num_results\n10\n--indice_folder\nf\n--output_folder\no",
        b"index\n--embeddings_folder\ne\n--index_folder=i\n--max_index_memory_usage\n4G",
        b"search\nphotos\nred\n-k5\n--not\n-1.5",
    ]


def data_url(_: Path) -> Read:
    """Inputs of /v1/embeddings: texts, and images in data URLs."""

    def read(data: bytes) -> object:
        (one,) = openai.read_inputs({"input": data.decode("latin-1")})
        return one

    return read


def data_url_seeds() -> list[bytes]:
    """Spellings of one image."""
    plain, safe = base64.b64encode(PNG), base64.urlsafe_b64encode(PNG)
    return [
        b"data:image/png;base64," + plain, b"DATA:image/PNG;base64," + plain, b"data:image/png;base64," + safe,
        b"data:application/octet-stream;base64," + plain, b"data:;base64," + plain, b"data:image/svg+xml,%3Csvg/%3E",
        b"data:image/png;charset=x;base64," + plain.rstrip(b"="), b"https://example.com/x.png", b"a red bus",
    ]  # fmt: skip


def _deployed(kind: Callable[[Any], Any], data: bytes) -> object:
    try:
        value = parse(data, "application/json")
    except (ValueError, RecursionError) as error:  # documented: json's own, for what is no text
        if isinstance(error, ClipsieveError) or type(error) not in (UnicodeDecodeError, RecursionError):
            raise
        return str(type(error))
    deployed, id = kind(value)
    again = from_stored(to_stored(deployed, "x"), "x")
    assert again.to_json("x") == deployed.to_json("x"), "it is another one, once stored and read"
    return deployed.to_json(id or "")


def deploy_bodies() -> list[dict[str, Any]]:
    one = {"name": "bus", "examples_to_include": ["red bus", "bus"], "examples_to_exclude": ["truck"]}
    return [
        {"classifier_configs": [one, {"name": "cat", "examples_to_include": ["cat"]}], "augment_examples": False},
        {"detector_configs": [{**one, "detection_threshold": 0.3}], "nms_threshold": 0.4, "class_agnostic_nms": True},
    ]


def _tried(read: Callable[[], object]) -> object:
    """What is read, or the sentence that says why not."""
    try:
        return read()
    except ClipsieveError as error:
        return f"{type(error).__name__}: {error}"
