"""`clipsieve back` as a process of its own."""

import contextlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Service:
    """A running service: its address, and its process."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, path, body=None, headers=None):
        """GET, or POST bytes or a value as JSON; status, headers, and the answer as JSON or text."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, _value(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers, _value(answer)


def _value(answer):
    text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


@contextlib.contextmanager
def running(*arguments, command=("back",), port="--port", env=None) -> Iterator[Service]:
    """The command on a free port, until the block ends."""
    words = [sys.executable, "-m", "clipsieve", *command, *map(str, arguments), port, "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env) as process:
        said = []
        try:
            for line in process.stderr or ():
                said.append(line)
                found = re.search(r"Serving .* at (http://\S+)", line)
                if found:
                    yield Service(found[1], process)
                    return
            raise AssertionError(f"it never served: {''.join(said)}")
        finally:
            process.terminate()
            process.stderr.read()  # so that it never waits for somebody to read
            process.wait(60)
