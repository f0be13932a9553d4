"""`clipsieve back` as a process of its own."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Service:
    """A running service: its address, its process, and the lines that it wrote on stderr so far."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)

    def ask(self, path, body=None, headers=None, method=None):
        """GET, or POST bytes or a value as JSON; status, headers, and the answer as JSON or text."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, _value(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers, _value(answer)

    def wait_for(self, pattern, seconds=60):
        """The match of a line that it says, or has said."""

        def find():
            ended = self.process.poll() is not None
            found = next(filter(None, (re.search(pattern, line) for line in list(self.said))), None)
            assert found or not ended, f"it ended: {''.join(self.said)}"
            return found

        return poll(find, seconds, lambda: "".join(self.said))


def poll(found, seconds=60, otherwise=lambda: "it did not come to pass"):
    """What `found` returns once that is something. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.01)
    return it


def _value(answer):
    if answer.headers.get_content_maintype() == "image":
        return answer.read()
    text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" and text else text


@contextlib.contextmanager
def started(*arguments, module="clipsieve", command=("back",), port="--port", env=None) -> Iterator[Service]:
    """The command on a free port, until the block ends."""
    words = [sys.executable, "-m", module, *command, *map(str, arguments), port, "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env) as process:
        service = Service(process)
        reader = threading.Thread(target=lambda: service.said.extend(iter(process.stderr.readline, "")))
        reader.start()
        try:
            yield service
        finally:
            process.terminate()
            process.wait(60)
            reader.join()


@contextlib.contextmanager
def running(*arguments, **options) -> Iterator[Service]:
    """The same, once it serves."""
    with started(*arguments, **options) as service:
        service.url = service.wait_for(r'Serving .* at (http://[^\s"]+)')[1]
        yield service
