"""Options that several commands share, each worded once."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The collection: the folder that `clipsieve inference` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

Input = Annotated[
    str, typer.Argument(help="A folder, webdataset tars or Parquet tables; here or behind an fsspec address.")
]
InputFormat = Annotated[str, typer.Option("--format", metavar="auto|files|webdataset|parquet", help="What INPUT is.")]
CaptionTexts = Annotated[bool, typer.Option("--text/--no-text", help="Embed captions too, where there are some.")]
Thumbs = Annotated[bool, typer.Option("--thumbs/--no-thumbs", help="Keep a small WebP of each image.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images in one pass through the model.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Threads that decode; one per processor.")]
ShardSize = Annotated[int, typer.Option("--shard-size", help="Most images in one shard.")]
Precision = Annotated[
    str, typer.Option("--precision", metavar="auto|fp32|fp16|bf16", help="Half precision on a GPU by default.")
]
ImageKey = Annotated[
    str | None, typer.Option("--image-key", metavar="EXT", help="Of a webdataset: the image's extension.")
]
CaptionKey = Annotated[
    str, typer.Option("--caption-key", metavar="EXT", help="Of a webdataset: the caption's extension.")
]
ImageColumn = Annotated[
    str | None, typer.Option("--image-column", metavar="NAME", help="Of a table: where the images' bytes are.")
]
CaptionColumn = Annotated[
    str | None, typer.Option("--caption-column", metavar="NAME", help="Of a table: where the captions are.")
]

Text = Annotated[list[str] | None, typer.Argument(help="What it looks like; several texts are alternatives.")]
Not = Annotated[list[str] | None, typer.Option("--not", metavar="TEXT", help="What it must not be taken for.")]
Image = Annotated[list[Path] | None, typer.Option("--image", metavar="FILE", help="An image that it looks like.")]
NotImage = Annotated[
    list[Path] | None, typer.Option("--not-image", metavar="FILE", help="An image it must not be taken for.")
]
SetFile = Annotated[
    Path | None, typer.Option("--set", metavar="FILE", help="A class set in JSON, instead of texts and images.")
]
ClassName = Annotated[str | None, typer.Option("--class", metavar="NAME", help="Which class of the set.")]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Least score of a match.")]
CalibrationName = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="none|background",
        help="Compare cosines, or how unusual they are in this collection. Chosen by itself: background where texts "
        "and images meet, else none.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help='Only images whose metadata fits, for instance "width > 800".'),
]
Dedup = Annotated[bool, typer.Option("--dedup/--no-dedup", help="Show one of each group of near-duplicates.")]
Modality = Annotated[
    str, typer.Option("--modality", metavar="image|text", help="Compare with the images or with their captions.")
]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Where to keep what is derived, if the collection cannot be written."),
]
QuestionModel = Annotated[
    str | None,
    typer.Option("--model", help="Embed the question with it, where the collection does not say (a peer's)."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the model runs; on a GPU if there is one.")
]
