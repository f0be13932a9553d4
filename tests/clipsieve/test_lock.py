import errno
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from clipsieve.errors import CollectionLocked, CollectionReadOnly
from clipsieve.lock import NAME, wait_until_free, writer_lock


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


def test_waiting_ends_when_the_writer_does(tmp_path):
    held, end = threading.Event(), threading.Event()

    def write():
        with writer_lock(tmp_path):
            held.set()
            assert end.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    assert held.wait(30)
    waiting = threading.Thread(target=wait_until_free, args=(tmp_path, 0.01))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    end.set()
    waiting.join(30)
    writer.join()
    assert not waiting.is_alive()
    with writer_lock(tmp_path):
        pass
