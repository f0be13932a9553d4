import base64
import json

import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.load_data import Input, bodies, make_rows, read_rows

IDS = Input("INPUT_IDS", "INT64", (4,))
PIXELS = Input("PIXEL_VALUES", "FP32", (1, 2, 2))
TEXT = Input("INPUT_TEXT", "BYTES", (1,))
IMAGE = Input("INPUT_IMAGE", "BYTES", (1,))


def encode(data):
    return base64.b64encode(data).decode()


def head(body):
    return json.loads(body.data[: body.json_bytes])


def test_perf_analyzers_file_with_rows_and_streams(tmp_path):
    path = tmp_path / "data.json"
    rows = [{"INPUT_IDS": [1, 2, 3, 4]}, {"INPUT_IDS": [5, 6, 7, 8]}]
    path.write_text(json.dumps({"data": [rows[0], [rows[1], rows[0]]]}))
    assert read_rows(path) == [rows[0], rows[1], rows[0]]


@pytest.mark.parametrize("text", ["{not", "[]", "{}", '{"data": []}', '{"data": [7]}', '{"data": [{}]}'])
def test_files_that_are_none(tmp_path, text):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"data\.json"):
        read_rows(path)
    with pytest.raises(InputError, match="nowhere"):
        read_rows(tmp_path / "nowhere")


IDS_BYTES = np.arange(4, dtype="<i8").tobytes()


@pytest.mark.parametrize(
    ("declared", "value", "flat", "tensor"),
    [
        (IDS, [0, 1, 2, 3], [0, 1, 2, 3], IDS_BYTES),
        (IDS, {"content": [0, 1, 2, 3], "shape": [4]}, [0, 1, 2, 3], IDS_BYTES),
        (IDS, {"b64": encode(IDS_BYTES)}, [0, 1, 2, 3], IDS_BYTES),
        (PIXELS, [[[0, 1], [2, 0.5]]], [0, 1, 2, 0.5], np.array([0, 1, 2, 0.5], "<f4").tobytes()),
        (TEXT, ["ab"], ["ab"], b"\x02\0\0\0ab"),
        (TEXT, "ab", ["ab"], b"\x02\0\0\0ab"),
        (TEXT, {"b64": encode(b"ab")}, ["ab"], b"\x02\0\0\0ab"),
        (TEXT, {"b64": encode(b"\x02\0\0\0ab")}, ["ab"], b"\x02\0\0\0ab"),
        (IMAGE, {"b64": encode(b"\xff\xd8\xff\xe0 a jpeg")}, None, b"\x0b\0\0\0\xff\xd8\xff\xe0 a jpeg"),
    ],
)
def test_every_way_to_write_a_tensor(declared, value, flat, tensor):
    (body,) = bodies([{declared.name: value}], [declared])
    (one,) = head(body)["inputs"]
    assert one["shape"] == [1, *declared.dims]
    assert one["parameters"] == {"binary_data_size": len(tensor)}
    assert body.data[body.json_bytes :] == tensor
    if flat is not None:
        (body,) = bodies([{declared.name: value}], [declared], binary=False)
        assert body.json_bytes is None
        assert head(body)["inputs"][0]["data"] == flat


def test_requests_of_several_rows_begin_at_each_row_in_turn():
    made = bodies([{"INPUT_TEXT": [t]} for t in "abc"], [TEXT], 2, binary=False, parameters={"embed_model": "x"})
    assert [head(body)["inputs"][0]["data"] for body in made] == [["a", "b"], ["b", "c"], ["c", "a"]]
    assert {body.rows for body in made} == {2}
    assert head(made[0])["parameters"] == {"embed_model": "x"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"X": [1]}, "takes INPUT_IDS, INPUT_TEXT"),
        ({"INPUT_IDS": [1, 2, 3]}, "has 3 values and not 4"),
        ({"INPUT_IDS": [0.5] * 4}, "is INT64"),
        ({"INPUT_IDS": ["a"] * 4}, "is INT64"),
        ({"INPUT_IDS": {"content": [1] * 4, "shape": [2, 2]}}, "the shape"),
        ({"INPUT_IDS": {"b64": "a b"}}, "not base64"),
        ({"INPUT_IDS": {"b64": encode(b"123")}}, "Row 0"),
        ({"INPUT_TEXT": [1]}, "each element is a text"),
        ({"INPUT_TEXT": {"x": 1}}, "each element is a text"),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_rows_that_the_model_does_not_take_are_named(row, words, binary):
    with pytest.raises(InputError, match="Row 0") as raised:
        bodies([row], [IDS, TEXT], binary=binary)
    assert words in str(raised.value)


def test_rows_with_different_inputs():
    with pytest.raises(InputError, match="Row 1 has other inputs"):
        bodies([{"INPUT_IDS": [1] * 4}, {"INPUT_TEXT": ["a"]}], [IDS, TEXT])


def test_made_up_rows_are_taken_and_differ():
    for declared in (IDS, PIXELS, TEXT):
        made = bodies(make_rows(declared), [declared])
        assert len({body.data for body in made}) > 32
    with pytest.raises(InputError, match="--input-data"):
        make_rows(IMAGE)
