"""What the documents say is so."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import clipsieve
from clipsieve import cli
from clipsieve.commands_build import DEFAULT_MODEL
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.peer_flags import PEERS
from tests.clipsieve.test_client import served
from tests.inference.pictures import jpeg, write_tree

ROOT = Path(__file__).parents[2]
GROUP: Any = get_command(cli.app)
COMMANDS = GROUP.commands
DOCUMENTS = ("architecture", "cli", "python")
PAGE = (ROOT / "docs" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w[^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_in_the_page(name):
    section = SECTIONS[name]
    assert f"clipsieve {name}" in section
    for option in COMMANDS[name].grammar().options:
        if option not in ("--help", "-h"):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", section), option


def test_the_page_names_no_option_that_is_not_there():
    for name, command in COMMANDS.items():
        options = command.grammar().options
        table = "\n".join(
            line.split("|")[1] for line in SECTIONS[name].replace(r"\|", "/").splitlines() if line.startswith("|")
        )
        for option in re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", table):
            assert option in options, f"{name} {option}"


def test_the_page_names_the_default_model_and_every_peers_option():
    assert DEFAULT_MODEL in SECTIONS["inference"]
    peers = SECTIONS["Peers' spellings"]
    for options in PEERS.values():
        for option in options:
            spelt = "--" + option.replace("-", "_")
            known = (
                spelt in peers
                or option.startswith("slurm")
                or option in ("image-subfolder", "text-subfolder", "batch-size")
            )
            assert known, spelt


def test_the_readmes_shell_lines_parse():
    text = (ROOT / "README.md").read_text()
    called = re.findall(r"^ {4}clipsieve (\w+)(.*)$", text, re.MULTILINE)
    assert {name for name, _ in called} >= {"inference", "index", "search"}
    for name, rest in called:
        assert name in COMMANDS
        for option in re.findall(r"(?<!\S)(--[a-z-]+|-k)\b", rest.split("#")[0]):
            assert option in COMMANDS[name].grammar().options, option


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    write_tree(tmp_path / "photos", {f"{i}.jpg": jpeg(i) for i in range(4)})
    embed_collection(open_source(tmp_path / "photos"), FakeEmbedder(), tmp_path / "photos.clip")
    monkeypatch.setattr("clipsieve.inference.embedder.load_embedder", lambda name, **_: FakeEmbedder(name=name))
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "exact"
    assert all("looks like red bus" in line for line in printed[:-1])


def test_the_python_pages_examples_run(tmp_path, capsys):
    write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(24)})
    embed_collection(open_source(tmp_path / "in"), FakeEmbedder(), tmp_path / "photos")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(snippets) == 3
    with served(tmp_path / "photos", FakeEmbedder()) as (address, _):
        for snippet in snippets:
            assert "http://127.0.0.1:1234" in snippet
            exec(compile(snippet.replace("http://127.0.0.1:1234", address), "python.md", "exec"), {})
            assert capsys.readouterr().out


def test_the_changelog_has_this_version():
    assert f"## {clipsieve.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/cli.md", "docs/python.md"]
)
def test_every_file_that_a_document_points_to_is_there(document):
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / document).parent / link).exists(), link
    for path in re.findall(r"`((?:clipsieve|inference|index|back|front|tests|docs|benchmarks)/[\w/.{}-]*)`", text):
        if "{" not in path:
            assert (ROOT / path).exists(), path
