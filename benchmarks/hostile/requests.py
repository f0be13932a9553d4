"""Requests: filters without an end, pictures that fill the memory, heads, data URLs and long errors."""

from __future__ import annotations

import base64
import io
import socket
import struct
import time
import urllib.parse
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.hostile.attack import Attacks
from benchmarks.hostile.lab import Answer, Lab, clipsieve, jpeg, require

ATTACKS = Attacks()
ALONE = (12, 11)
"""Numbers of attacks on the service's memory and threads, in the order in which they disturb each other least."""

FILTERS: dict[str, str] = {
    "instr": "instr(printf('%.*c',3000000,'a')||id, printf('%.*c',100000,'a')||'b')>0",
    "replace": "length(replace(printf('%.*c',1000000,'a'),'a',printf('%.*c',60,'b')))>0",
    "trim": "length(trim(printf('%.*c',3000000,'a'),printf('%.*c',100000,'b')||'a'))>=0",
    "like": f"printf('%.*c',3000000,'a') like '{'%a' * 30}b'",
    "glob": f"printf('%.*c',3000000,'a') glob '{'*a' * 30}b'",
    "doubled": "length(" + "replace(" * 24 + "'a'" + ",'a','aa')" * 24 + ")>0",
}
HELD_S = 10.0


@ATTACKS.add(11, FILTERS)
def a_filter_ends(lab: Lab, folder: Path, where: str) -> str:
    start = time.monotonic()
    answer = lab.service.search(where=where)
    took = time.monotonic() - start
    require(took < HELD_S, f"{answer.status} after {took:.0f} s")
    require(answer.status != 0 and b"error of the service" not in answer.body, f"{answer.status} {answer.body[:150]!r}")
    return f"{answer.status} after {took:.1f} s"


@ATTACKS.add(11, {"two megabytes": "id >= 0 and caption != '" + "a" * 2_000_000 + "'"})
def a_long_filter_is_refused(lab: Lab, folder: Path, where: str) -> str:
    return lab.service.search(where=where).refused()


@ATTACKS.add(11, {"whose clients leave": "leave", "whose clients wait": "wait"})
def filters_that_take_every_thread(lab: Lab, folder: Path, how: str) -> str:
    def ask(_: int) -> None:
        where = FILTERS["instr"]
        if how == "wait":
            lab.service.search(where=where)
            return
        body = b'{"collection":"demo","class":{"positive":["red"]},"where":"%s"}' % where.encode()
        with socket.create_connection(("127.0.0.1", lab.service.port)) as connection:
            head = "POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.5)

    with ThreadPoolExecutor(33) as pool:
        asked = [pool.submit(ask, i) for i in range(33)]
        time.sleep(2)
        start = time.monotonic()
        answer = lab.service.search(text="blue")
        took = time.monotonic() - start
        for one in asked:
            one.exception()
    require(answer.status == 200 and took < HELD_S, f"{answer.status} after {took:.0f} s for somebody else")
    return f"somebody else waits {took:.1f} s"


WIDTH, HEIGHT = 9400, 9500
MOST = 500 << 20


def _png(shade: int = 0) -> bytes:
    """RGBA of one colour, in about 350 kB."""
    packer = zlib.compressobj(6)
    line = b"\0" + bytes([200, 30, shade, 128]) * WIDTH
    data = b"".join(packer.compress(line) for _ in range(HEIGHT)) + packer.flush()
    parts = ((b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 6, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts
    )


def _jpeg(progressive: bool, shade: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (200, 30, shade)).save(sink, "JPEG", progressive=progressive)
    return sink.getvalue()


PICTURES: dict[str, tuple[Callable[[int], bytes], int, bool]] = {
    "a PNG": (_png, 1, True),
    "four PNGs at once": (_png, 4, False),
    "a baseline JPEG": (lambda shade: _jpeg(False, shade), 1, True),
    "four progressive JPEGs at once": (lambda shade: _jpeg(True, shade), 4, False),
}


@ATTACKS.add(12, PICTURES)
def pictures_stay_below_500_mb_each(lab: Lab, folder: Path, given: tuple[Callable[[int], bytes], int, bool]) -> str:
    make, at_once, answered = given
    images = [base64.b64encode(make(10 * at_once + i)).decode() for i in range(at_once)]
    server = lab.service.server()
    Path(f"/proc/{server}/clear_refs").write_text("5")
    before = _memory(server, "VmRSS")
    with ThreadPoolExecutor(at_once) as pool:
        statuses = [answer.status for answer in pool.map(lambda image: lab.service.knn(image=image), images)]
    grew = _memory(server, "VmHWM") - before
    seen = f"{grew >> 20} MB more at the peak, {statuses}"
    require(grew < MOST * (1 if answered else at_once), seen)
    require(all(status in ({200} if answered else {200, 413, 503}) for status in statuses), seen)
    return seen


def _memory(pid: int, what: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{what}:")[1].split()[0]) * 1024


WAYS: dict[str, tuple[str, bytes]] = {
    "/knn-service": ("/knn-service", b'{"text":"red","modality":"image","num_images":1,"indice_name":"demo"}'),
    "/metadata": ("/metadata", b'{"ids":[0],"indice_name":"demo"}'),
    "KServe": (
        "/v2/models/embed_text/infer",
        b'{"inputs":[{"name":"INPUT_TEXT","shape":[1,1],"datatype":"BYTES","data":["a"]}]}',
    ),
    "/api/v1/search": ("/api/v1/search", b'{"collection":"demo","class":{"positive":["red"]}}'),
}


@ATTACKS.add(18, WAYS)
def a_long_header_line_is_refused(lab: Lab, folder: Path, given: tuple[str, bytes]) -> str:
    answer = lab.service.ask(given[0], given[1], {"User-Agent": "a" * 20_000})
    require(400 <= answer.status < 500, f"{answer.status}: {answer.body[:100]!r}")
    return str(answer.status)


PLAIN = base64.b64encode(jpeg("red")).decode()
URLS: dict[str, dict[str, Any]] = {
    "upper case": {"input": f"DATA:image/jpeg;base64,{PLAIN}"},
    "upper case in all": {"input": f"DATA:IMAGE/JPEG;BASE64,{PLAIN}"},
    "another type": {"input": f"data:application/octet-stream;base64,{PLAIN}"},
    "no type": {"input": f"data:;base64,{PLAIN}"},
    "a parameter": {"input": f"data:image/jpeg;name=a.jpg;base64,{PLAIN}"},
    "blanks before": {"input": f" \ndata:image/jpeg;base64,{PLAIN}"},
    "percent-encoded": {"input": f"data:image/jpeg,{urllib.parse.quote(jpeg('red'))}"},
    "urlsafe": {"input": f"data:image/jpeg;base64,{base64.urlsafe_b64encode(jpeg('red')).decode()}"},
    "an address as an image": {"input": "https://example.com/x.png", "modality": "image"},
    "a list with an address": {"input": ["a", "https://example.com/x.png"], "modality": "image"},
}


@ATTACKS.add(18, URLS)
def a_data_url_is_an_image_or_an_error(lab: Lab, folder: Path, given: dict[str, Any]) -> str:
    answer = lab.service.embed(given["input"], **{k: v for k, v in given.items() if k != "input"})
    if answer.status != 200:
        return answer.refused()
    wanted = lab.service.embed(f"data:image/jpeg;base64,{PLAIN}").json["data"][0]["embedding"]
    got = answer.json["data"][0]["embedding"]
    require(max(abs(a - b) for a, b in zip(wanted, got, strict=True)) < 1e-3, "200 and the vector of the letters")
    return "the image's vector"


@ATTACKS.add(
    18,
    {
        "urlsafe base64": {"image": base64.urlsafe_b64encode(jpeg("red", (61, 40), quality=97)).decode()},
        "no base64": {"image": "!!!!"},
        "a data URL as image": {"image": f"data:image/jpeg;base64,{PLAIN}"},
        "a data URL as address": {"image_url": "data:image/jpeg;base64," + "A" * 300_000},
    },
)
def an_image_of_knn_service(lab: Lab, folder: Path, given: dict[str, Any]) -> str:
    answer = lab.service.knn(**given)
    if answer.status == 200:
        return "200"
    said = answer.refused(1000)
    require("0 bytes" not in said and ("image" not in given or "base64" in said.lower()), said)
    return said


Ask = Callable[[Lab, str], Answer]
ECHOES: dict[str, Ask] = {
    "a filter": lambda lab, text: lab.service.search(where=f"nothing = '{text}'"),
    "a collection": lambda lab, text: lab.service.search(text),
    "an index": lambda lab, text: lab.service.ask("/metadata", {"ids": [0], "indice_name": text}),
    "a modality": lambda lab, text: lab.service.knn(text="red", modality=text),
    "an address": lambda lab, text: lab.service.knn(image_url=f"gopher://x/{text}"),
    "a format": lambda lab, text: lab.service.embed("a", encoding_format=text),
    "a tensor": lambda lab, text: lab.service.ask("/v2/models/embed_text/infer", {"inputs": [{"name": text}]}),
    "an id": lambda lab, text: lab.service.ask(f"/api/v1/items/{text[:3000]}?collection=demo"),
    "a deploy body": lambda lab, text: lab.service.ask(
        "/deploy_classifier", b'{"classifier_configs": "' + text.encode()
    ),
    "a class": lambda lab, text: lab.service.ask(
        "/api/v1/sets/a?collection=demo", {"classes": [{text: 1}]}, method="PUT"
    ),
}


@ATTACKS.add(18, ECHOES)
def an_error_repeats_little(lab: Lab, folder: Path, ask: Ask) -> str:
    answer = ask(lab, "QZ" * 5000)
    said = answer.refused(100_000)
    repeated = answer.body.count(b"QZ") * 2
    require(repeated <= 200, f"{answer.status} with {repeated:,} letters of what was sent")
    return said


@ATTACKS.add(18, {"a large PNG": "png", "many images": "many"})
def without_memory(lab: Lab, folder: Path, kind: str) -> str:
    (folder / "p").mkdir()
    (folder / "p" / "a.jpg").write_bytes(jpeg())
    if kind == "png":
        (folder / "p" / "b.png").write_bytes(_png())
    done = clipsieve(
        "inference", "p", "c.clip", "--model", "mini", cwd=folder, memory=(900 if kind == "png" else 60) << 20
    )
    require(done.code is not None and done.code >= 0, f"signal or no end: {done.code}")
    require("Traceback" not in done.err, f"a traceback: {done.err[-200:]}")
    require(done.code == 0 or done.err.strip(), "no word")
    return f"exit code {done.code}: {done.said[-150:]}"
