"""Texts that come as token ids, padded by whoever tokenized them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.inference.checkpoint import Tensors
from clipsieve.types import Int64


class TokenIds:
    """Makes of token ids what a tokenizer makes of texts.

    blank       the tokenizer's own of the empty text, which shows what it pads with
    vocabulary  ids are below this
    """

    def __init__(self, blank: Tensors, vocabulary: int) -> None:
        self._name = "input_ids" if "input_ids" in blank else min(blank)
        self._blank = blank
        self._vocabulary = vocabulary
        self.length: int = len(blank[self._name])

    def tensors(self, ids: Int64) -> list[Tensors]:
        """int64 (n, length) -> n texts. InputError for another length, and for ids out of range."""
        if ids.ndim != 2 or ids.shape[1] != self.length:
            raise InputError(
                f"Token ids of the shape {ids.shape} were given; the model takes {self.length} of each text."
            )
        outside = (ids < 0) | (ids >= self._vocabulary)
        if outside.any():  # a device would stop working for everybody
            raise InputError(
                f"The token id {ids[outside][0]} is not one of the model's, which are 0 to {self._vocabulary - 1}."
            )
        return [self._one(row) for row in ids]

    def _one(self, ids: Int64) -> Tensors:
        made: dict[str, npt.NDArray[Any]] = {}
        for name, like in self._blank.items():
            given = ids if name == self._name else self._mask(ids) if name == "attention_mask" else np.zeros_like(like)
            made[name] = np.ascontiguousarray(given, like.dtype)
        return made

    def _mask(self, ids: Int64) -> Int64:
        """1 for the text and 0 for its padding, as the tokenizer has it. CLIP's is padded with what also ends it."""
        mask = np.ones(len(ids), np.int64)
        own, shown = self._blank[self._name], self._blank["attention_mask"]
        if not (shown == 0).any():
            return mask
        padding = own[shown == 0][0]
        text = np.flatnonzero(ids != padding)
        end = (text[-1] + 1 if len(text) else 0) + int((own[shown == 1] == padding).any())
        mask[end:] = 0
        return mask
