"""`evaluate`: how well a model tells classes apart, by their texts alone or by a few images of each."""

import json as json_
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipsieve import options
from clipsieve.command import say
from clipsieve.commands_ask import long_text_of, tell
from clipsieve.commands_build import DEFAULT_MODEL
from clipsieve.commands_evaluate_coco import evaluate_folder
from clipsieve.errors import CollectionMissing, InputError, ModelUnavailable, quoted
from clipsieve.parts import Parts, print_json, progress

if TYPE_CHECKING:
    from clipsieve.types import Decoding, Float32, Int64

TEMPLATE = "A photo of a {text}."


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Images and what they are said to be.

    vectors  float32 (n, d), unit rows
    said     the class of each, None where it is not known
    skipped  inputs that could not be read
    """

    vectors: "Float32"
    said: Sequence[str | None]
    skipped: int = 0


def evaluate(
    ctx: typer.Context,
    images: Annotated[
        str, typer.Argument(help="A collection, or what `inference` takes: a folder of folders, a table, tars.")
    ],
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Classify by a text for each class.")] = False,
    few_shot: Annotated[
        str | None,
        typer.Option("--few-shot", metavar="INPUT", help="Classify by these images of known class, likewise given."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", help="Of each class in --few-shot take this many, the first ones.")
    ] = None,
    truth: Annotated[
        str, typer.Option("--truth", metavar="folder|COLUMN", help="What an image is: its folder's name, or a column.")
    ] = "folder",
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help='Texts of the classes: lines "CLASS TEXT", or {"CLASS": "TEXT"}.'),
    ] = None,
    template: Annotated[
        str, typer.Option("--template", help="The prompt: {text} is the class's text, {label} its name.")
    ] = TEMPLATE,
    long_text: options.LongTextName = "cut",
    neighbours: Annotated[
        int, typer.Option("--neighbours", help="Texts or images that decide, the nearest ones.")
    ] = 10,
    model: Annotated[str | None, typer.Option("--model", help="By default what made the collection.")] = None,
    coco: Annotated[
        Path | None, typer.Option("--coco", metavar="FILE", help="Grade boxes: what is in the images of a collection.")
    ] = None,
    set_: Annotated[
        Path | None,
        typer.Option("--set", metavar="FILE", help="The class set for --coco; its names are the categories."),
    ] = None,
    agnostic: options.Agnostic = None,
    nms: options.Nms = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    state: options.State = None,
    json: options.Json = False,
) -> None:
    """Say how many images a model puts into their class, by top-1 and top-5; or how good a class set's boxes are.

    Example: clipsieve evaluate photos --zero-shot --model mini

    Example: clipsieve evaluate photos.clip --coco annotations.json --set detectors.json

    Example: clipsieve evaluate test.parquet --truth label --zero-shot --few-shot train.parquet --shots 10 --model mini
    """
    if coco is not None or set_ is not None:
        if coco is None or set_ is None or zero_shot or few_shot:
            raise InputError(
                "Boxes are graded with --coco FILE and --set FILE, both and without --zero-shot or --few-shot."
            )
        evaluate_folder(ctx, Path(images), coco, set_, agnostic, nms, device, precision, state, json)
        return
    if not (zero_shot or few_shot):
        raise InputError(
            "What to classify by is not said; give --zero-shot, --few-shot INPUT, or both; --coco grades boxes."
        )
    if neighbours < 1 or (shots is not None and shots < 1) or batch_size < 1:
        raise InputError(f"neighbours {neighbours}, shots {shots}, batch-size {batch_size}: each is 1 or more.")
    import numpy as np

    from clipsieve.checks import check_said
    from clipsieve.reading import notes_of, read_with

    prompt(template, "", "")  # before anything is embedded

    parts: Parts = ctx.obj
    name = model or _model_of(images) or DEFAULT_MODEL
    embedder = parts.load(name, device=device).decoding_as(_decoding_of(images))
    if zero_shot and not hasattr(embedder, "embed_texts"):
        raise ModelUnavailable(
            f"The model {quoted(name)} embeds no texts, so that --zero-shot cannot be; give --few-shot."
        )
    known = _read(images, embedder, truth, batch_size, "images")
    shown = None if few_shot is None else _read(few_shot, embedder, truth, batch_size, "few-shot images", shots)
    texts = None if names is None else read_names(names)
    classes = sorted(texts or {one for one in [*known.said, *(() if shown is None else shown.said)] if one is not None})
    if len(classes) < 2:
        raise InputError(f"{len(classes)} classes are in {images} by --truth {truth}; two or more can be told apart.")

    counted = [i for i, one in enumerate(known.said) if one in set(classes)]
    if not counted:
        raise InputError(f"No image of {images} is said to be of one of the classes {', '.join(classes[:5])}.")
    vectors = known.vectors[counted]
    right = np.array([classes.index(str(known.said[i])) for i in counted], np.int64)
    others = Counter(str(one) for one in known.said if one is not None and one not in set(classes))
    found: dict[str, Any] = {
        "model": embedder.model.name,
        "images": len(counted),
        "classes": len(classes),
        "neighbours": neighbours,
        "skipped": known.skipped,
        "without_truth": sum(one is None for one in known.said),
        "other_truths": dict(others.most_common()),
    }
    if zero_shot:
        words = [prompt(template, (texts or {}).get(c, c.replace("_", " ")), c) for c in classes]
        own = np.arange(len(classes), dtype=np.int64)
        long = long_text_of(long_text)
        for word in words:
            check_said("A class's prompt", word)
        rows = read_with(embedder, long)(words)
        found["notes"] = list(notes_of(words, ["{}"], embedder, long))
        tell(found["notes"])
        found["zero_shot"] = {"prompt": template, **_figures(vectors, right, rows, own, len(classes), neighbours)}
    if shown is not None:
        chosen = first_of_each(shown.said, classes, shots)
        own = np.array([classes.index(str(shown.said[i])) for i in chosen], np.int64)
        if not len(chosen):
            raise InputError(f"No image of {few_shot} is of one of the classes {', '.join(classes[:5])}.")
        figures = _figures(vectors, right, shown.vectors[chosen], own, len(classes), neighbours)
        found["few_shot"] = {"references": len(chosen), "skipped": shown.skipped, **figures}
    if json:
        print_json(found)
    else:
        typer.echo(to_text(found))


def prompt(template: str, text: str, label: str) -> str:
    """The prompt of a class. InputError for a template without {text} or {label}, or with other fields."""
    try:
        made = template.format(text=text, label=label)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"--template {quoted(template)}: only {{text}} and {{label}} can be put in.") from error
    if not ("{text" in template or "{label" in template):
        raise InputError(f"--template {quoted(template)} is the same for every class; put {{text}} or {{label}} in.")
    return made


def read_names(path: Path) -> dict[str, str]:
    """Class -> its text: a JSON object, or lines whose first word is the class. InputError for a file without any."""
    try:
        text = path.read_text(encoding="utf-8")
        found = (
            json_.loads(text)
            if path.suffix == ".json"
            else dict(_split(line) for line in text.splitlines() if line.strip())
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as texts of classes ({error}).") from error
    if not (isinstance(found, dict) and found and all(isinstance(one, str) for one in found.values())):
        raise InputError(f'{path} names no class; write lines "CLASS TEXT", or {{"CLASS": "TEXT"}} in a .json.')
    return found


def first_of_each(said: Sequence[str | None], classes: Sequence[str], shots: int | None) -> list[int]:
    """Positions of the first so many of each class, all of them without a number, in order."""
    seen: Counter[str] = Counter()
    chosen = []
    for i, one in enumerate(said):
        if one in set(classes) and (shots is None or seen[str(one)] < shots):
            seen[str(one)] += 1
            chosen.append(i)
    return chosen


def to_text(found: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{found['images']:,} images of {found['classes']:,} classes, by the {found['neighbours']} nearest"]
    for kind, what in (("zero_shot", "zero-shot"), ("few_shot", "few-shot")):
        if kind in found:
            figures = found[kind]
            by = f"{quoted(figures['prompt'])}" if kind == "zero_shot" else f"{figures['references']:,} images"
            lines.append(f"{what:10}  top-1 {figures['top1']:.4f}  top-5 {figures['top5']:.4f}  by {by}")
    if found["skipped"]:
        lines.append(f"{found['skipped']:,} images could not be read and are not counted")
    if found["without_truth"]:
        lines.append(f"of {found['without_truth']:,} images the truth is not known; they are not counted")
    if found["other_truths"]:
        some = ", ".join(list(found["other_truths"])[:5])
        lines.append(f"{sum(found['other_truths'].values()):,} images are none of the classes and not counted: {some}")
    return "\n".join(lines)


def _figures(
    images: "Float32", right: "Int64", references: "Float32", own: "Int64", count: int, neighbours: int
) -> dict[str, float]:
    from clipsieve.index.nearest_classes import class_shares, top_k_share

    shares = class_shares(images, references, own, count, neighbours)
    return {f"top{k}": top_k_share(shares, right, k) for k in (1, 5)}


def _split(line: str) -> tuple[str, str]:
    first, *rest = line.split()
    return first, " ".join(rest) or first


def _decoding_of(given: str) -> "Decoding":
    """How the images of a collection were decoded; "own" for what is none."""
    from clipsieve.shards import open_manifest

    try:
        return open_manifest(given).decoding
    except CollectionMissing:
        return "own"


def _model_of(given: str) -> str | None:
    """The model that made a collection; None for what is none, or does not say it."""
    from clipsieve.shards import open_manifest

    try:
        made = open_manifest(given).model
    except CollectionMissing:
        return None
    return None if made is None else made.name


def _read(given: str, embedder: Any, truth: str, batch_size: int, what: str, shots: int | None = None) -> Known:
    """The images of a collection, by the vectors it has, or of an input, embedded for this once in full precision."""
    from clipsieve.labels import truth_of
    from clipsieve.shards import open_manifest

    try:
        open_manifest(given)
    except CollectionMissing:
        return _embed(given, embedder, truth, batch_size, what, shots)
    from clipsieve.opening import open_collection

    with open_collection(given, embedder=embedder) as collection:
        ids = collection.select("id >= 0")
        said: list[str | None] = []
        for start in range(0, len(ids), 10_000):
            said += [name for name, _ in truth_of(collection.items(ids[start : start + 10_000]), truth, ())]
        return Known(collection.vectors(ids), said)


def _embed(given: str, embedder: Any, truth: str, batch_size: int, what: str, shots: int | None) -> Known:
    import numpy as np

    from clipsieve.inference.batches import embed_items
    from clipsieve.inference.decode import MAX_PIXELS
    from clipsieve.inference.reader import open_source
    from clipsieve.labels import truth_of

    source = open_source(given)
    vectors: list[Float32] = []
    said: list[str | None] = []
    skipped = 0
    with progress(f"embedding {what}", "images") as shown:
        items = source.items() if shots is None else _first(source.items(), truth, shots)
        for batch in embed_items(items, embedder, False, batch_size, None, False, MAX_PIXELS):
            vectors.append(batch.vectors.copy())
            rows = [{**row.columns, "key": row.key, "caption": row.caption} for row in batch.rows]
            said += [name for name, _ in truth_of(rows, truth, ())]
            skipped += len(batch.skipped)
            shown.update(len(said) + skipped, source.total if shots is None else None, skipped)
            for one in list(batch.skipped)[:5]:
                say(f"Note: {one.key} is left out. {one.reason}")
    if not said:
        raise InputError(f"{given} holds no image that can be read.")
    return Known(np.concatenate(vectors), said, skipped)


def _first(items: Iterable[Any], truth: str, shots: int) -> Iterator[Any]:
    """Of each class the first so many that can be read, so that no other is embedded; what cannot is passed on too."""
    from clipsieve.labels import truth_of
    from clipsieve.types import ImageItem

    seen: Counter[str | None] = Counter()
    for item in items:
        if isinstance(item, ImageItem):
            row = {**item.meta, "key": item.key, "caption": item.caption}
            ((name, _),) = truth_of([row], truth, ())
            if seen[name] >= shots:
                continue
            seen[name] += _is_image(item.data)
        yield item


def _is_image(data: bytes) -> bool:
    from clipsieve.inference.decode import decode

    try:
        decode(data)
    except InputError:
        return False
    return True
