"""`watch`: a collection that is kept in step with an input."""

import contextlib
import functools
import json as json_
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_build import as_json, fetch_options, tell_captions, tell_skipped
from clipsieve.commands_regions import finder_as_before
from clipsieve.errors import CollectionError
from clipsieve.parts import Parts, progress
from clipsieve.watching import REST_SECONDS, Plan, Seen, Watcher

if TYPE_CHECKING:
    from clipsieve.inference.add import Added
    from clipsieve.inference.finding import Finder
    from clipsieve.inference.reader import Source
    from clipsieve.manifest import Detection
    from clipsieve.types import FileState


def watch(
    ctx: typer.Context,
    folder: options.Folder,
    input: options.Input,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.1, help="How long to wait between two looks.")
    ] = 10,
    once: Annotated[bool, typer.Option("--once", help="Look once, do what is to be done, and end.")] = False,
    keep_missing: Annotated[
        bool, typer.Option("--keep-missing", help="Keep images whose file is no longer there.")
    ] = False,
    format: options.InputFormat = "auto",
    text: options.CaptionTexts = True,
    thumbs: Annotated[
        bool | None, typer.Option("--thumbs/--no-thumbs", help="Keep small WebPs; if the collection does, by default.")
    ] = None,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    shard_size: options.ShardSize = 100_000,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    image_key: options.ImageKey = None,
    caption_key: options.CaptionKey = "txt",
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    url_column: options.UrlColumn = None,
    allow_private_addresses: options.AllowPrivate = False,
    timeout: options.Timeout = 20,
    retries: options.Retries = 2,
    max_bytes: options.MaxBytes = "20M",
    connections: options.Connections = 32,
    json: options.Json = False,
) -> None:
    """Keep a collection in step with INPUT: embed what is new or changed, remove what is gone, and look again.

    Example: clipsieve watch photos.clip photos

    Example: clipsieve watch photos.clip photos --once
    """
    from clipsieve.inference.reader import open_source

    parts: Parts = ctx.obj
    fetching = fetch_options(allow_private_addresses, timeout, retries, max_bytes, connections)
    work = _Work(
        folder,
        lambda: open_source(
            input,
            format=format,  # type: ignore[arg-type]  # it says itself which it knows
            wds_image_key=image_key,
            wds_caption_key=caption_key,
            image_column=image_column,
            caption_column=caption_column,
            url_column=url_column,
            fetching=fetching,
        ),
        None if keep_missing else input,
        functools.cache(lambda name: parts.load(name, device=device, precision=precision)),
        {
            "text": text,
            "batch_size": batch_size,
            "workers": workers,
            "shard_size": shard_size,
            "thumbs": thumbs,
            "image_memory": parts.image_memory,
            "load_finder": _kept(finder_as_before(parts, device, precision)),
        },
        functools.partial(_tell, folder, json),
    )
    watcher = Watcher(work.look, work.act, lambda why: say(f"Waiting: {why}"))
    with _ended_by_sigterm():
        if not once:
            say(f"Watching {input}, every {every:g} s.")
            work.note_lost = not keep_missing

            def wait() -> None:
                work.tell_lost()
                sleep(every)

            watcher.keep(wait)
        plan, held = watcher.round()
        if plan.waiting:  # what was copied a moment ago looks like that, too
            sleep(REST_SECONDS)
            plan, held = watcher.round()
    if plan.waiting:
        say(f"Note: {len(plan.waiting):,} files are still being written to; they were left out.")
    if held is not None:
        raise CollectionError(held)
    work.note_lost = not keep_missing
    if not work.tell_lost() and not work.told and not json:
        typer.echo("Nothing to do: the collection is in step.")


class _Work:
    """Looks and acts for a `Watcher`.

    told       whether a round changed something
    note_lost  whether `tell_lost` is to look, which costs a look at each file

    open   makes the source of what is there now
    input  whose files that are gone are to be removed; None to keep those
    load   makes the embedder of a name
    how    of `add_to_collection`
    tell   takes what a round added, and how many items it removed
    """

    def __init__(
        self,
        folder: Path,
        open: Callable[[], "Source"],
        input: str | None,
        load: Callable[[str], Any],
        how: dict[str, Any],
        tell: Callable[["Added", int], None],
    ) -> None:
        self.told = False
        self.note_lost = False
        self._folder, self._open, self._input = folder, open, input
        self._load, self._how, self._tell = load, how, tell
        self._seen: tuple[Source, Mapping[str, FileState]]  # what the last look found
        self._disk: int | None = None  # that the input lay on when all was well

    def look(self) -> Seen:
        from clipsieve.index.opened import signature_of

        source = self._open()
        self._seen = source, source.states()
        return Seen(self._seen[1], signature_of(self._folder))

    def act(self, plan: Plan) -> tuple[object, str | None]:
        from clipsieve.index.opened import signature_of
        from clipsieve.inference.add import Added, add_to_collection, follow

        source, _ = self._seen
        added, gone, held = Added(), 0, None
        # First, and among all files: one that moved is not missing, and its item keeps its id.
        moved = follow(source, self._folder)
        try:
            if plan.missing:
                gone, held = self._remove_missing()
            if plan.read and held is None:
                with progress("adding", "images") as shown:
                    added = add_to_collection(
                        source.only(plan.read), self._load, self._folder, progress=shown.update, **self._how
                    )
        finally:
            added.moved += moved
            added.same = max(0, added.same - moved)  # which find those of `moved` known
            if gone or added.moved or added.embedded or added.skipped:
                self.told = True
                self._tell(added, gone)
        return signature_of(self._folder), held

    def tell_lost(self) -> bool:
        """Say, once, of how many images the files are gone that do not lie in the input; whether there are any."""
        from clipsieve.index.missing import look_for_files
        from clipsieve.manifest import read_manifest
        from clipsieve.shards import read_removed

        if not self.note_lost:
            return False
        self.note_lost = False
        manifest = read_manifest(self._folder)
        looked = look_for_files(self._folder, manifest, read_removed(self._folder, manifest), seen=self._seen[1])
        if len(looked.gone):
            say(
                f"Note: The files of {len(looked.gone):,} images are gone, and the input does not have them. If they "
                f"were moved, say where they are: clipsieve add {self._folder} FOLDER; else remove them: clipsieve "
                f"remove {self._folder} --missing"
            )
        return bool(len(looked.gone))

    def _remove_missing(self) -> tuple[int, str | None]:
        """How many items were removed because their files are gone; or why none was, if none at all is there.

        Then it takes a disk that was not changed since to believe it: one that is not mounted looks like that.
        """
        from clipsieve.index.missing import look_for_files
        from clipsieve.inference.paths import base_folder
        from clipsieve.shards import read_removed
        from clipsieve.writer import open_writer

        source, files = self._seen
        base = base_folder(self._input) if self._input is not None and source.reads_files else None
        if base is None:
            return 0, None
        with open_writer(self._folder) as writer:
            removed = read_removed(self._folder, writer.manifest)
            looked = look_for_files(self._folder, writer.manifest, removed, base, files)
            disk = os.stat(base).st_dev  # noqa: PTH116
            if len(looked.gone) and not looked.there and disk != self._disk:
                return 0, (
                    f"None of the {len(looked.gone):,} files of {base} that {self._folder} was made of is there; is a "
                    "disk not mounted? If they were moved, watch the folder where they are, or add it: clipsieve add "
                    f"{self._folder} FOLDER"
                )
            self._disk = disk
            writer.remove(looked.gone.tolist(), gone=True)
        return len(looked.gone), None


def _kept(make: "Callable[[Detection, Any], Finder]") -> "Callable[[Detection, Any], Finder]":
    """The same, but the finder is made once, for all rounds."""
    made: dict[Detection, Finder] = {}

    def load(detection: "Detection", embedder: Any) -> "Finder":
        if detection not in made:
            made.clear()
            made[detection] = make(detection, embedder)
        return made[detection]

    return load


def _tell(folder: Path, json: bool, added: "Added", gone: int) -> None:
    """A line about a round that changed something."""
    now = datetime.now().astimezone()
    if json:
        told = {
            "time": now.isoformat(timespec="seconds"),
            **as_json(asdict(added)),
            "gone": gone,
            "folder": str(folder),
        }
        typer.echo(json_.dumps(told))
        return
    changed = f", {added.changed:,} of them in place of older ones" if added.changed else ""
    parts = [
        f"{added.embedded:,} images embedded{changed}" if added.embedded else "",
        tell_skipped({**asdict(added), "folder": folder}).removeprefix("; "),
        f"{added.moved:,} moved: their items have the new paths" if added.moved else "",
        f"{gone:,} removed whose files are gone" if gone else "",
    ]
    typer.echo(f"{now:%Y-%m-%d %H:%M:%S}  {'; '.join(part for part in parts if part)}.")
    for reason, count in added.reasons:
        typer.echo(f"  {count:,} skipped: {reason}")
    for line in tell_captions(asdict(added)):
        typer.echo(line)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """In this block SIGTERM does what Ctrl-C does."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
