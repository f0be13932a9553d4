"""Whether the files of a collection are as they were written: nothing damaged is answered from.

Reading everything at each opening would cost too much, so a file is believed while its size and its time of last change
are those of the manifest, and compared by checksum otherwise. What changes without a trace is found by
`clipsieve check`, which compares everything.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clipsieve.errors import CollectionChanged, CollectionDamaged, CollectionError
from clipsieve.manifest import File, Manifest, read_manifest

Progress = Callable[[int, int], None]


def files_of(manifest: Manifest) -> list[File]:
    """All files that a manifest names."""
    files = [file for shard in manifest.shards for file in shard.files.values()]
    files += [file for index in manifest.indices for file in index.files.values()]
    return files if manifest.removed is None else [*files, manifest.removed]


def describe_file(folder: Path, path: Path) -> File:
    """The manifest's entry for a file in the folder as it is now."""
    status = path.stat()
    checksum = _checksum(path, status.st_size)
    return File(path.relative_to(folder).as_posix(), status.st_size, checksum, status.st_mtime_ns)


def require_whole(folder: Path, manifest: Manifest, progress: Progress | None = None) -> None:
    """CollectionDamaged names the files that are missing, or were changed since they were written.

    A file that was touched or copied is read once: if it is whole, it gets the manifest's time of last change, where
    that may be set.

    progress  called with (bytes compared, bytes to compare), if there are any
    """
    bad, suspects = [], []
    for file in files_of(manifest):
        try:
            status = (folder / file.path).stat()
        except FileNotFoundError:
            bad.append(f"{file.path} is missing.")
            continue
        if not file.sha256 or file is manifest.removed:  # another program's; or it is compared whenever it is read
            continue
        if status.st_size != file.size or status.st_mtime_ns != file.mtime_ns:
            suspects.append(file)
    total, done = sum(file.size for file in suspects), 0
    for file in suspects:
        problem = problem_of(folder, file)
        if problem is not None:
            bad.append(problem)
        else:
            with contextlib.suppress(OSError):  # not ours, or on a read-only disk: it is compared each time
                os.utime(folder / file.path, ns=(file.mtime_ns, file.mtime_ns))
        done += file.size
        if progress is not None:
            progress(done, total)
    if bad:
        more = f" ({len(bad) - 1} more of its files are damaged.)" if len(bad) > 1 else ""
        raise CollectionDamaged(
            f"{folder / bad[0]}{more} Restore it from a copy, or run `clipsieve check {folder} --repair`."
        )


@contextlib.contextmanager
def reading(folder: Path, files: Iterable[File]) -> Iterator[None]:
    """Around reading files of a collection that was opened a while ago.

    CollectionChanged if a later commit did without one of them; CollectionDamaged if it has changed otherwise.
    """
    files = list(files)
    _require_same(folder, files)
    try:
        yield
    except (OSError, ValueError, RuntimeError):
        _require_same(folder, files)  # gone just now?
        raise


class Watch:
    """Files that are mapped, or read again and again, while a collection is open: whether they are still the same.

    One that is gone is passed over: what is mapped of it stays as it was. Safe to use from several threads at once.
    """

    def __init__(self, folder: Path, files: Iterable[File]) -> None:
        self._folder = folder
        self._files = [(os.fspath(folder / file.path), file) for file in files]
        self._seen = [_signature(path) for path, _ in self._files]
        self._bad: dict[str, tuple[_Signature, CollectionError]] = {}
        self._lock = threading.Lock()

    def touched(self) -> bool:
        """Whether a file has another inode, size or time of last change than when it was last found to be whole."""
        for (path, _), seen in zip(self._files, self._seen, strict=True):
            now = _signature(path)
            if now != seen and now is not None:
                return True
        return False

    def require_same(self) -> bool:
        """Whether a file was touched or replaced and still holds the same, so that it is to be opened again.

        CollectionDamaged if one holds something else; CollectionChanged if a later commit, or the other program that
        it is of, wrote it.
        """
        if not self.touched():
            return False
        with self._lock:
            found = False
            for at, (path, file) in enumerate(self._files):
                now = _signature(path)
                if now is None or now == self._seen[at]:
                    continue
                if path in self._bad and self._bad[path][0] == now:
                    raise self._bad[path][1]  # compared before
                if not file.sha256:
                    raise CollectionChanged(
                        f"{path} was changed by another program since it was opened; open it again."
                    )
                if problem_of(self._folder, file) is not None:
                    self._bad[path] = (now, why_absent(self._folder, file))
                    raise self._bad[path][1]
                self._seen[at] = now
                found = True
            return found


_Signature = tuple[int, int, int] | None


def _signature(path: str) -> _Signature:
    """Inode, size and time of last change; None where there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path would take as long as the rest, many times a question
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _require_same(folder: Path, files: Iterable[File]) -> None:
    for file in files:
        try:
            status = (folder / file.path).stat()
        except FileNotFoundError:
            raise why_absent(folder, file) from None
        same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        if file.sha256 and not same and problem_of(folder, file) is not None:
            raise why_absent(folder, file)


def why_absent(folder: str | os.PathLike[str], file: File) -> CollectionError:
    """The error for a file that is not there, or not as it was: CollectionChanged if a later commit is without it."""
    try:
        now = files_of(read_manifest(Path(folder)))
    except CollectionError:  # another program's
        now = [file]
    if file not in now:
        return changed(folder)
    path = Path(folder) / file.path
    what = "has changed" if path.exists() else "is missing"
    return CollectionDamaged(f"{path} {what}; run `clipsieve check`, then restore or embed again what it names.")


def changed(folder: str | os.PathLike[str]) -> CollectionChanged:
    """The error for what a later commit did away with."""
    return CollectionChanged(f"{folder} was compacted or indexed anew since it was opened; open it again.")


def verify(folder: str | os.PathLike[str], manifest: Manifest, progress: Progress | None = None) -> dict[str, str]:
    """Read every file that the manifest names; its path -> a sentence, for each that disagrees.

    A file without a known checksum (clip-retrieval's) is checked for size alone.

    progress  called with (bytes read, bytes to read)
    """
    files = files_of(manifest)
    total, done, bad = sum(file.size for file in files), 0, {}
    for file in files:
        problem = problem_of(folder, file)
        if problem is not None:
            bad[file.path] = problem
        done += file.size
        if progress is not None:
            progress(done, total)
    return bad


def problem_of(folder: str | os.PathLike[str], file: File) -> str | None:
    """A sentence if a file of the folder is not as the manifest has it; it is read for that.

    Lines appended to a file that only grows (.jsonl) are no disagreement.
    """
    path = Path(folder) / file.path
    if not path.is_file():
        return f"{file.path} is missing."
    size = path.stat().st_size
    if size != file.size and not (size > file.size and path.suffix == ".jsonl"):
        return f"{file.path} has {size:,} bytes; the manifest says {file.size:,}."
    if file.sha256 and _checksum(path, file.size) != file.sha256:
        return f"{file.path} has changed: its checksum is not the manifest's."
    return None


def _checksum(path: Path, size: int) -> str:
    """SHA-256 of the file's first `size` bytes, in lowercase hex."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
