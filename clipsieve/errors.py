"""Every error clipsieve raises on purpose.

    ClipsieveError
    ├── InputError (ValueError)                       an argument, a file or a request says something impossible
    │   └── ModelMismatch                             vectors of two models were about to meet
    ├── TooLarge (ValueError)                         an image takes more memory than all together may
    ├── NotFound (KeyError)                           no such id, key, class, set or collection name
    ├── ModelUnavailable (OSError)                    weights could not be fetched or opened
    ├── MissingExtra (ImportError)                    an optional package is needed and not installed
    ├── Overloaded (BlockingIOError)                  too much is waiting already; come later
    ├── TimedOut (TimeoutError)                       it was not done in the time that the caller gave
    ├── Closed (RuntimeError)                         what was asked has been closed
    ├── StoreUnavailable (ConnectionError)            where configurations are kept does not answer
    ├── StoredDamaged (ValueError)                    a stored class set or configuration is none
    ├── ServiceUnavailable (ConnectionError)          a service that was to be asked cannot be reached
    └── CollectionError (OSError)                     something about the folder
        ├── CollectionMissing (FileNotFoundError)     there is no collection there
        ├── CollectionDamaged (ValueError)            files and manifest disagree
        ├── CollectionChanged                         it was rewritten since it was opened
        ├── CollectionLocked (BlockingIOError)        another writer is at work
        └── CollectionReadOnly (PermissionError)      it may be read, not written

In parentheses stands the builtin that each one also is, so that `except ValueError` or `except KeyError` around a
call keeps working for callers who never heard of clipsieve.

Each takes one argument, a sentence that names the input and says what to do about it; `str(error)` is that sentence.
Input that may be long is put into it by `quoted`.
"""

import errno

MOST_REPEATED, MOST_SENTENCE = 200, 1_800
"""Letters of what was given that an error repeats, and of its whole sentence."""


def quoted(given: object, quotes: str | None = None, most: int = MOST_REPEATED) -> str:
    """What was given, as an error repeats it: as Python writes it, and where that is long its beginning and its length.

    quotes  what stands around a text that is repeated as it is; None for Python's way
    """
    cut = isinstance(given, str | bytes | bytearray) and len(given) > most
    begin = given[:most] if cut else given  # type: ignore[index]  # before it is written: what is long may be very long
    text = f"{quotes}{begin}{quotes}" if quotes is not None else repr(begin)
    if cut:
        return f"{text[:most]}... ({len(given):,} letters)"  # type: ignore[arg-type]
    return text if len(text) <= most + 2 else f"{text[:most]}... ({len(text):,} letters)"


def without_middle(text: str, most: int = MOST_SENTENCE) -> str:
    """A text of at most about so many letters: its beginning and its end, where it is longer."""
    end = most // 4
    return text if len(text) <= most else f"{text[: most - end]} ... {text[-end:]}"


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory, or no thread, to be had: each library says it in its own way.

    So does an error that another one caused, which libraries put into words of their own.
    """
    if isinstance(error, ClipsieveError):
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    said = str(error).lower()
    return any(words in said for words in _NO_MEMORY) or (error.__cause__ is not None and lacks_memory(error.__cause__))


_NO_MEMORY = ("cuda out of memory", "allocate memory", "bad_alloc", "start new thread", "failed to map segment")


class ClipsieveError(Exception):
    """Base of the tree: `except ClipsieveError` catches every expected failure and no bug."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes and all.
        return without_middle(str(self.args[0])) if self.args else ""


class InputError(ClipsieveError, ValueError):
    """What the caller passed cannot be meant."""


class ModelMismatch(InputError):
    """Vectors made by different models were about to be compared; the numbers would mean nothing."""


class TooLarge(ClipsieveError, ValueError):
    """An image takes more memory to decode than all images together may."""


class NotFound(ClipsieveError, KeyError):
    """The thing asked for by name or id does not exist here."""


class ModelUnavailable(ClipsieveError, OSError):
    """A model's weights could not be fetched or opened. Nothing is used in its place."""


class MissingExtra(ClipsieveError, ImportError):
    """An optional package is missing; the message names the extra that brings it."""


class Overloaded(ClipsieveError, BlockingIOError):
    """More waits for the model than is let wait. Nothing of the request was done.

    retry_after  seconds in which about all that waits now should be done
    """

    def __init__(self, sentence: str, retry_after: float = 1.0) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class TimedOut(ClipsieveError, TimeoutError):
    """The time that the caller gave is over. What of the request still waited is not done."""


class Closed(ClipsieveError, RuntimeError):
    """The object has been closed, or what it works with has stopped; it takes nothing more."""


class StoreUnavailable(ClipsieveError, ConnectionError):
    """Where deployed configurations are kept cannot be reached, or cannot be written."""


class StoredDamaged(ClipsieveError, ValueError):
    """A class set or a configuration that a service keeps cannot be read; it can be stored again."""


class ServiceUnavailable(ClipsieveError, ConnectionError):
    """The service that a client was to ask cannot be reached at its address."""


class CollectionError(ClipsieveError, OSError):
    """A collection folder cannot be used as asked."""


class CollectionMissing(CollectionError, FileNotFoundError):
    """The folder holds no collection, or there is no folder."""


class CollectionDamaged(CollectionError, ValueError):
    """A file of the collection is missing, cut short, or not what the manifest says. It is never answered from."""


class CollectionChanged(CollectionError):
    """What was asked for went in a later commit than the one that was opened. Opened again, it can be asked again."""


class CollectionLocked(CollectionError, BlockingIOError):
    """Another writer holds the folder; the message says who and since when."""


class CollectionReadOnly(CollectionError, PermissionError):
    """The folder opens for reading only, as those of clip-retrieval do."""
