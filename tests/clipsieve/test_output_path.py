"""No output becomes a folder called `s3:`, by any way in."""

from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.durable import write_file
from clipsieve.errors import InputError
from clipsieve.index.export import export
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import Manifest
from clipsieve.output_path import is_address, require_path
from clipsieve.writer import open_writer

GROUP: Any = get_command(cli.app)
# Every parameter of a path, sorted by hand: a new one has to be put into one of the two.
OUTPUTS = {"out", "into", "confusion", "clip_retrieval", "arrow", "state"}
INPUTS = {
    *("folder", "folders", "source", "table", "image", "not_image", "set_", "only", "names", "coco", "images"),
    *("indices_paths", "ratings", "flags", "safety_head", "violence_prompts", "page", "read_token_file"),
    *("write_token_file", "input_data", "token_file"),
}
PATHS = [
    (command, name)
    for command, function in cli.COMMANDS.items()
    for name, hint in get_type_hints(function).items()
    if "Path" in str(hint)
]


@pytest.mark.parametrize(
    "address",
    [
        *("s3://bucket/x", "S3://bucket/x", "s3a://b", "gs://b/x", "hdfs://host/x", "hdfs:///x", "memory://x"),
        *(
            "https://host/x",
            "abfs://c@a/x",
            "file:///tmp/x",
            "s3:/bucket/x",
            " s3://b",
            "simplecache::s3://b/x",
            "s3:/",
        ),
    ],
)
def test_an_address_is_told_from_a_path(address):
    assert is_address(address)
    assert is_address(Path(address)) or address.startswith(" ")
    with pytest.raises(InputError, match=r"is an address.*(then copy it there|give the path alone)"):
        require_path(address)


@pytest.mark.parametrize(
    "path",
    ["out", "./a:b", "a:b.jpg", "C:\\photos", "C:/photos", "/data/s3:/x", "../s3", "s3", "://", "1://x", "a b://c"],
)
def test_a_path_stays_as_it_is(path):
    assert require_path(path) == path
    assert require_path(Path(path)) == Path(path)


def test_every_path_of_a_command_is_known_as_input_or_output():
    assert {name for _, name in PATHS} == OUTPUTS | INPUTS


@pytest.mark.parametrize(("command", "name"), [(c, n) for c, n in PATHS if n in OUTPUTS], ids=lambda value: str(value))
def test_a_command_refuses_an_address_as_output(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters = GROUP.commands[command].params
    arguments = ["s3://bucket/x" if p.name == name else "in" for p in parameters if p.param_type_name == "argument"]
    options = [
        word
        for p in parameters
        if p.param_type_name == "option" and (p.name == name or p.required)
        for word in (p.opts[0], "s3://bucket/x" if p.name == name else "1")
    ]
    done = CliRunner().invoke(cli.app, [command, *arguments, *options])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: The output 's3://bucket/x' is an address")
    assert list(tmp_path.iterdir()) == []


def test_a_peers_spelling_of_an_output_is_no_way_round(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["inference", "--input_dataset", "in", "--output_folder", "s3://bucket/x"])
    assert done.exit_code == 2
    assert "is an address" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_python_makes_no_folder_of_an_address_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    embedder = FakeEmbedder(dim=4)
    with pytest.raises(InputError, match="is an address"):
        embed_collection(open_source("in"), embedder, "s3://bucket/x")
    with pytest.raises(InputError, match="is an address"), open_writer("s3://b", Manifest(model=None, dim=4)):
        pass
    with pytest.raises(InputError, match="is an address"):
        export(iter(()), Path("s3://b"), "copy", Any)
    with pytest.raises(InputError, match="is an address"):
        write_file(Path("s3://b/x"), lambda file: file.write(np.zeros(1).tobytes()))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
