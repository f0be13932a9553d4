import math
import re
from html.parser import HTMLParser

import pytest

from clipsieve.contact_sheet import Answer, Picture, contact_sheet, describe_claim, example_name
from clipsieve.types import Example, Hit, MetaClass, QueryResult

HOSTILE = "\"><script>alert(1)</script><img src=http://evil.example/x onerror='alert(2)'>.jpg"
PICTURE = Picture(b"not really a picture", "image/webp", 320, 200)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects tags with attributes and text, and fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert [t for t in self.open if t not in {"p", "li"}] == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def answer(key="a.jpg", negative=("red truck",), **kw):
    negative = [Example(text=n) for n in negative]
    hit = Hit(7, key, 0.3125, 0.04 if negative else math.inf, Example(text="red bus"), *negative[:1])
    question = MetaClass(kw.pop("name", "bus"), ["red bus"], negative, threshold=kw.pop("threshold", None))
    result = QueryResult((hit,), kw.pop("claim", "exact"), recall=kw.pop("recall", None), timings_ms={"search": 1.25})
    return Answer(question, result, {7: PICTURE}, **kw)


def test_a_hit_shows_its_score_margin_and_reasons():
    text = Page(contact_sheet("photos", [answer()])).text
    for shown in ("0.312", "+0.040", "looks like red bus", "nearest not red truck", "a.jpg", "search 1.2 ms", "exact"):
        assert shown in text, shown


def test_without_negatives_there_is_no_margin_and_no_nearest_not():
    text = Page(contact_sheet("photos", [answer(negative=())])).text
    assert "nearest not" not in text
    assert "inf" not in text


@pytest.mark.parametrize("where", ["key", "name", "caption", "title", "about", "example"])
def test_hostile_text_stays_text(where):
    kw = {"key": {"key": HOSTILE}, "name": {"name": HOSTILE}, "caption": {"captions": {7: HOSTILE}}}.get(where, {})
    if where == "example":
        kw = {"negative": (HOSTILE,)}
    page = Page(
        contact_sheet(
            HOSTILE if where == "title" else "photos", [answer(**kw)], about=HOSTILE if where == "about" else ""
        )
    )
    assert page.all("script") == []
    assert len(page.all("img")) == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_nothing_outside_the_file_is_asked_for():
    text = contact_sheet("photos", [answer(), answer(name="lorry")])
    page = Page(text)
    sources = [v for _, attrs in page.tags for k, v in attrs.items() if k in {"src", "href", "srcset", "action"}]
    assert all(s.startswith(("data:image/", "#")) for s in sources)
    assert "url(" not in text
    assert "@import" not in text
    assert any("default-src 'none'" in m.get("content", "") for m in page.all("meta"))
    assert page.all("link") == []


def test_pictures_have_size_and_words_and_load_late():
    (img,) = Page(contact_sheet("photos", [answer(captions={7: "a bus in the rain"})])).all("img")
    assert (img["width"], img["height"], img["loading"], img["alt"]) == ("320", "200", "lazy", "a bus in the rain")
    (img,) = Page(contact_sheet("photos", [answer()])).all("img")
    assert img["alt"] == "a.jpg"


def test_a_hit_without_picture_and_an_answer_without_hits_say_so():
    bare = answer()
    page = Page(contact_sheet("photos", [Answer(bare.question, bare.result)]))
    assert page.all("img") == []
    assert "no picture" in page.text
    nothing = QueryResult((), "exact")
    assert "Nothing in the collection matches" in contact_sheet("photos", [Answer(bare.question, nothing)])


def test_headings_and_links_lead_to_the_questions():
    page = Page(contact_sheet("photos", [answer(), answer(name="lorry")]))
    assert len(page.all("h1")) == 1
    assert len(page.all("h2")) == 2
    targets = {a["href"][1:] for a in page.all("a")}
    assert targets == {s["id"] for s in page.all("section")}
    assert page.all("html") == [{"lang": "en"}]


def test_claims_are_told_apart():
    assert describe_claim(QueryResult((), "exact")).startswith("exact")
    assert "0.970" in describe_claim(QueryResult((), "complete", recall=0.97))
    assert describe_claim(QueryResult((), "partial")).startswith("partial")


def test_an_image_example_is_called_by_its_name():
    assert example_name(Example(image=17), {17: "holiday/bus.jpg"}) == "holiday/bus.jpg"
    assert example_name(Example(image=17), {}) == "item 17"
    assert example_name(Example(image="ab" * 32), {}) == "image abababab"


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("ink", "paper"),
    [("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("link", "page")]
    + [(kind, paper) for kind in ("yes", "no") for paper in ("card", f"{kind}-bg")],
)
def test_colours_contrast_enough_in_light_and_dark(scheme, ink, paper):
    """WCAG AA: 4.5 to 1."""
    text = contact_sheet("photos", [answer()])
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", text.split(":root")[1 + scheme].partition("}")[0]))

    def luminance(name):
        digits = colours[name][1:]
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5
