"""What a model reads of a text: refusals of texts that say nothing, notes on what it leaves out, and long texts.

A model's context holds so many tokens. What is beyond it is cut, and two questions that differ in that alone get one
answer; a tokenizer with a vocabulary of words makes one token of all that it does not know. So whoever embeds a text
asks the embedder what it reads (`protocols.ReadsTexts`), and tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from clipsieve.errors import InputError
from clipsieve.types import Float32

LongText = Literal["error", "cut", "average"]
"""What is done with a text that is longer than the model reads: refused, cut, or the mean of its parts taken."""

SHOWN = 200
"""Characters of a text that a note or an error repeats at most."""

WORDS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model reads of one text.

    left_out  its end, which is beyond the model's context; "" where it is read whole
    unknown   words and signs of it that the model has no token for
    nothing   nothing of it reaches the model: two such texts have the same vector
    """

    left_out: str = ""
    unknown: tuple[str, ...] = ()
    nothing: bool = False


def check_long_text(how: str) -> None:
    """InputError unless it is a LongText."""
    if how not in get_args(LongText):
        raise InputError(f"long_text is {how!r}; choose one of {', '.join(get_args(LongText))}.")


def shown(text: str) -> str:
    """The text, shortened in its middle to SHOWN characters."""
    half = SHOWN // 2 - 2
    return text if len(text) <= SHOWN else f"{text[:half]} ... {text[-half:]}"


def read_texts(embedder: Any, texts: Sequence[str]) -> list[Reading]:
    """What an embedder reads of each text: all of it, where it does not say (`protocols.ReadsTexts`)."""
    if not hasattr(embedder, "read_texts"):
        return [Reading()] * len(texts)
    return list(embedder.read_texts(texts))


def split_text(embedder: Any, text: str) -> list[str]:
    """A text in parts that the embedder reads whole; the text alone, where it does not say."""
    return list(embedder.split_text(text)) if hasattr(embedder, "split_text") else [text]


def notes_of(
    texts: Sequence[str], prompts: Sequence[str], embedder: Any, long_text: LongText = "cut"
) -> tuple[str, ...]:
    """What is to be told of texts that are embedded: sentences, none twice.

    prompts   what is wrapped around each, with a {} where it goes
    embedder  a ReadsTexts, or one that does not say what it reads, of which there is nothing to tell
    """
    model, notes = _name(embedder), []
    for text in dict.fromkeys(texts):
        readings = read_texts(embedder, [prompt.replace("{}", text) for prompt in prompts])
        cut = [one.left_out for one in readings if one.left_out]
        if cut and long_text == "average":
            notes.append(f"{model} reads the text {shown(text)!r} in parts, and the mean of their vectors is taken.")
        elif cut:
            several = f" in {len(cut)} of {len(prompts)} templates" if len(prompts) > 1 else ""
            rest = shown(max(cut, key=len))
            notes.append(
                f"The text {shown(text)!r} is longer than {_lower(model)} reads{several}: {rest!r} is left out."
            )
        (own,) = readings if tuple(prompts) == ("{}",) else read_texts(embedder, [text])
        if own.unknown:
            notes.append(f"{model} does not know {_words(own.unknown)}, in the text {shown(text)!r}.")
    return tuple(dict.fromkeys(notes))


def require_read(embedder: Any, texts: Sequence[str]) -> None:
    """InputError for a text of which nothing reaches the embedder's model."""
    for text, reading in zip(texts, read_texts(embedder, texts), strict=True):
        if reading.nothing:
            raise InputError(
                f"{_name(embedder)} reads nothing of the text {shown(text)!r}; write it in words that it knows."
            )


def read_with(embedder: Any, long_text: LongText = "cut") -> Callable[[Sequence[str]], Float32]:
    """The embedder's `embed_texts` for texts as people write them: float32 (n, d), unit rows.

    InputError for a text of which nothing reaches the model, and with "error" for one that is longer than it reads.
    With "average" such a text is embedded in parts, cut between words, and gets the mean of their vectors, of length 1.
    """

    def embed(texts: Sequence[str]) -> Float32:
        readings = read_texts(embedder, texts)
        require_read(embedder, texts)
        for text, reading in zip(texts, readings, strict=True):
            if reading.left_out and long_text == "error":
                raise InputError(
                    f"The text {shown(text)!r} is longer than {_lower(_name(embedder))} reads, which leaves out "
                    f"{shown(reading.left_out)!r}; shorten it, or allow that with --long-text cut or average."
                )
        long = [i for i, reading in enumerate(readings) if reading.left_out] if long_text == "average" else []
        rows: Float32 = embedder.embed_texts(texts)
        for i in long:
            mean = embedder.embed_texts(split_text(embedder, texts[i])).mean(axis=0)
            rows[i] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return rows

    return embed


def _name(embedder: Any) -> str:
    name = embedder.model.name
    return "The demo model" if name == "mini" else f"The model {name!r}"


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


def _words(words: Sequence[str]) -> str:
    more = f" and {len(words) - WORDS_SHOWN} others" if len(words) > WORDS_SHOWN else ""
    return ", ".join(repr(shown(word)) for word in words[:WORDS_SHOWN]) + more
