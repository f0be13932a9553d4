"""Short questions that the thread that reads them answers: the same answers, and the usual way for all else."""

import contextlib
import json
import socket

import pytest

from clipsieve.back.direct import DIRECT, Direct
from clipsieve.back.gate import Gate, parse_rate
from clipsieve.back.guard import Policy
from clipsieve.back.knn import write_error
from clipsieve.back.meters import Meters
from clipsieve.back.notes import Reply
from clipsieve.back.plain import MOST_BYTES, MOST_HEADER
from clipsieve.back.protect import Protection, State
from clipsieve.errors import CollectionChanged, CollectionDamaged, NotFound, Overloaded
from tests.back.made import FAKE, add_items, serve
from tests.back.service import running
from tests.back.test_express import OWN, PATIENCE, posted, read

QUESTION = {"modality": "image", "num_images": 3, "indice_name": "photos", "text": "bus"}
VECTOR = {**QUESTION, "text": None, "embedding_input": FAKE.embed_texts(["cat"])[0].tolist()}
ROWS = {"ids": [2, "1"], "indice_name": "photos"}
OPEN = {"Authorization": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("direct") / "photos.clip"
    return add_items(folder, 20, url=[f"https://example.org/{i}.jpg" for i in range(20)])


@pytest.fixture
def service(folder):
    client, shelf = serve({"photos": folder})
    yield client, client.application.extensions[DIRECT]
    shelf.close()


def split(answer):
    """Status, headers and body of a whole answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def direct(answer, **parts):
    """A Direct of one path, /a."""
    return Direct({"/a": answer}, write_error, Protection(**parts), Meters())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/knn-service", QUESTION),
        ("/knn-service", VECTOR),
        ("/knn-service", {**QUESTION, "text": "wörd " * 50}),
        ("/knn-service", {**QUESTION, "text": " "}),
        ("/knn-service", {**QUESTION, "indice_name": "none such"}),
        ("/knn-service", {**QUESTION, "modality": "smell"}),
        ("/knn-service", b"{"),
        ("/metadata", ROWS),
        ("/metadata", {**ROWS, "ids": [99]}),
    ],
)
def test_answers_are_those_of_the_usual_way(service, path, body):
    client, way = service
    data = posted(body, path, **OPEN)
    status, headers, answered = split(way.answer(data, "127.0.0.1", True))
    usual = client.post(path, data=data.partition(b"\r\n\r\n")[2])
    assert (status, json.loads(answered)) == (usual.status_code, usual.json)
    assert {k: v for k, v in headers.items() if k not in OWN} == {
        k: v for k, v in usual.headers.items() if k not in OWN
    }


@pytest.mark.parametrize(
    "data",
    [
        posted(QUESTION, "/indices-list", **OPEN),
        posted(QUESTION, "/knn-service?a=1", **OPEN),
        posted(QUESTION, "/knn-service", **OPEN, Origin="http://a.example"),
        posted(QUESTION, "/knn-service", **OPEN, host="attacker.example"),
        posted(QUESTION, "/knn-service", **OPEN, **{"Content-Type": "application/x-www-form-urlencoded"}),
        posted(b"[" * 200, "/knn-service", **OPEN),
        posted(QUESTION, "/knn-service", **OPEN)[:-1],
    ],
)
def test_what_is_not_plain_goes_the_usual_way(service, data):
    assert service[1].answer(data, "127.0.0.1", True) is None


@pytest.mark.parametrize(
    "protection",
    [
        Protection(state=State(ready=False)),
        Protection(rate=parse_rate("10/s")),
        Protection(Policy(read_token="secret")),
        Protection(gate=Gate(0, 0, 1)),
    ],
)
def test_where_there_is_more_to_look_at_it_goes_the_usual_way(protection):
    way = Direct({"/a": lambda body, client: Reply(b"{}")}, write_error, protection, Meters())
    assert way.answer(posted({}, "/a", **OPEN), "127.0.0.1", True) is None


def test_a_token_for_reading_is_enough():
    way = direct(lambda body, client: Reply(b"{}"), policy=Policy(read_token="secret", write_token="other"))
    assert split(way.answer(posted({}, "/a"), "127.0.0.1", True))[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (NotFound("It is gone."), 404, None),
        (Overloaded("It is busy."), 503, "1"),
        (CollectionDamaged("It is damaged."), 503, None),
        (CollectionChanged("It changed."), None, None),
        (ZeroDivisionError("of the test"), None, None),
    ],
)
def test_errors_have_a_sentence_or_go_the_usual_way(error, status, after):
    gate = Gate(1, 1, 1)

    def fail(body, client):
        assert gate.places.held == 1
        raise error

    answer = direct(fail, gate=gate).answer(posted({}, "/a", **OPEN), "127.0.0.1", False)
    assert (gate.places.held, gate.waiting) == (0, 0)
    if status is None:
        assert answer is None
    else:
        found, headers, body = split(answer)
        assert (found, headers.get("Retry-After"), headers["Connection"]) == (status, after, "close")
        assert json.loads(body) == {"message": str(error)}


def test_who_gets_no_turn_is_told_so_and_counted():
    meters, gate = Meters(), Gate(1, 1, 0.01)
    way = Direct({"/a": lambda body, client: Reply(b"{}")}, write_error, Protection(gate=gate), meters)
    with contextlib.ExitStack() as stack:
        assert gate.begin()
        stack.callback(gate.end)
        status, headers, body = split(way.answer(posted({}, "/a", **OPEN), "127.0.0.1", True))
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "busy" in json.loads(body)["message"]
    refused = meters.registry.get_sample_value("clipsieve_requests_refused_total", {"reason": "busy"})
    assert refused == 1
    assert split(way.answer(posted({}, "/a", **OPEN), "127.0.0.1", True))[0] == 200
    for code, count in (("503", 1), ("200", 1)):
        labels = {"route": "/a", "method": "POST", "status": code}
        assert meters.registry.get_sample_value("clipsieve_requests_total", labels) == count


def test_how_much_is_missing_of_a_request():
    way = direct(lambda body, client: b"{}")
    whole = posted(b"[1, 2]", "/a", **OPEN)
    assert [way.missing(whole[:-n]) for n in (1, 6)] == [1, 6]
    assert way.missing(whole[:-8]) >= 1
    assert way.missing(whole) == way.missing(posted(b"[1, 2]", "/b", **OPEN)[:-1]) == way.missing(b"GET /a") == 0
    assert way.missing(posted(b"1" * (MOST_BYTES + 1), "/a", **OPEN)[:-1]) == 0


# ------------------------------------------------------------------------------------------------- in the real server


@pytest.mark.slow
def test_a_connection_goes_from_one_way_to_the_other_and_back(folder):
    whole = posted(VECTOR, "/knn-service", **OPEN)
    head, end, body = whole.partition(b"\r\n\r\n")
    with running(folder) as started:
        host, _, port = started.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as connection, connection.makefile("rb") as file:

            def answers(*parts, count=1):
                for part in parts:
                    connection.sendall(part)
                return [read(file) for _ in range(count)]

            first = answers(whole)[0]
            assert first[0] == 200
            assert "Server" not in first[1]  # gunicorn's own mark
            assert answers(head, end + body)[0][2] == first[2]  # as http.client and requests send it
            assert answers(head[:30], head[30:] + end, body)[0][2] == first[2]
            for size, status in ((MOST_HEADER, 200), (MOST_HEADER + 1, 431)):  # on this way and on the usual one
                for path in ("/knn-service", "/knn-service?"):
                    with socket.create_connection((host, int(port)), PATIENCE) as other, other.makefile("rb") as said:
                        other.sendall(posted(VECTOR, path, **OPEN, Accept="a" * (size - len("Accept: \r\n"))))
                        assert read(said)[0] == status
            assert answers(posted(QUESTION | {"modality": 3}, "/knn-service", **OPEN))[0][0] == 400
            status, headers, listed = answers(posted(VECTOR, "/knn-service", **OPEN, **{"X-Other": "1"}))[0]
            assert (status, listed, "Server" in headers) == (200, first[2], True)
            pair = answers(whole + whole, count=2)  # without waiting
            assert [one[2] for one in pair] == [first[2]] * 2
            assert answers(whole)[0][2] == first[2]
        lines = [line for line in started.said if "/knn-service" in line]
        assert len(lines) == 10
        assert all("request_id" in line for line in lines)
