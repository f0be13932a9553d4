"""Long work that is asked for over HTTP: a queue of jobs that one thread does one after another, kept as files.

    jobs/ID.json    what became of it so far, replaced at once
    jobs/ID/        what is asked, what is needed to go on, and in the end the result

A service that is killed finds them again: what was running waits once more. What the work is, is passed in.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from clipsieve.back.job import DAYS, FINISHED, KEPT, SKIPPED, Job, Pace, Result, outdated
from clipsieve.durable import TEMPORARY, write_file
from clipsieve.errors import ClipsieveError, CollectionLocked, NotFound, Overloaded, StoreUnavailable, quoted

log = logging.getLogger("clipsieve.back")

JOBS = "jobs"
"""The folder of a collection, or of its state, in which jobs lie."""
LOCK = "lock"

MOST_WAITING = 100

NICE = 15
"""Jobs stand back behind requests for the processors."""


class Stopped(Exception):
    """The job is cancelled, or the service ends: the work lets go here, and may go on from what it has written."""


Tell = Callable[[str, int, int | None], None]
"""(stage, done, total): how far the work is. It raises Stopped where the work is to end."""

Work = Callable[[Job, Path, Tell], Result]
"""Does a job whose folder this is. A ClipsieveError or OSError is its failure, in a sentence."""


class Jobs:
    """Jobs in a folder, and the thread that does them. Safe to use from several threads at once."""

    def __init__(self, folder: Path, work: Work, *, temporary: bool = False, clock: Callable[[], float] = time.time):
        """Find the jobs that lie there. Nothing is done before `start`.

        temporary  remove the folder in the end

        CollectionLocked where another service has the folder; OSError where it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._held = _hold(folder / LOCK)
        self._work, self._temporary, self._clock = work, temporary, clock
        self._cancelled: set[str] = set()
        self._stopping = False
        self._changed = threading.Condition()  # guards all of it
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._jobs = {job.id: job for job in _read_all(folder)}
        for job in list(self._jobs.values()):
            if job.state == "running":
                self._set(job, state="waiting", rate=None)
        self._tidy()

    def start(self) -> None:
        """Begin with what waits."""
        self._thread.start()

    def add(self, kind: str, collection: str, format: str, title: str, write: Callable[[Path], object]) -> Job:
        """A new job, which waits for its turn. `write` puts what the work needs to know into the job's folder.

        Overloaded where too many wait; StoreUnavailable where it cannot be kept.
        """
        job = Job(uuid.uuid4().hex, kind, collection, format, title, self._clock())
        with self._changed:
            if sum(other.state == "waiting" for other in self._jobs.values()) >= MOST_WAITING:
                raise Overloaded(f"{MOST_WAITING} jobs wait already; ask again when some are done.", 60.0)
            self._tidy()
        folder = self.folder / job.id
        try:
            folder.mkdir()
            write(folder)
            self._write(job)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise StoreUnavailable(f"The job cannot be kept in {self.folder} ({error}).") from error
            raise
        with self._changed:
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job

    def __getitem__(self, id: str) -> Job:
        """The job as it is now. NotFound if there is none."""
        with self._changed:
            if id not in self._jobs:
                raise NotFound(f"There is no job {quoted(id)}; finished ones are kept for {DAYS} days, {KEPT} of them.")
            return self._jobs[id]

    def all(self) -> list[Job]:
        """All of them, the newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.made)

    def path(self, id: str, name: str) -> Path:
        """A file of a job."""
        return self.folder / self[id].id / name

    def cancel(self, id: str) -> Job | None:
        """Take a job back: one that waits is cancelled at once, one that runs as soon as its work looks.

        A finished one is removed with its result, and None is returned. NotFound if there is none.
        """
        with self._changed:
            job = self[id]
            if job.state in FINISHED:
                self._remove(id)
                return None
            if job.state == "running":
                self._cancelled.add(id)
                return job
            return self._end(job, state="cancelled")

    def close(self, seconds: float = 20.0) -> None:
        """Let the running job stop where it can go on later, and end the thread. Another service may take the folder.

        seconds  to wait for that; a job that takes longer is found as one that was killed
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._held.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> None:
        if sys.platform == "linux":  # there a thread has a priority of its own, which those that it starts inherit
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(nice, NICE))
        while (job := self._next()) is not None:
            self._do(job)

    def _next(self) -> Job | None:
        """The job whose turn it is, once there is one; None when the service ends."""
        with self._changed:
            while not self._stopping:
                waiting = [job for job in self._jobs.values() if job.state == "waiting"]
                if waiting:
                    first = min(waiting, key=lambda job: job.made)
                    return self._set(first, state="running", began=first.began or self._clock())
                self._changed.wait()
        return None

    def _do(self, job: Job) -> None:
        pace = Pace()

        def tell(stage: str, done: int, total: int | None) -> None:
            with self._changed:
                if self._stopping or job.id in self._cancelled:
                    raise Stopped
                rate = pace.at(stage, done, time.monotonic())
                now = self._jobs[job.id]
                self._jobs[job.id] = dataclasses.replace(now, stage=stage, done=done, total=total, rate=rate)

        ended: dict[str, Any]
        try:
            tell("", 0, None)
            result = self._work(job, self.folder / job.id, tell)
            size = (self.folder / job.id / result.file).stat().st_size
        except Stopped:
            ended = {"state": "waiting"}
        except (ClipsieveError, OSError) as error:
            ended = {"state": "failed", "message": str(error)}
            log.warning("Job %s (%s) failed: %s", job.id, job.kind, error)
        except Exception:
            ended = {"state": "failed", "message": f"This is an error of the service; its log has it as job {job.id}."}
            log.exception("Job %s (%s) failed", job.id, job.kind)
        else:
            ended = {"state": "done", "result": result.file, "bytes": size}
            ended |= {"items": result.items, "skipped": result.skipped}
        with self._changed:
            if job.id in self._cancelled:  # even if its work got through: it was said to be
                self._cancelled.discard(job.id)
                ended = {"state": "cancelled"}
            if ended["state"] == "waiting":
                self._set(self._jobs[job.id], state="waiting", rate=None)
            else:
                self._end(self._jobs[job.id], **ended)

    def _end(self, job: Job, **changes: Any) -> Job:
        """The job finished; nothing but its result stays."""
        ended = self._set(job, ended=self._clock(), rate=None, **changes)
        log.info("Job %s (%s) is %s", job.id, job.kind, ended.state)
        with contextlib.suppress(OSError):  # what stays goes with the job
            for path in (self.folder / job.id).iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in (ended.result, SKIPPED):
                    path.unlink()
        return ended

    def _set(self, job: Job, **changes: Any) -> Job:
        """The job changed, here and, if the disk lets it, in its file."""
        changed = dataclasses.replace(job, **changes)
        self._jobs[job.id] = changed
        try:
            self._write(changed)
        except OSError as error:
            log.error("Job %s is %s, which cannot be written down: %s", job.id, changed.state, error)
        return changed

    def _write(self, job: Job) -> None:
        value = json.dumps(dataclasses.asdict(job), ensure_ascii=False).encode()
        write_file(self.folder / f"{job.id}.json", lambda file: file.write(value))

    def _tidy(self) -> None:
        for id in outdated(self._jobs.values(), self._clock()):
            self._remove(id)

    def _remove(self, id: str) -> None:
        del self._jobs[id]
        (self.folder / f"{id}.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / id, ignore_errors=True)


def _hold(path: Path) -> BinaryIO:
    """The lock of a jobs folder, held until the file is closed or the process ends, however it ends."""
    import fcntl  # POSIX only, like the server itself

    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CollectionLocked(f"Another service does the jobs in {path.parent}; give this one a --state.") from None
    return file


def _read_all(folder: Path) -> list[Job]:
    """The jobs that lie in the folder. What belongs to none of them was left by a service that was killed, and goes."""
    jobs = []
    for path in sorted(folder.glob("*.json")):
        try:
            jobs.append(Job(**json.loads(path.read_bytes())))
        except (ValueError, TypeError) as error:
            log.error("%s is no job and is left alone (%s)", path, error)
    known = {path.stem for path in folder.glob("*.json")}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in known:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(TEMPORARY):
            with contextlib.suppress(OSError):
                path.unlink()
    return jobs
