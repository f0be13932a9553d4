"""Tokenizers of transformers: loaded only where they are whole, and asked what they make of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipsieve.errors import ModelUnavailable
from clipsieve.inference.text_reader import Count, Unknown

VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""Files of which a tokenizer has at least one."""


def load_tokenizer(source: str, vocabulary: int) -> Any:
    """The tokenizer in the folder or hub repository `source`, for a model of so many token ids.

    ModelUnavailable where there is none, or one that is not this model's: transformers makes an empty one then, with
    which all texts are the same. Raises whatever transformers does where files cannot be read.
    """
    from transformers import AutoTokenizer

    lacking = f"The model {source!r} has no tokenizer (tokenizer.json, or its vocabulary); add the files, or use"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        if _has_vocabulary(source):
            raise
        raise ModelUnavailable(f"{lacking} a whole checkpoint.") from error
    require_tokenizer(tokenizer, source, vocabulary)
    return tokenizer


def require_tokenizer(tokenizer: Any, source: str, vocabulary: int) -> None:
    """ModelUnavailable unless the tokenizer knows tokens, all of them below `vocabulary` (0: of no known number)."""
    ids = tokenizer.get_vocab()
    if set(ids) <= {str(token) for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab())}:
        raise ModelUnavailable(
            f"The model {source!r} has no tokenizer: there is no vocabulary beside its special tokens; add its "
            "tokenizer.json, or use a whole checkpoint."
        )
    largest = max(ids.values())
    if vocabulary and largest >= vocabulary:
        raise ModelUnavailable(
            f"The tokenizer of {source!r} is another model's: its token ids go up to {largest} and the model has "
            f"{vocabulary}; take the files from one checkpoint."
        )


def count_with(tokenizer: Any) -> Count:
    """How many token ids a tokenizer makes of each text, its ends included, before they are cut."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False).input_ids]

    return count


def unknown_with(tokenizer: Any, *, whole_words: bool = False) -> Unknown | None:
    """Which words a tokenizer has no token for; None for one that has a token for everything.

    whole_words  the model knows no word but those that are one token each
    """
    unknown = tokenizer.unk_token_id
    if unknown is None and not whole_words:
        return None

    def ask(words: Sequence[str]) -> list[bool]:
        if not words:
            return []
        made = tokenizer(list(words), add_special_tokens=False, truncation=False, verbose=False).input_ids
        return [not ids or unknown in ids or (whole_words and len(ids) > 1) for ids in made]

    return ask


def _has_vocabulary(source: str) -> bool:
    folder = Path(source)
    return not folder.is_dir() or any((folder / name).exists() for name in VOCABULARIES)
