"""Statistics that are a ratio of sums over items: what has more tokens weighs more."""

import numpy as np

from crossmatch.evaluation.statistics import Array

# Columns of a document: summed negative log-likelihood in nats, tokens, bytes of UTF-8.
NATS, TOKENS, BYTES = range(3)


def nats_per_token(columns: Array) -> Array:
    """Negative log-likelihood per token: long documents weigh more; (draws, 3) to (draws,)."""
    return columns[:, NATS] / columns[:, TOKENS]


def perplexity(columns: Array) -> Array:
    """exp of the same (Jelinek et al., 1977)."""
    return np.exp(nats_per_token(columns))


def bits_per_byte(columns: Array) -> Array:
    """The same information per byte of UTF-8: can be compared between tokenizers."""
    return columns[:, NATS] / columns[:, BYTES] / np.log(2.0)


def mean_of_known(columns: Array) -> Array:
    """Mean over what is known: summed values over their number; (draws, 2) to (draws,), not a number where none is."""
    with np.errstate(invalid="ignore"):
        return columns[:, 0] / columns[:, 1]
