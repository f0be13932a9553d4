"""Scores of a classifier as DirectAI's protocol defines them; everything else here goes by `rule`.

With the relevancy d = (1 + cos) / 2, P the greatest of a class's positives and N of its negatives:

    raw     P if P > N (a tie goes to the negative), 1 - N otherwise; P where the class has no negatives
    scores  softmax over the classes of raw / 0.07
    pred    the class of the greatest raw score, of equals the first

Where cosines are negative a rejected class may so outrank an accepted one, which `rule.rank_score` never lets happen.
It is the protocol's formula all the same. Decisions are made on float32 cosines and mapped afterwards, in float64:
DirectAI maps first, in half precision, which flips near-ties and lets scores sum to 1.002.
"""

import numpy as np

from clipsieve.index.calibrate import Float64
from clipsieve.types import Float32

TEMPERATURE = 0.07


def raw_scores(best: Float32, worst: Float32) -> Float64:
    """float64 (c, b) in 0..1 from the cosines P and N, float32 (c, b); N is -inf for a class without negatives."""
    best_, worst_ = best.astype(np.float64), worst.astype(np.float64)
    return np.where(best > worst, (1 + best_) / 2, 1 - (1 + worst_) / 2)


def softmax(raw: Float64) -> Float64:
    """Scores of the classes against each other, float64 (c, b), from raw scores (c, b); they sum to 1 per item."""
    powers: Float64 = np.exp((raw - raw.max(axis=0)) / TEMPERATURE)
    scores: Float64 = powers / powers.sum(axis=0)
    return scores
