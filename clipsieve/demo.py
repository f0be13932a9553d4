"""The work of `clipsieve demo`: images, their vectors, an index, three answers and a contact sheet.

Every step goes on where an earlier run of it was stopped, and a finished demo runs again in seconds.
"""

import hashlib
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from clipsieve.contact_sheet import contact_sheet
from clipsieve.demo_scenes import PHOTO_QUESTIONS, SCENE_QUESTIONS, make_scenes, number_of, scene
from clipsieve.durable import write_file
from clipsieve.errors import InputError, ModelMismatch
from clipsieve.index.build import build_indices
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.opening import open_collection
from clipsieve.output import print_table, to_json
from clipsieve.output_path import require_path
from clipsieve.parts import progress
from clipsieve.pictures import sheet_answer
from clipsieve.progress import duration
from clipsieve.question import Asked
from clipsieve.types import ClassSet, Hit, MetaClass

SHOWN = 12
"""Hits per question."""


def run_demo(
    out: Path,
    images: Path | None,
    load: Callable[[], Any],
    *,
    count: int = 600,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the demo into `out`; what was made and found, as JSON values.

    images   the user's folder; None draws `count` scenes
    load     gives the embedder
    console  where to tell of it; None says nothing
    """
    began = time.monotonic()
    console = console or Console(quiet=True)
    require_path(out)
    if images is not None and not images.is_dir():
        raise InputError(f"{images} is not a folder; give the folder that holds your images.")
    out.mkdir(parents=True, exist_ok=True)
    folder = images or out / "images"
    if images is None:
        with progress("drawing", "scenes") as shown:
            make_scenes(folder, count, shown.update)
    collection_folder = out / ("collection" if images is None else f"{folder.resolve().name}-{_state_of(folder)}")
    embedder = load()
    demo_model = embedder.model.name == "mini"
    _embed(folder, embedder, collection_folder)
    build_indices(collection_folder)
    with open_collection(collection_folder, embedder=embedder) as collection:
        by = "the demo model" if demo_model else embedder.model.name
        about = f"{collection.count:,} images, embedded by {by}"
        console.print(f"{about}.", soft_wrap=True)
        if demo_model and images is not None:
            console.print(
                "The demo model is tiny: it knows ten everyday things and simple coloured shapes. For real work embed "
                "your images with `clipsieve inference`.",
                soft_wrap=True,
            )
        answers, found = [], []
        for question in _questions(images is None):
            asked = Asked(ClassSet([question]))
            result = collection.search(asked.classes, SHOWN)
            console.print()
            console.print(question.name, style="bold", markup=False, soft_wrap=True)
            console.print(_wording(question), style="dim", markup=False, soft_wrap=True)
            print_table(console, result, {})
            answer = {"question": question.name, **to_json(result, {})}
            if images is None:
                answer["right"] = _right(question, result.hits)
                console.print(f"{answer['right']} of these {len(result.hits)} are right, as drawn.")
            found.append(answer)
            answers.append(sheet_answer(collection, asked, result))
    sheet = out / "contact-sheet.html"
    page = contact_sheet("Drawn scenes" if images is None else folder.resolve().name, answers, about)
    write_file(sheet, lambda file: file.write(page.encode()))
    seconds = time.monotonic() - began
    example = ["a yellow star", "--not", "a yellow star with a red circle"] if images is None else ["a truck"]
    command = shlex.join(["clipsieve", "search", str(collection_folder), *example])
    console.print(f"\nDone in {duration(seconds)}. The contact sheet is {sheet}: open it in a browser.", soft_wrap=True)
    console.print("Next, ask something yourself:", soft_wrap=True)
    console.print(f"  {command}", markup=False, soft_wrap=True, highlight=False)
    serve = shlex.join(["clipsieve", "back", str(collection_folder)])
    console.print("Or ask in a browser, where you mark what is right and see why:")
    console.print(f"  {serve}", markup=False, soft_wrap=True, highlight=False)
    return {
        "images": collection.count,
        "collection": str(collection_folder),
        "contact_sheet": str(sheet),
        "model": embedder.model.name,
        "seconds": seconds,
        "answers": found,
    }


def _embed(folder: Path, embedder: Any, into: Path) -> None:
    try:
        with progress("embedding", "images") as shown:
            embed_collection(open_source(folder, format="files"), embedder, into, progress=shown.update)
    except ModelMismatch as error:
        raise InputError(f"{into} was made with another model; remove that folder, or give another --out.") from error


def _questions(scenes: bool) -> Sequence[MetaClass]:
    return [graded.question for graded in SCENE_QUESTIONS] if scenes else PHOTO_QUESTIONS


def _wording(question: MetaClass) -> str:
    words = "like " + " or ".join(str(e.text) for e in question.positive)
    return words + "".join(f", not like {e.text}" for e in question.negative)


def _right(question: MetaClass, hits: Sequence[Hit]) -> int:
    """How many of the hits are right answers: what a drawn scene shows is known."""
    graded = next(g for g in SCENE_QUESTIONS if g.question == question)
    return sum(graded.right(scene(number_of(hit.key))) for hit in hits)


def _state_of(folder: Path) -> str:
    """A few letters that change with the folder's place or files: a changed folder is embedded anew."""
    digest = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape"))
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118 (os.walk's strings, maybe a hundred thousand)
            status = os.lstat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:6]
