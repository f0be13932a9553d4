"""An answer as rows: for people (a table), for programs (JSON, JSON lines, CSV, Parquet).

The columns are the same everywhere: rank, id, key, score, margin, positive, negative. For programs, hits of a
collection that knows URLs have url and caption besides: such a list is what img2dataset reads. A margin without
negatives is infinite inside and absent here, because JSON knows no infinity. In JSON an id is a string: JavaScript
rounds above 2**53. Hits that are boxes have x0, y0, x1 and y1 besides, in 0..1 of the image from its top left corner.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipsieve.contact_sheet import describe_claim, describe_timings, example_name
from clipsieve.csv_cells import CsvWriter
from clipsieve.errors import InputError
from clipsieve.output_path import require_path
from clipsieve.types import QueryResult

Format = Literal["table", "jsonl", "csv", "parquet", "html"]

COLUMNS = ("rank", "id", "key", "score", "margin", "positive", "negative")
WEB_COLUMNS = ("url", "caption")
BOX_COLUMNS = ("x0", "y0", "x1", "y1")

Known = Sequence[Mapping[str, object]]
"""The metadata row of each hit, where the collection knows URLs; else nothing."""

_SUFFIXES: Mapping[str, Format] = {
    ".txt": "table",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
}


def choose_format(given: str | None, out: Path | None) -> Format:
    """The format asked for, else the one that the file's suffix means, else a table. InputError for another."""
    if given is not None and given not in get_args(Format):
        raise InputError(f"The format {given!r} is not known; choose one of {', '.join(get_args(Format))}.")
    if given is None and out is not None:
        if out.suffix.lower() not in _SUFFIXES:
            raise InputError(f"{out} has no suffix that tells its format; give --format, or one of {_list(_SUFFIXES)}.")
        return _SUFFIXES[out.suffix.lower()]
    if given == "parquet" and out is None:
        raise InputError("Parquet is not for the terminal; give --out FILE.parquet.")
    return cast(Format, given or "table")


def rows(result: QueryResult, names: Mapping[int | str, str], known: Known = ()) -> list[dict[str, Any]]:
    """One dict of COLUMNS per hit, of BOX_COLUMNS for a box, and of WEB_COLUMNS with `known`, best first.

    Ids are int, what is absent is None.

    names  image example -> what to call it
    """
    made: list[dict[str, Any]] = [
        {
            "rank": rank,
            "id": hit.id,
            "key": hit.key,
            "score": hit.score,
            "margin": None if hit.margin == math.inf else hit.margin,
            "positive": example_name(hit.positive, names),
            "negative": None if hit.negative is None else example_name(hit.negative, names),
            **({} if hit.box is None else dict(zip(BOX_COLUMNS, hit.box, strict=True))),
        }
        for rank, hit in enumerate(result.hits, start=1)
    ]
    for row, fields in zip(made, known, strict=bool(known)):
        row |= {name: fields.get(name) for name in WEB_COLUMNS}
    return made


def to_json(result: QueryResult, names: Mapping[int | str, str], known: Known = ()) -> dict[str, Any]:
    """The answer as one JSON object."""
    return {
        "hits": [{**row, "id": str(row["id"])} for row in rows(result, names, known)],
        "claim": result.claim,
        "recall": result.recall,
        "timings_ms": dict(result.timings_ms),
        "notes": list(result.notes),
    }


def to_jsonl(result: QueryResult, names: Mapping[int | str, str], known: Known = ()) -> str:
    """One JSON object per hit and line."""
    lines = (json.dumps({**row, "id": str(row["id"])}, ensure_ascii=False) for row in rows(result, names, known))
    return "".join(line + "\n" for line in lines)


def to_csv(result: QueryResult, names: Mapping[int | str, str], known: Known = (), *, raw: bool = False) -> str:
    """A header and one line per hit, quoted where a value needs it; `raw` as in `CsvWriter`."""
    text = io.StringIO()
    columns = (*COLUMNS, *(BOX_COLUMNS if _boxed(result) else ()), *(WEB_COLUMNS if known else ()))
    writer = CsvWriter(text, "\n", raw=raw)
    writer.writerow(columns)
    writer.writerows([row.get(name) for name in columns] for row in rows(result, names, known))
    return text.getvalue()


def write_parquet(path: Path, result: QueryResult, names: Mapping[int | str, str], known: Known = ()) -> None:
    """The rows as a Parquet file, with the claim in its metadata."""
    require_path(path)
    import pyarrow as pa  # slow to import, and only this format needs it
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float32()
    types = dict(zip(COLUMNS, (pa.int64(), pa.int64(), text, number, number, text, text), strict=True))
    if _boxed(result):
        types |= dict.fromkeys(BOX_COLUMNS, number)
    if known:
        types |= dict.fromkeys(WEB_COLUMNS, text)
    schema = pa.schema(types, metadata={"claim": result.claim})
    pq.write_table(pa.Table.from_pylist(rows(result, names, known), schema=schema), path)


def to_text(result: QueryResult, names: Mapping[int | str, str]) -> str:
    """The table as plain text, as wide as it needs to be."""
    text = io.StringIO()
    print_table(Console(file=text, width=400), result, names)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def print_table(console: Console, result: QueryResult, names: Mapping[int | str, str]) -> None:
    """The hits as a table; below it what the answer claims, and what it took, in one line."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", justify="right", style="dim")
    table.add_column("score", justify="right")
    table.add_column("margin", justify="right")
    table.add_column("why", overflow="fold")
    if _boxed(result):
        table.add_column("box", justify="right", overflow="fold")
    table.add_column("image", overflow="fold")
    for row in rows(result, names):
        why = f"looks like: {row['positive']}"
        if row["negative"] is not None:
            why += f"; nearest not: {row['negative']}"
        margin = "" if row["margin"] is None else f"{row['margin']:+.3f}"
        box = [" ".join(f"{row[name]:.2f}" for name in BOX_COLUMNS)] if "x0" in row else []
        # Text, not markup: a key may hold [brackets].
        table.add_row(
            *(Text(cell) for cell in (str(row["rank"]), f"{row['score']:.3f}", margin, why, *box, row["key"]))
        )
    if result.hits:
        console.print(table)
    else:
        console.print("Nothing in the collection matches.")
    summary = [f"{len(result.hits):,} {'hit' if len(result.hits) == 1 else 'hits'}", describe_claim(result)]
    console.print(Text("; ".join(filter(None, [*summary, describe_timings(result)]))), style="dim")


def _boxed(result: QueryResult) -> bool:
    return any(hit.box is not None for hit in result.hits)


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names)
