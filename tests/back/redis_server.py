"""A real redis-server for a test: the machine's own, or Debian's package unpacked beside the test. Never left out."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

PASSWORD = "pass word/1"
"""One that an address must quote."""

PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "liblua5.1-0", "lua-cjson", "lua-bitop")


@dataclass
class RedisServer:
    """A running server: its address with user and password, and its process."""

    address: str
    port: int
    process: subprocess.Popen[bytes]

    def client(self) -> redis.Redis:
        """A connection of the test's own."""
        return redis.Redis(port=self.port, password=PASSWORD)


def find_server(folder: Path) -> tuple[str, dict[str, str]]:
    """The program and its environment. Fails with apt's words where neither it nor its package can be had."""
    found = shutil.which("redis-server")
    if found is not None:
        return found, dict(os.environ)
    words = ["apt-get", "download", *PACKAGES]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:  # a machine that never asked for Debian's lists
        subprocess.run(["apt-get", "update"], capture_output=True)
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"redis-server is needed and cannot be had; install it. {done.stderr}"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    libraries = {str(path.parent) for path in (folder / "root").rglob("*.so*")}
    return str(folder / "root" / "usr" / "bin" / "redis-server"), {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}


@contextlib.contextmanager
def running_redis(folder: Path, port: int | None = None) -> Iterator[RedisServer]:
    """A server with a password, as DirectAI's container starts it: every write is in `folder` before it is answered."""
    program, env = find_server(folder)
    port = port or _free_port()
    options = {"port": port, "bind": "127.0.0.1", "requirepass": PASSWORD, "appendonly": "yes", "appendfsync": "always"}
    words = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    quoted = PASSWORD.replace(" ", "%20").replace("/", "%2F")
    address = f"redis://default:{quoted}@127.0.0.1:{port}/0"
    with subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        server = RedisServer(address, port, process)
        try:
            _wait(server)
            yield server
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _wait(server: RedisServer) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with server.client() as client:
                client.ping()
            return
        except redis.RedisError:
            said = server.process.communicate()[0] if server.process.poll() is not None else b"no answer"
            assert server.process.returncode is None, said.decode()
            assert time.monotonic() < deadline, said.decode()
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
