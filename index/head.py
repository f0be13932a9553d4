"""What says of an image by its vector alone that it is to be left out: LAION's safety models, and prompts of violence.

A safety model is a few dense layers, which numpy computes. They come as the tensors of a torch state dict; what lies
between the layers is told by their names, as a state dict does not say it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.index.rule import Bool
from clipsieve.types import Float32

BLOCK = 4096
"""Rows computed at once: the widest of the known layers needs 32 MB for them."""

H14 = (0, 3, 6, 9, 12, 15, 16)
"""The linear layers in the sequence of LAION's model for ViT-H/14: ReLU and dropout between all but the last three."""


_NORM = ("norm.mean", "norm.variance")


class Head(Protocol):
    """Flags vectors."""

    @property
    def dim(self) -> int:
        """d, the dimensions of a vector."""

    @property
    def cost(self) -> int:
        """Multiplications that looking at a vector takes."""

    def flags(self, vectors: Float32) -> Bool:
        """float32 (n, d), unit rows -> bool (n,), whether each is to be left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """weight float32 (inputs, outputs), bias float32 (outputs,); relu: what is below 0 becomes 0."""

    weight: Float32
    bias: Float32
    relu: bool


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A Head of dense layers: flags what scores above the threshold.

    mean, deviation  float32 (d,): subtracted from a vector, and what it is divided by then
    sigmoid          the score is that of the last layer's output, between 0 and 1; else the output itself
    """

    layers: Sequence[Layer]
    mean: Float32
    deviation: Float32
    sigmoid: bool
    threshold: float = 0.5

    @property
    def dim(self) -> int:
        """See Head."""
        return len(self.mean)

    @property
    def cost(self) -> int:
        """See Head."""
        return sum(layer.weight.size for layer in self.layers)

    def scores(self, vectors: Float32) -> Float32:
        """float32 (n, d), unit rows -> float32 (n,)."""
        blocks = [self._scores(vectors[at : at + BLOCK]) for at in range(0, len(vectors), BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def flags(self, vectors: Float32) -> Bool:
        """See Head."""
        return self.scores(vectors) > self.threshold

    def _scores(self, vectors: Float32) -> Float32:
        values = (vectors - self.mean) / self.deviation
        for layer in self.layers:
            values = values @ layer.weight + layer.bias
            if layer.relu:
                np.maximum(values, 0, out=values)
        score: Float32 = values[:, 0]
        return 0.5 * (1 + np.tanh(0.5 * score)) if self.sigmoid else score


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """A Head that flags what is nearest to the second of its vectors, float32 (p, d), as clip-retrieval does it."""

    vectors: Float32

    @property
    def dim(self) -> int:
        """See Head."""
        return len(self.vectors[0])

    @property
    def cost(self) -> int:
        """See Head."""
        return self.vectors.size

    def flags(self, vectors: Float32) -> Bool:
        """See Head."""
        nearest: Bool = (vectors @ self.vectors.T).argmax(axis=1) == 1
        return nearest


def make_prompts(array: npt.NDArray[Any], source: str) -> Prompts:
    """Prompts of an array of numbers, (p, d) with p at least 2. InputError names the source if it is none."""
    if array.ndim != 2 or len(array) < 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(
            f"{source} holds {array.dtype} {array.shape}; give a row for each prompt, the second of violence."
        )
    return Prompts(array.astype(np.float32))


def make_network(state: Mapping[str, npt.NDArray[Any]], source: str, threshold: float = 0.5) -> Network:
    """The safety model of a state dict, name -> array, whose linear layers have `weight` (outputs, inputs) and `bias`.

    It is one of LAION's: `linear_1`, `linear_2`, ... with ReLU between them and a sigmoid at the end (ViT-B/32,
    ViT-L/14); `layers` with the numbers of H14 (ViT-H/14); or a single linear layer without a name. Before them there
    may be a normalisation, `norm.mean` and `norm.variance`. InputError names the source if it is none of them.
    """
    norm = [state[name] for name in _NORM if name in state]
    found = _layout({name for name in state if name not in _NORM})
    if found is None or len(norm) == 1:
        raise InputError(
            f"{source} is not laid out as one of LAION's safety models (it holds {', '.join(sorted(state)[:4])}, ...); "
            "name the layers linear_1, linear_2, ... if ReLU is between them and a sigmoid at the end."
        )
    names, relu, sigmoid = found
    weights, biases = ([state[f"{name}{what}"] for name in names] for what in ("weight", "bias"))
    dims = [weights[0].shape[-1] if weights[0].ndim else 0, *(bias.size for bias in biases)]
    wanted = [*pairwise(dims), *((dim,) for dim in dims[1:]), *[(dims[0],)] * len(norm)]
    if [array.T.shape for array in (*weights, *biases, *norm)] != wanted or dims[-1] != 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in state.items())
        raise InputError(f"{source} has layers that do not follow each other to a single number ({shapes}).")
    if not all(np.isfinite(array).all() for array in state.values()):
        raise InputError(f"{source} holds what is no number; fetch it again.")
    mean, variance = norm or (np.zeros(dims[0], np.float32), np.ones(dims[0], np.float32))
    layers = [
        Layer(np.ascontiguousarray(weight.T, np.float32), bias.astype(np.float32), r)
        for weight, bias, r in zip(weights, biases, relu, strict=True)
    ]
    deviation = np.sqrt(variance.astype(np.float32)) + np.float32(1e-10)
    return Network(layers, mean.astype(np.float32), deviation, sigmoid, threshold)


def _layout(names: set[str]) -> tuple[list[str], list[bool], bool] | None:
    """What the layers' names begin with, in order; which of them have a ReLU after them; whether a sigmoid ends it."""
    numbered = max(1, len(names) // 2)
    known = [
        ([""], [False], False),
        ([f"linear_{i}." for i in range(1, numbered + 1)], [True] * (numbered - 1) + [False], True),
        ([f"layers.{i}." for i in H14], [True] * 5 + [False] * 2, False),
    ]
    return next((k for k in known if names == {f"{name}{what}" for name in k[0] for what in ("weight", "bias")}), None)
