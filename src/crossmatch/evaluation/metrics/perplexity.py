"""Statistics that are a ratio of sums over items: what has more tokens weighs more."""

import numpy as np

from crossmatch.statistics.estimates import Array, Ratio

# Columns of a document: summed negative log-likelihood in nats, tokens, bytes of UTF-8.
NATS, TOKENS, BYTES = range(3)


def _bits(nats: Array) -> Array:
    return nats / np.log(2.0)


nats_per_token = Ratio(NATS, TOKENS)
"""Negative log-likelihood per token: long documents weigh more; (draws, 3) to (draws,)."""
perplexity = Ratio(NATS, TOKENS, np.exp)
"""exp of the same (Jelinek et al., 1977)."""
bits_per_byte = Ratio(NATS, BYTES, _bits)
"""The same information per byte of UTF-8: can be compared between tokenizers."""
mean_of_known = Ratio(0, 1)
"""Mean over what is known: summed values over their number; (draws, 2) to (draws,)."""
