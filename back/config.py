"""Which collections a service serves: folders, or clip-retrieval's indices_paths.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsieve.errors import InputError, quoted

IGNORED = (
    "enable_hdf5",
    "enable_faiss_memory_mapping",
    "reorder_metadata_by_ivf_index",
    "use_jit",
    "use_arrow",
    "enable_mclip_option",
    "provide_safety_model",
    "provide_violence_detector",
    "provide_aesthetic_embeddings",
)
"""Options of clip-retrieval that ask for what is found out from the folder, or is given to the service as a whole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A collection to serve.

    model    what its questions are embedded with, where the folder does not say
    columns  metadata columns to answer with; None for those of the service
    """

    name: str
    folder: Path
    model: str | None = None
    columns: tuple[str, ...] | None = None


def entries_of(folders: Sequence[Path], model: str | None = None) -> list[Entry]:
    """One per folder, named after it without ".clip". InputError where two have one name."""
    entries = [Entry(folder.resolve().name.removesuffix(".clip"), folder, model) for folder in folders]
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1:
            raise InputError(f"Two folders are called {quoted(entry.name)}; name them in a file for --indices-paths.")
    return entries


def read_indices_paths(path: Path, model: str | None = None) -> tuple[list[Entry], list[str]]:
    """The entries of a file {name: folder} or {name: {"indice_folder": folder, option: value}}, and notes about it.

    model  for entries that name none; no entry takes anything from another one

    InputError says what is wrong, and where.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; name a collection's folder, or a file for --indices-paths.") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}).") from None
    if not isinstance(value, dict) or not value:
        raise InputError(f'{path} names no collection; it has the shape {{"photos": "folder of the collection"}}.')
    entries, ignored = [], set()
    for name, given in value.items():
        options: Mapping[str, Any] = {"indice_folder": given} if isinstance(given, str) else given
        if not isinstance(options, dict) or not isinstance(options.get("indice_folder"), str):
            raise InputError(f"{path}: {quoted(name)} names no folder; give it, or an object with indice_folder.")
        unknown = set(options) - {"indice_folder", "clip_model", "columns_to_return", *IGNORED}
        if unknown:
            raise InputError(f"{path}: {quoted(name)} has an option {quoted(min(unknown))} that is not known.")
        ignored |= set(options) & set(IGNORED)
        entries.append(_entry(path, name, options, model))
    note = f"{path}: {', '.join(sorted(ignored))} are found out from the folders, or are options of the service."
    return entries, [note] if ignored else []


def _entry(path: Path, name: str, options: Mapping[str, Any], model: str | None) -> Entry:
    columns = options.get("columns_to_return")
    if columns is not None and not (isinstance(columns, list) and all(isinstance(c, str) for c in columns)):
        raise InputError(f"{path}: columns_to_return of {quoted(name)} is no list of names.")
    own = options.get("clip_model", model)
    if own is not None and not isinstance(own, str):
        raise InputError(f"{path}: clip_model of {quoted(name)} is no name of a model.")
    folder = Path(options["indice_folder"])
    # As clip-retrieval has it, from where it is started; else from where the file is.
    if not folder.is_absolute() and not folder.exists():
        folder = path.parent / folder
    return Entry(name, folder, own, None if columns is None else tuple(columns))
