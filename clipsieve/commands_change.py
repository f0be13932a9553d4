"""`add`, `remove`, `compact` and `check`: a collection that follows what it is of."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_build import as_json, fetch_options, size_of_memory, tell_captions, tell_reasons, tell_skipped
from clipsieve.commands_regions import finder_as_before
from clipsieve.errors import CollectionError, InputError
from clipsieve.named_items import named_ids
from clipsieve.parts import Parts, print_json, progress, stages
from clipsieve.progress import duration

SHOWN = 5
IDS = "Images by id; or a file of ids or keys, one per line, or a CSV or .jsonl that search or filter wrote."


def add(
    ctx: typer.Context,
    folder: options.Folder,
    input: options.Input,
    format: options.InputFormat = "auto",
    text: options.CaptionTexts = True,
    thumbs: Annotated[
        bool | None, typer.Option("--thumbs/--no-thumbs", help="Keep small WebPs; if the collection does, by default.")
    ] = None,
    batch_size: options.BatchSize = 256,
    workers: options.Workers = None,
    image_memory: options.ImageMemory = None,
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
    """Embed what is new or changed in INPUT, and follow files that moved. Images of other inputs stay.

    Example: clipsieve add photos.clip photos
    """
    from clipsieve.inference.add import add_to_collection
    from clipsieve.inference.reader import open_source

    parts: Parts = ctx.obj
    parts.image_memory.set(size_of_memory(image_memory), None)
    source = open_source(
        input,
        format=format,  # type: ignore[arg-type]  # it says itself which it knows
        wds_image_key=image_key,
        wds_caption_key=caption_key,
        image_column=image_column,
        caption_column=caption_column,
        url_column=url_column,
        fetching=fetch_options(allow_private_addresses, timeout, retries, max_bytes, connections),
    )
    with progress("adding", "images") as shown:
        added = add_to_collection(
            source,
            lambda name: parts.load(name, device=device, precision=precision),
            folder,
            text=text,
            batch_size=batch_size,
            workers=workers,
            shard_size=shard_size,
            thumbs=thumbs,
            progress=shown.update,
            load_finder=finder_as_before(parts, device, precision),
            image_memory=parts.image_memory,
        )
    done = as_json(asdict(added)) | {"folder": str(folder)}
    if added.read == added.skipped + added.unused:
        first = f" The first of them: {added.reasons[0][0]}" if added.reasons else ""
        raise CollectionError(
            f"None of the {added.read:,} inputs of {input!r} can be used.{first} All reasons: "
            f"clipsieve info {folder} --skipped"
        )
    if json:
        print_json(done)
        return
    same = f"{added.same:,} of {added.read:,} images are known and unchanged"
    if added.moved:
        same = f"{added.moved:,} moved: their items have the new paths; {same}"
    if added.removed:
        same += (
            f"; {added.removed:,} were removed before and stay so (unless compact dropped them, they come back by "
            f"clipsieve restore {folder} --last, or --ids)"
        )
    if not added.embedded and not added.skipped:
        typer.echo(f"{same}." if added.moved else f"Nothing to add: {same}.")
        for line in tell_reasons(done):
            typer.echo(line)
        return
    changed = f", of which {added.changed:,} take the place of older ones" if added.changed else ""
    told = f"{added.embedded:,} images embedded in {duration(added.seconds)}{changed}{tell_skipped(done)}"
    typer.echo(f"{told}. {same}.")
    for line in tell_reasons(done):
        typer.echo(line)
    for line in tell_captions(done):
        typer.echo(line)


def remove(
    ctx: typer.Context,
    folder: options.Folder,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPR", help='Images whose metadata fits: "width < 200".')
    ] = None,
    ids: Annotated[str | None, typer.Option("--ids", metavar="N,N,...|FILE", help=IDS)] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Images whose file is no longer there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    json: options.Json = False,
) -> None:
    """Remove images from a collection at once; their files are not touched. Until compact, restore undoes it.

    Example: clipsieve remove photos.clip --where "width < 200"
    """
    from clipsieve.commands_ask import open_folder

    if (where is not None) + (ids is not None) + missing != 1:
        raise InputError("Say which images to remove: one of --where, --ids and --missing.")
    with open_folder(ctx, folder) as collection:
        found: Any
        within = 0
        if ids is not None:
            found = named_ids(ids, collection.ids_of_keys)
            collection.items(found)  # says which is not there
        elif where is not None:
            found = collection.select(where).tolist()
        else:
            looked = collection.missing()
            found, within = looked.gone.tolist(), looked.within
        if not dry_run:
            collection.remove(found, gone=missing)
        left = collection.count
    if json:
        counts = {"found": len(found), "removed": 0 if dry_run else len(found), "left": left}
        print_json({"folder": str(folder), **counts, **({"not_looked_for": within} if missing else {})})
        return
    if within:
        say(f"{within:,} images lie in tars, tables or behind addresses; --missing does not look for those.")
    if dry_run:
        typer.echo(f"{len(found):,} of {left:,} images would be removed.")
    else:
        undo = f" Until compact, this undoes it: clipsieve restore {folder} --last" if found else ""
        typer.echo(f"{len(found):,} images removed; {left:,} are left.{undo}")


def restore(
    ctx: typer.Context,
    folder: options.Folder,
    ids: Annotated[str | None, typer.Option("--ids", metavar="N,N,...|FILE", help=IDS)] = None,
    last: Annotated[
        bool, typer.Option("--last", help="What was removed last; given again, what was removed before that.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Undo a remove, as long as compact has not dropped what was removed.

    Example: clipsieve restore photos.clip --last
    """
    from clipsieve.commands_ask import open_folder

    if (ids is not None) + last != 1:
        raise InputError("Say which images to restore: one of --ids and --last.")
    with open_folder(ctx, folder) as collection:
        done = collection.restore(None if ids is None else named_ids(ids, collection.ids_of_keys))
        left = collection.count
    if json:
        taken = [{"id": str(id), "key": key, "by": str(by)} for id, key, by in done.taken]
        print_json({"folder": str(folder), "restored": len(done.ids), "taken": taken, "left": left})
    else:
        typer.echo(f"{len(done.ids):,} images restored.")
        for id, key, by in done.taken[:SHOWN]:
            say(f"Item {id} ({key}) stays removed: item {by} has its key now; remove that one first.")
        if done.taken[SHOWN:]:
            say(f"So do {len(done.taken) - SHOWN:,} more (--json names all).")
    if done.taken:
        raise typer.Exit(1)


def compact(
    ctx: typer.Context,
    folder: options.Folder,
    shard_size: options.ShardSize = 100_000,
    json: options.Json = False,
) -> None:
    """Drop what was removed from the files, join small shards, and index what is left.

    Example: clipsieve compact photos.clip
    """
    from clipsieve.index import compact as work

    with stages("rows") as update:
        made = work.compact(folder, shard_size=shard_size, progress=update)
    if json:
        print_json({**asdict(made), "folder": str(folder)})
    elif made.before == made.after and not made.dropped:
        typer.echo("Nothing to do: no image was removed, and no two shards are small.")
    else:
        typer.echo(f"{made.dropped:,} removed images dropped; {made.before:,} shards are {made.after:,} now.")


def check(
    ctx: typer.Context,
    folder: options.Folder,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what can be made again; set damaged shards aside.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Read a whole collection and say what is damaged. The exit code is 1 if something is.

    Example: clipsieve check photos.clip
    """
    from clipsieve.index import check as work

    done: list[str] = []
    if repair:
        with progress("repairing", "bytes") as shown:
            done = work.repair(folder, shown.update)
    with progress("checking", "bytes") as shown:
        found = work.check(folder, shown.update)
    if json:
        print_json({**asdict(found), "done": done, "folder": str(folder)})
    else:
        for line in done:
            typer.echo(line)
        for line in found.problems:
            typer.echo(line)
        state = f"{len(found.problems):,} problems" if found.problems else "No problem"
        typer.echo(f"{state} in {found.files:,} files of {found.bytes:,} bytes with {found.rows:,} images.")
        if found.problems and not repair:
            typer.echo(f"Restore it from a copy, or go on without it: clipsieve check {folder} --repair")
    if found.problems:
        raise typer.Exit(1)
