import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from clipsieve import lock
from clipsieve.errors import CollectionLocked, CollectionReadOnly
from clipsieve.lock import NAME, writer_lock


def hold(folder, **changed):
    with writer_lock(folder):
        record = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps(record | changed))


def test_a_second_writer_is_told_who_and_since_when(tmp_path):
    with writer_lock(tmp_path):
        since = json.loads((tmp_path / NAME).read_text())["since"]
        with (
            pytest.raises(CollectionLocked, match=rf"process {os.getpid()} on .* since {re.escape(since)}"),
            writer_lock(tmp_path),
        ):
            pass
        with pytest.raises(CollectionLocked), writer_lock(tmp_path):
            pass  # the refused attempt must not have let go of the first one's lock
    with writer_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_may_be_written_the_folder_is_named(tmp_path, monkeypatch, number):
    def refuse(path, *_):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)  # tests/test_denied.py has a real one
    with pytest.raises(CollectionReadOnly, match=f"^{tmp_path} may be read, not written"), writer_lock(tmp_path):
        pass


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(RuntimeError), writer_lock(tmp_path):
        raise RuntimeError
    with writer_lock(tmp_path):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    hold(tmp_path, pid=int(child.stdout), started="")
    with writer_lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_that_nobody_asked_after_is_taken_over(tmp_path):
    code = "import sys\nfrom clipsieve.lock import *\nwith writer_lock(Path(sys.argv[1])): print(flush=True), input()"
    child = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        with pytest.raises(CollectionLocked), writer_lock(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and left as it is
        os.kill(process.pid, 0)  # its number is still there
        with writer_lock(tmp_path):
            pass


def test_a_process_number_given_to_somebody_new_is_not_the_writer(tmp_path):
    hold(tmp_path, started="another time")
    with writer_lock(tmp_path):
        pass


def test_another_hosts_lock_is_never_taken(tmp_path):
    hold(tmp_path, host="elsewhere", pid=2**22 + 1)
    with pytest.raises(CollectionLocked, match=f"on elsewhere.*delete .*{NAME}"), writer_lock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", '{"pid": 1', "[]"])
def test_half_a_record_is_nobodys(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with writer_lock(tmp_path):
        pass


@contextlib.contextmanager
def held_by_another(folder):
    """Another thread has the folder's lock, until the event is set or the block ends."""
    held, end = threading.Event(), threading.Event()

    def write():
        with writer_lock(folder):
            held.set()
            assert end.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    assert held.wait(30)
    try:
        yield end
    finally:
        end.set()
        writer.join()


def test_who_waits_says_so_once_and_gets_the_lock_when_the_writer_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "MOMENT", 0.0)
    with held_by_another(tmp_path) as end:
        said = []

        def waiting(why):
            said.append(why)
            threading.Timer(0.1, end.set).start()  # some more attempts later

        with writer_lock(tmp_path, waiting):
            assert end.is_set()
            with pytest.raises(CollectionLocked), writer_lock(tmp_path):
                pass
    assert len(said) == 1
    assert f"is being written by process {os.getpid()}" in said[0]


def test_nothing_is_said_about_a_moment(tmp_path):
    with held_by_another(tmp_path) as end:
        threading.Timer(0.05, end.set).start()
        with writer_lock(tmp_path, pytest.fail):
            pass
