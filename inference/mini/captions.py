"""The demo model's language: how people may word what a scene or a photograph shows.

Captions are drawn at random from a small grammar, with synonyms, so that the text tower learns words and not one
template. The grammar is also the vocabulary: `vocabulary()` lists every word it can say, and the tokenizer maps all
others to one unknown word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from clipsieve.inference.mini.scenes import COLOURS, SHAPES, SIZES, TEXTURES, Ask, Part

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The ten classes of CIFAR-10, in its order."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("plane", "aeroplane", "jet", "airliner", "aircraft", "jumbo jet", "jet plane", "passenger plane"),
    "automobile": ("car", "sedan", "auto", "motorcar", "hatchback", "sports car", "passenger car", "suv", "taxi"),
    "bird": ("songbird", "sparrow", "ostrich", "finch", "birdie", "feathered animal", "robin", "emu", "wild bird"),
    "cat": ("kitten", "kitty", "feline", "tomcat", "pussycat", "tabby", "house cat", "tabby cat"),
    "deer": ("stag", "doe", "fawn", "buck", "reindeer", "elk", "moose", "roe deer", "antlered animal"),
    "dog": ("puppy", "doggy", "hound", "canine", "pup", "doggie", "terrier", "puppy dog", "spaniel", "poodle"),
    "frog": ("toad", "bullfrog", "tree frog", "froggy", "amphibian", "treefrog"),
    "horse": ("pony", "stallion", "mare", "foal", "steed", "colt", "racehorse", "equine"),
    "ship": ("boat", "vessel", "ferry", "freighter", "cargo ship", "ocean liner", "yacht", "sailboat", "warship"),
    "truck": ("lorry", "semi", "fire truck", "dump truck", "delivery truck", "big rig", "fire engine", "semi truck"),
}
"""Everyday words for each class, singular."""

GROUPS: dict[str, frozenset[str]] = {
    "animal": frozenset({"bird", "cat", "deer", "dog", "frog", "horse"}),
    "vehicle": frozenset({"airplane", "automobile", "ship", "truck"}),
    "pet": frozenset({"cat", "dog"}),
    "mammal": frozenset({"cat", "deer", "dog", "horse"}),
    "road vehicle": frozenset({"automobile", "truck"}),
    "flying thing": frozenset({"airplane", "bird"}),
    "machine": frozenset({"airplane", "automobile", "ship", "truck"}),
    "living thing": frozenset({"bird", "cat", "deer", "dog", "frog", "horse"}),
}
"""Words for several classes at once."""

PHOTO_TEMPLATES = (
    *("{}", "a {}", "a {}", "the {}", "one {}", "{}s", "a photo of a {}", "a photo of a {}", "a picture of a {}"),
    *("an image of a {}", "a photo of the {}", "a small photo of a {}", "a blurry photo of a {}", "a {} in a photo"),
    *("a low resolution photo of a {}", "a close up photo of a {}", "this is a {}", "there is a {}", "a nice {}"),
    *("a cropped photo of a {}", "a good photo of a {}", "a bad photo of a {}", "a photo of {}s", "a large {}"),
    *("a photo of one {}", "a small {}", "a photograph of a {}", "it is a {}", "an old photo of a {}", "a {} outside"),
)
DRAWING_TEMPLATES = (
    *("{}", "{}", "{}", "{}", "a picture of {}", "an image of {}", "a photo of {}", "a drawing of {}", "there is {}"),
    *("an image with {}", "a picture with {}", "a scene with {}", "this is {}", "a picture that shows {}"),
)
JOINS = ("with", "with", "and", "and", "next to", "beside", "together with", "near", "plus", "along with")

_SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk"),
    "cross": ("cross", "cross", "cross", "plus sign"),
    "crescent": ("crescent", "crescent", "crescent", "moon", "crescent moon"),
    "ring": ("ring", "ring", "ring", "donut"),
    "bolt": ("bolt", "lightning bolt", "bolt", "lightning bolt"),
    "diamond": ("diamond", "diamond", "diamond", "rhombus"),
    "flower": ("flower", "flower", "flower", "blossom"),
}
_COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "purple": ("purple", "purple", "violet"),
    "gray": ("gray", "grey"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua"),
}
_TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "checked"),
}
_SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized"),
    "large": ("large", "big", "huge"),
}
_THINGS = ("thing", "object", "shape")
_NUMBERS = {1: ("one", "a single", "exactly one"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_FILLERS = ("not", "no", "but", "some", "any", "very", "my", "our", "in", "of", "on", "at", "or", "is", "are", "has")


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "ss")) else "s")


def _article(phrase: str) -> str:
    return "an " + phrase if phrase[0] in "aeiou" else "a " + phrase


def _place(rng: np.random.Generator, part: Part) -> str:
    if part.row and part.column:
        if (part.row, part.column) == ("middle", "center"):
            return _pick(rng, (" in the center", " in the middle", " at the center"))
        row = "middle" if part.row == "middle" else part.row
        return _pick(rng, (f" in the {row} {part.column}", f" at the {row} {part.column}"))
    if part.row:
        return _pick(rng, (f" at the {part.row}", f" in the {part.row}"))
    if part.column:
        return _pick(rng, (f" on the {part.column}", f" at the {part.column}"))
    return ""


def _phrase(rng: np.random.Generator, part: Part) -> str:
    """One part in words: "a small striped red circle in the top left", "two hearts", "something blue"."""
    if part.shape is None and part.colour and not (part.texture or part.size or part.count) and rng.random() < 0.4:
        return _pick(rng, ("something ", "anything ", "")) + part.colour + _place(rng, part)
    noun = _pick(rng, _SHAPE_WORDS.get(part.shape, (part.shape,))) if part.shape else _pick(rng, _THINGS)
    words = [
        _pick(rng, _SIZE_WORDS[part.size]) if part.size else "",
        _pick(rng, _TEXTURE_WORDS[part.texture]) if part.texture else "",
        _pick(rng, _COLOUR_WORDS.get(part.colour, (part.colour,))) if part.colour else "",
    ]
    if part.count and part.count > 1:
        words = [_pick(rng, _NUMBERS[part.count]), *words, _plural(noun)]
        return " ".join(w for w in words if w) + _place(rng, part)
    phrase = " ".join([*(w for w in words if w), noun])
    if part.count == 1:
        phrase = f"{_pick(rng, _NUMBERS[1])} {phrase}"
    else:
        roll = rng.random()
        phrase = _article(phrase) if roll < 0.7 else (f"the {phrase}" if roll < 0.78 else phrase)
    return phrase + _place(rng, part)


def describe(rng: np.random.Generator, ask: Ask) -> str:
    """A random wording of a statement about a scene."""
    body = _phrase(rng, ask.parts[0])
    for part in ask.parts[1:]:
        body = f"{body} {_pick(rng, JOINS)} {_phrase(rng, part)}"
    return _pick(rng, DRAWING_TEMPLATES).format(body)


def describe_class(rng: np.random.Generator, name: str) -> str:
    """A random wording for a photograph of a CIFAR-10 class, or of a group of them: its name or a synonym."""
    words = (name, *SYNONYMS.get(name, ()))
    word = name if rng.random() < 0.35 else _pick(rng, words)
    return fill(_pick(rng, PHOTO_TEMPLATES), word)


def fill(template: str, noun: str) -> str:
    """`template` with `noun` in its gap, a/an and the plural put right: fill("{}s", "finch") is "finches"."""
    if "{}s" in template:
        return template.replace("{}s", _plural(noun))
    text = template.format(noun)
    return text.replace(f"a {noun}", f"an {noun}") if noun[0] in "aeiou" else text


def vocabulary() -> tuple[str, ...]:
    """Every word the grammar can say, sorted."""
    nouns = [*_THINGS, *SHAPES, *itertools.chain(*_SHAPE_WORDS.values()), *CLASSES, *GROUPS]
    nouns += itertools.chain(*SYNONYMS.values())
    phrases: list[Iterable[str]] = [
        nouns,
        map(_plural, nouns),
        PHOTO_TEMPLATES,
        DRAWING_TEMPLATES,
        JOINS,
        COLOURS,
        *_COLOUR_WORDS.values(),
        TEXTURES,
        *_TEXTURE_WORDS.values(),
        SIZES,
        *_SIZE_WORDS.values(),
        *_NUMBERS.values(),
        ("something anything an the a on at in top middle bottom left center right",),
        _FILLERS,
    ]
    words = itertools.chain(*(phrase.replace("{}", " ").split() for phrase in itertools.chain(*phrases)))
    return tuple(sorted(set(words) - {"s"}))
