"""Options that several commands share, each worded once."""

from pathlib import Path
from typing import Annotated

import typer

from clipsieve.checks import check_choice
from clipsieve.errors import InputError
from clipsieve.output_path import refuse_address
from clipsieve.types import Decoding

Folder = Annotated[Path, typer.Argument(help="The collection: the folder that `clipsieve inference` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

Input = Annotated[
    str,
    typer.Argument(
        help="A folder, webdataset tars, Parquet tables or lists of URLs; here or behind an fsspec address."
    ),
]
Out = Annotated[Path, typer.Argument(help="The collection to make, or to go on with.", callback=refuse_address)]
ImageModel = Annotated[
    str,
    typer.Option("--model", help="mini (the demo model), open_clip:NAME/TAG, hf:ORG/NAME, local-dir:PATH or ViT-B/32."),
]
InputFormat = Annotated[
    str, typer.Option("--format", metavar="auto|files|webdataset|parquet|urls", help="What INPUT is.")
]
LongTextName = Annotated[
    str,
    typer.Option(
        "--long-text", metavar="error|cut|average", help="Of a text longer than the model reads: its parts' mean, say."
    ),
]
CaptionTexts = Annotated[bool, typer.Option("--text/--no-text", help="Embed captions too, where there are some.")]
Thumbs = Annotated[bool, typer.Option("--thumbs/--no-thumbs", help="Keep a small WebP of each image.")]
Decode = Annotated[
    str | None,
    typer.Option(
        "--decode", metavar="own|reference", help="reference: alpha, 16 bits, EXIF as open_clip and transformers do it."
    ),
]
Regions = Annotated[
    str | None,
    typer.Option("--regions", metavar="MODEL", help="Find regions too, with mini, hf:ORG/NAME or local-dir:PATH."),
]
RegionCount = Annotated[
    int | None, typer.Option("--region-count", metavar="N", min=1, max=300, help="Regions of an image at most.")
]
Crops = Annotated[bool, typer.Option("--crops", help="Embed each region with the images' own model, too.")]
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
    str | None, typer.Option("--caption-column", metavar="NAME", help="Of a table or list: where the captions are.")
]
UrlColumn = Annotated[
    str | None, typer.Option("--url-column", metavar="NAME", help="Of a list: where the images' URLs are.")
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private-addresses", help="Fetch from this machine and private networks too.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For one attempt at a URL, in all.")]
Retries = Annotated[int, typer.Option("--retries", help="Further attempts after a failure that may pass.")]
MaxBytes = Annotated[str, typer.Option("--max-bytes", metavar="SIZE", help="Larger images are not fetched.")]
Connections = Annotated[int, typer.Option("--connections", help="URLs fetched at a time.")]

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
VetoName = Annotated[
    str,
    typer.Option(
        "--veto",
        metavar="soft|hard",
        help="What a negative example does that is nearer than the positive ones: soft lowers the score by as much "
        "as it is nearer, hard leaves the image out.",
    ),
]
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
Agnostic = Annotated[
    bool | None,
    typer.Option("--agnostic/--class-wise", help="Suppress across classes, or in each; as the set says by default."),
]
Nms = Annotated[
    float | None, typer.Option("--nms", metavar="X", help="Overlap from which boxes are one; the set's, else 0.4.")
]
Dedup = Annotated[bool, typer.Option("--dedup/--no-dedup", help="Show one of each group of near-duplicates.")]
Modality = Annotated[
    str, typer.Option("--modality", metavar="image|text", help="Compare with the images or with their captions.")
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="Where to keep what is derived, if the collection cannot be written.",
        callback=refuse_address,
    ),
]
QuestionModel = Annotated[
    str | None,
    typer.Option("--model", help="Embed the question with it, where the collection does not say (a peer's)."),
]
Recall = Annotated[
    float, typer.Option("--recall", help="Share of the right answers that an approximate index is tuned to find.")
]
Memory = Annotated[str, typer.Option("--memory", metavar="SIZE", help="What a search may hold in memory: 512M, 4G.")]
Latency = Annotated[
    str | None,
    typer.Option("--latency", metavar="TIME", help="What a question may take before an index is made: 100ms, 1s."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the model runs; on a GPU if there is one.")
]
Page = Annotated[
    Path | None, typer.Option("--page", metavar="DIR", help="Serve this built page, for instance clip-retrieval's.")
]
DefaultBackend = Annotated[
    str, typer.Option("--default-backend", metavar="URL", help="The service that the page asks.")
]
PageUrlColumn = Annotated[
    str, typer.Option("--url-column", metavar="NAME", help="Metadata in which the page finds images' addresses.")
]

Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Where images lie that metadata of others names: nothing else is opened for it; repeatable.",
    ),
]
ImageMemory = Annotated[
    str | None,
    typer.Option(
        "--image-memory",
        metavar="SIZE",
        help="For all images being decoded; by default a fourth of the memory.",
    ),
]

Host = Annotated[str, typer.Option("--host", help="Where to listen; 0.0.0.0 for all networks.")]
Port = Annotated[int, typer.Option("--port", help="0 takes a free one.")]
AllowedHosts = Annotated[
    str, typer.Option("--allowed-hosts", metavar="NAMES", help="Names that the service may be asked by: a,b.")
]
CorsOrigins = Annotated[
    str, typer.Option("--cors-origins", metavar="ORIGINS", help="Sites whose pages may ask: https://a.example,...")
]
ReadTokenFile = Annotated[
    Path | None, typer.Option("--read-token-file", metavar="FILE", help="Holds the token without which none reads.")
]
MaxRequestBytes = Annotated[
    str, typer.Option("--max-request-bytes", metavar="SIZE", help="Larger requests are not read.")
]
RateLimit = Annotated[
    str | None, typer.Option("--rate-limit", metavar="N/s", help="Of each client's address: 10/s, 600/m, 1000/h.")
]
Threads = Annotated[int, typer.Option("--threads", help="Requests answered at once.")]
Queue = Annotated[int, typer.Option("--queue", help="Requests that may wait beyond those.")]
RequestTimeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="For a request to come in full, and again for its turn."),
]
LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="CLIPSIEVE_LOG_LEVEL", metavar="LEVEL", help="debug, info, warning, error."),
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="json|text", help="By itself, text on a terminal, else JSON.")
]
RawCsv = Annotated[
    bool, typer.Option("--raw-csv", help="CSV with the exact texts, also those that a spreadsheet would compute.")
]

ListenJson = Annotated[bool, typer.Option("--json", help="Say where it listens as one JSON object on stdout.")]


def require_csv(raw: bool, csv: bool) -> None:
    """InputError if --raw-csv is given where no CSV is written."""
    if raw and not csv:
        raise InputError("--raw-csv is for CSV, and none is written here; name a .csv file, or leave it out.")


def decoding_of(decode: str | None, out: Path, new: Decoding = "own") -> Decoding:
    """What --decode says; not given, as the collection `out` has it, or `new` where there is none yet."""
    from clipsieve.errors import CollectionMissing
    from clipsieve.manifest import read_manifest

    if decode is not None:
        check_choice("--decode", decode, Decoding)
        return decode  # type: ignore[return-value]  # it is one of them
    try:
        return read_manifest(out).decoding
    except CollectionMissing:
        return new
