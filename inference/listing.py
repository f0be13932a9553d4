"""All files below a folder, here or behind an address."""

import os
import posixpath
from dataclasses import dataclass, field

from clipsieve import manifest
from clipsieve.inference.paths import Place
from clipsieve.shards import REMOVED, ROLES

_OWN = (manifest.NAME, REMOVED, *ROLES)
"""What clipsieve writes beside a manifest."""


@dataclass(slots=True)
class Listing:
    """What lies below a folder: paths relative to it, with forward slashes, in no order.

    files        without what collections consist of: their thumbnails are no input
    problems     what could not be listed, and why
    collections  folders that are collections
    """

    files: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    collections: list[str] = field(default_factory=list)


def list_folder(place: Place) -> Listing:
    """Links are followed; a folder that was seen before under another name is passed over, so that loops end."""
    return _list_local(place.path) if place.fs is None else _list_remote(place)


def _list_local(root: str) -> Listing:
    listing = Listing()
    seen: set[str] = set()
    # Real folders first: what is reached through a link as well keeps the name that it has without.
    folders, links = [""], list[str]()
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            folders = [links.pop()]
        folder = folders.pop()
        path = posixpath.join(root, folder) if folder else root
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            reason = f"The folder cannot be listed ({error.strerror}); check its permissions."
            listing.problems[folder or "."] = reason
            continue
        if any(entry.name == manifest.NAME for entry in entries):
            listing.collections.append(folder)
            entries = [entry for entry in entries if entry.name not in _OWN]
        above = f"{folder}/" if folder else ""
        for entry in entries:
            relative = above + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(relative)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (False, not an error, in a loop)
                links.append(relative)
            else:
                listing.files.append(relative)
    return listing


def _list_remote(place: Place) -> Listing:
    base = place.path.rstrip("/")
    files = [path[len(base) :].lstrip("/") for path in place.fs.find(place.path)]
    collections = [posixpath.dirname(path) for path in files if posixpath.basename(path) == manifest.NAME]
    own = tuple(posixpath.join(folder, name) for folder in collections for name in _OWN)
    kept = [path for path in files if path not in own and not path.startswith(tuple(f"{name}/" for name in own))]
    return Listing(kept, {}, collections)
