"""What is logged, and what is not."""

import io
import json
import logging
import sys

import pytest

from clipsieve.back import logs
from clipsieve.back.app import create_app
from clipsieve.back.shelf import Shelf
from clipsieve.errors import InputError


@pytest.fixture
def stream(monkeypatch):
    """What is logged to; the process's own logging is put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("clipsieve")
    before = root.handlers[:], root.level, ours.level, logging.root.manager.disable
    logging.disable(logging.ERROR)  # as the command line has it
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:], level, our_level, disabled = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.disable(disabled)


def client():
    def broken(url):
        raise ZeroDivisionError("of the test")

    app = create_app(Shelf(), fetch=broken)
    app.add_url_rule("/broken", "broken", lambda: 1 / 0)
    return app.test_client()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


A_PROXYS = "f47ac10b-58cc-4372-a567-0e02b2c3d479"


def test_one_line_for_each_request(stream):
    logs.set_up("info", "json", stream)
    client().get("/indices-list?token=secret", headers={"X-Request-Id": A_PROXYS, "Authorization": "Bearer secret"})
    client().post("/knn-service", data=b"secret", headers={"X-Request-Id": 'what"ever'})
    client().get("/healthz")
    listed, asked = lines(stream)
    assert listed.pop("time").endswith("+00:00")
    assert isinstance(listed.pop("ms"), float)
    assert listed == {
        "level": "info",
        "message": "request",
        "request_id": A_PROXYS,
        "method": "GET",
        "path": "/indices-list",
        "status": 200,
        "client": "127.0.0.1",
    }
    assert (asked["method"], asked["status"], len(asked["request_id"])) == ("POST", 400, 32)
    assert "secret" not in stream.getvalue()


def test_an_error_of_ours_has_the_id_that_the_answer_names(stream):
    logs.set_up("error", "json", stream)
    answer = client().get("/broken")
    said, request = lines(stream)
    assert said["request_id"] == request["request_id"] == answer.headers["X-Request-Id"]
    assert said["request_id"] in answer.get_json()["error"]["message"]
    assert said["message"] == "GET /broken failed"
    assert said["exception"].endswith("ZeroDivisionError: division by zero")
    assert (request["level"], request["status"]) == ("error", 500)


def test_levels(stream):
    logs.set_up("warning", "json", stream)
    client().get("/indices-list")
    logging.getLogger("somebody.else").warning("what %s warn of", "libraries")
    logging.getLogger("somebody.else").info("and no more")
    assert [line["message"] for line in lines(stream)] == ["what libraries warn of"]
    logs.set_up("DEBUG", "json", stream)
    client().get("/healthz")
    assert lines(stream)[1]["level"] == "debug"


def test_as_text_it_is_a_line_too(stream):
    logs.set_up("info", "text", stream)
    client().get("/a%0Afaked%1B[31m", headers={"X-Request-Id": "abc"})
    (line,) = stream.getvalue().splitlines()
    assert "INFO request method=GET path=/a\\nfaked\\x1b[31m status=404" in line
    assert line.endswith("client=127.0.0.1 request_id=abc")
    logging.getLogger("clipsieve").error("é", exc_info=ValueError("why"))
    assert stream.getvalue().endswith("ERROR é\nValueError: why\n")


def test_a_terminal_gets_text_and_anything_else_json(stream):
    logs.set_up("info", None, stream)
    logs.log.info("a")
    stream.isatty = lambda: True
    logs.set_up("info", None, stream)
    logs.log.info("b")
    first, second = stream.getvalue().splitlines()
    assert (json.loads(first)["message"], second[-6:]) == ("a", "INFO b")


@pytest.mark.parametrize(("level", "form"), [("loud", None), ("info", "xml")])
def test_what_cannot_be_meant(level, form):
    with pytest.raises(InputError, match="is none of"):
        logs.set_up(level, form, sys.stderr)
