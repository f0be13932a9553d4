"""Names of files as text, and back: nothing is lost on the way, and what is written can be read."""

import codecs
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.path_text import canonical, given_path, json_text, spell_out, stored_path, to_path, to_text

LATIN = os.fsdecode(b"caf\xe9.jpg")


@given(st.binary(max_size=30))
def test_every_name_comes_back(name):
    path = os.fsdecode(name)
    text = to_text(path)
    text.encode()
    assert to_path(text) == path
    assert canonical(text) == text


@given(st.text(max_size=30).filter(lambda s: "\\" not in s and not any("\ud800" <= c <= "\udfff" for c in s)))
def test_an_ordinary_name_is_its_own_text(name):
    assert to_text(name) == name


def test_two_names_never_have_one_text():
    names = [LATIN, "caf\\xe9.jpg", "caf\\\\xe9.jpg", "caf\xe9.jpg", "caf\\\\\\xe9.jpg"]
    assert len({to_text(name) for name in names}) == len(names)


@pytest.mark.parametrize("text", ["a\\b.jpg", "\\xg1", "C:\\photos\\img.jpg", "end\\", "\\ud83d"])
def test_a_backslash_that_begins_no_escape_means_itself(text):
    assert to_path(text) == text


def test_a_file_is_found_by_its_text_and_by_its_name(tmp_path):
    (tmp_path / LATIN).touch()
    (tmp_path / "a\\b").touch()
    (tmp_path / "lit\\xe9").touch()
    assert stored_path(to_text(tmp_path / LATIN)) == str(tmp_path / LATIN)
    assert stored_path(str(tmp_path / "lit\\xe9")) == str(tmp_path / "lit\\xe9")  # of an older version
    assert given_path(str(tmp_path / LATIN)) == str(tmp_path / LATIN)
    assert given_path(to_text(tmp_path / LATIN)) == str(tmp_path / LATIN)
    assert given_path(tmp_path / "a\\b") == given_path(str(tmp_path / "a\\\\b")) == str(tmp_path / "a\\b")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_stream_spells_out_what_it_cannot_write(encoding):
    codecs.register_error("clipsieve", spell_out)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="clipsieve")
    said = {"folder": LATIN, "key": "東\U0001f600"}
    stream.write(json_text(json.dumps(said, ensure_ascii=False)))
    stream.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == said | {"folder": to_text(LATIN)}
