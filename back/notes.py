"""Notes on a question's texts for clients whose answers have a shape of their own: they come in a header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NOTE = "X-Clipsieve-Note"
"""The header: notes in UTF-8, percent-encoded where they are not plain ASCII."""

MOST_LETTERS = 4000
"""Of a header's value: what receives more may refuse the answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of JSON, and the headers that it has besides."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def note_header(notes: Sequence[str]) -> dict[str, str]:
    """The header that tells these notes; {} without any. Of many, as many as there is room for, and how many more."""
    told: list[str] = []
    for note in map(_encoded, notes):
        if sum(map(len, told)) + len(note) > MOST_LETTERS:
            told.append(f"And {len(notes) - len(told)} more notes.")
            break
        told.append(note)
    return {NOTE: " ".join(told)} if told else {}


def _encoded(note: str) -> str:
    return "".join(
        letter if " " <= letter <= "~" and letter != "%" else "".join(f"%{byte:02X}" for byte in letter.encode())
        for letter in note
    )
