"""Answers as one HTML file that carries its pictures and needs nothing else: no network, no script.

    Path("sheet.html").write_text(contact_sheet("photos", [Answer(question, result, pictures)]), encoding="utf-8")

Pure text in, text out. Everything that came from a file or a user passes through `escape`, and the page's own policy
forbids scripts and the network besides.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from clipsieve.types import Box, Example, Hit, MetaClass, QueryResult

_MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]+")


@dataclass(frozen=True, slots=True)
class Picture:
    """A small image, encoded: its bytes, "image/webp" or the like, and its size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One question with its answer.

    pictures  item id -> its picture; a hit without one shows its key alone
    names     image example (item id or content hash) -> what to call it
    captions  item id -> what is known of it, for those who do not see the picture
    """

    question: MetaClass
    result: QueryResult
    pictures: Mapping[int, Picture] = field(default_factory=dict)
    names: Mapping[int | str, str] = field(default_factory=dict)
    captions: Mapping[int, str] = field(default_factory=dict)


def contact_sheet(title: str, answers: Sequence[Answer], about: str = "", calibration: str = "none") -> str:
    """The page.

    title        its heading: which collection
    about        a line under it: how many images, which model
    calibration  of the questions, or "regions" for boxes; says what a score is
    """
    sections = "\n".join(_section(number, answer) for number, answer in enumerate(answers, start=1))
    return _PAGE.format(
        title=escape(title),
        about=f"<p class=about>{escape(about)}</p>" if about else "",
        style=_STYLE,
        contents=_contents(answers) if len(answers) > 1 else "",
        sections=sections,
        legend=_LEGENDS[calibration],
    )


def example_name(example: Example, names: Mapping[int | str, str]) -> str:
    """An example in words: its text, or what the image is called."""
    if example.text is not None:
        return example.text
    assert example.image is not None
    short = f"item {example.image}" if isinstance(example.image, int) else f"image {example.image[:8]}"
    return ("a part of " if example.box is not None else "") + names.get(example.image, short)


def describe_claim(result: QueryResult) -> str:
    """What the answer claims, as a clause."""
    match result.claim:
        case "exact":
            return "exact: no better image exists in the collection"
        case "complete":
            return f"complete within what the index can find (measured recall {result.recall:.3f})"
        case _:
            return "partial: better images may exist"


def describe_timings(result: QueryResult) -> str:
    """The milliseconds by stage: "embed 3.1 ms, search 0.8 ms"; "" when none were taken."""
    return ", ".join(f"{stage} {ms:,.1f} ms" for stage, ms in result.timings_ms.items())


def _contents(answers: Sequence[Answer]) -> str:
    links = "".join(f'<li><a href="#q{i}">{escape(a.question.name)}</a></li>' for i, a in enumerate(answers, start=1))
    return f"<nav aria-label=Questions><ol>{links}</ol></nav>"


def _section(number: int, answer: Answer) -> str:
    question, result = answer.question, answer.result
    chips = "".join(
        f'<li class="{kind}"><span class=sr>{said}: </span>{escape(example_name(example, answer.names))}</li>'
        for kind, said, examples in (("yes", "like", question.positive), ("no", "not like", question.negative))
        for example in examples
    )
    facts = [f"{len(result.hits):,} shown", describe_claim(result), describe_timings(result)]
    if question.threshold is not None:
        facts.insert(1, f"score at least {question.threshold:g}")
    hits = "\n".join(_hit(rank, hit, answer) for rank, hit in enumerate(result.hits, start=1))
    grid = f"<ol class=hits>\n{hits}\n</ol>" if hits else "<p class=none>Nothing in the collection matches.</p>"
    return (
        f'<section id="q{number}" aria-labelledby="h{number}">\n<h2 id="h{number}">{escape(question.name)}</h2>\n'
        f"<ul class=examples>{chips}</ul>\n<p class=facts>{escape('; '.join(f for f in facts if f))}</p>\n"
        f"{grid}\n</section>"
    )


def _hit(rank: int, hit: Hit, answer: Answer) -> str:
    positive = escape(example_name(hit.positive, answer.names))
    reasons = f"<div><dt>looks like</dt> <dd class=yes>{positive}</dd></div>"
    if hit.negative is not None:
        negative = escape(example_name(hit.negative, answer.names))
        reasons += f"<div><dt>nearest not</dt> <dd class=no>{negative}</dd></div>"
    margin = "" if hit.margin == math.inf else f'<span class=margin title="margin">{hit.margin:+.3f}</span>'
    return (
        f"<li><figure>{_image(hit, answer)}<figcaption>"
        f'<p class=scores><span class=rank>{rank}</span><span class=score title="score">{hit.score:.3f}</span>'
        f"{margin}</p><dl>{reasons}</dl>"
        f'<p class=key title="{escape(hit.key)}">{escape(hit.key)}</p></figcaption></figure></li>'
    )


def _image(hit: Hit, answer: Answer) -> str:
    picture = answer.pictures.get(hit.id)
    if picture is None:
        return "<div class=missing>no picture</div>"
    assert _MEDIA_TYPE.fullmatch(picture.media_type), picture.media_type
    data = base64.b64encode(picture.data).decode()
    alt = escape(answer.captions.get(hit.id) or hit.key)
    shown = (
        f'<img src="data:{picture.media_type};base64,{data}" alt="{alt}" '
        f'width="{picture.width}" height="{picture.height}" loading="lazy" decoding="async">'
    )
    return shown if hit.box is None else f"<div class=framed>{shown}{_frame(hit.box, picture)}</div>"


def _frame(box: Box, picture: Picture) -> str:
    """The box over its picture, which stands in the middle of a square."""
    side = max(picture.width, picture.height)
    x0, y0, x1, y1 = (min(max(end, 0.0), 1.0) for end in box)
    left, width = ((side - picture.width) / 2 + x0 * picture.width) / side, (x1 - x0) * picture.width / side
    top, height = ((side - picture.height) / 2 + y0 * picture.height) / side, (y1 - y0) * picture.height / side
    style = f"left:{left:.2%};top:{top:.2%};width:{width:.2%};height:{height:.2%}"
    return f'<span class=box style="{style}"></span>'


_LEGENDS = {
    "none": "Score: cosine similarity to the closest positive example. ",
    "regions": "Score: how sure the detector is that the box shows the closest positive example, 0 to 1. ",
    "background": "Score: how far the likeness to the closest positive example stands out in this collection. ",
}
_LEGENDS = {
    kind: text + "Margin, after the + sign: by how much it beats the closest negative example."
    for kind, text in _LEGENDS.items()
}

_STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #fff; --ink: #1f2328; --soft: #5c6370; --line: #e4e2dc;
  --yes: #17603a; --yes-bg: #e3f1e8; --no: #8f2f2a; --no-bg: #f8e6e3; --link: #2a5a9c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --card: #1e2126; --ink: #e8e6e1; --soft: #a3a9b3; --line: #2e3238;
    --yes: #8fd3aa; --yes-bg: #1d3327; --no: #f0a49c; --no-bg: #3a2422; --link: #9bbdf0; } }
* { box-sizing: border-box; margin: 0; padding: 0; }
body { background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, main, footer { max-width: 1320px; margin: 0 auto; padding: 0 clamp(16px, 3vw, 40px); }
header { padding-top: clamp(28px, 5vw, 56px); }
.kicker { color: var(--soft); font-size: .8125rem; letter-spacing: .08em; text-transform: uppercase; }
h1 { font-size: clamp(1.6rem, 4vw, 2.25rem); font-weight: 600; letter-spacing: -.015em; line-height: 1.2;
  overflow-wrap: anywhere; }
.about, .facts, footer { color: var(--soft); font-size: .9375rem; }
.about { margin-top: 6px; }
nav ol { display: flex; flex-wrap: wrap; gap: 6px 20px; list-style: none; margin-top: 18px; }
a { color: var(--link); text-underline-offset: 3px; }
section { margin-top: clamp(36px, 5vw, 56px); padding-top: 22px; border-top: 1px solid var(--line); }
h2 { font-size: 1.375rem; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
.examples { display: flex; flex-wrap: wrap; gap: 8px; list-style: none; margin: 10px 0 8px; }
.examples li { border-radius: 999px; padding: 3px 12px; font-size: .9375rem; overflow-wrap: anywhere; }
.examples .yes { background: var(--yes-bg); color: var(--yes); }
.examples .no { background: var(--no-bg); color: var(--no); }
.examples .no::before { content: "not "; font-style: italic; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(190px, 44%), 1fr));
  gap: clamp(10px, 1.4vw, 20px); list-style: none; margin-top: 20px; }
figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; height: 100%; }
img, .missing { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain;
  background: var(--page); border-bottom: 1px solid var(--line); }
.missing { display: grid; place-items: center; color: var(--soft); font-size: .875rem; }
.framed { position: relative; }
.box { position: absolute; border: 2px solid #fff; outline: 2px solid #d0342c; outline-offset: 0; }
figcaption { padding: 10px 12px 12px; font-size: .875rem; }
.scores { display: flex; align-items: baseline; gap: 8px; font-variant-numeric: tabular-nums; }
.rank { color: var(--soft); min-width: 1.4em; }
.score { font-weight: 600; font-size: 1rem; }
.margin { margin-left: auto; color: var(--soft); }
dl { margin-top: 6px; }
dl div + div { margin-top: 2px; }
dt, dd { display: inline; overflow-wrap: anywhere; }
dt { color: var(--soft); }
dd.yes { color: var(--yes); }
dd.no { color: var(--no); }
.key { color: var(--soft); margin-top: 8px; font: .75rem/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden;
  overflow-wrap: anywhere; }
.none { margin-top: 20px; color: var(--soft); }
footer { margin-top: 56px; padding-bottom: 48px; max-width: 1320px; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 520px) { figcaption { padding: 8px 10px 10px; } }
@media print { :root { --page: #fff; } figure { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: contact sheet</title>
<style>{style}</style>
</head>
<body>
<header>
<p class=kicker>Contact sheet</p>
<h1>{title}</h1>
{about}
{contents}
</header>
<main>
{sections}
</main>
<footer><p>{legend}</p></footer>
</body>
</html>
"""
