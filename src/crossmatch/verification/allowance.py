"""What the error of an honest quantisation looks like, by type: measured with llama.cpp's own encoders (with and
without an importance matrix) on normal, heavy-tailed and unevenly scaled weights, and widened by about a fifth.

    python benchmarks/quantised.py --ggml libggml-base.so
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """How an honest export of one type errs, in units of one rounding to the stored steps.

    low, high: mean square; row: highest mean square of one row; gross: distance in steps that no more than one element
    in a thousand exceeds.
    """

    low: float
    high: float
    row: float
    gross: float


# An importance matrix lets the encoder cut unimportant values: more than the step says, far away in places.
ALLOWED: Mapping[str, Allowance] = {
    **dict.fromkeys(("F32", "F16", "BF16"), Allowance(0.0, 1.2, 3.0, 1.1)),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "Q8_0"), Allowance(0.7, 1.2, 3.0, 1.1)),
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1"), Allowance(0.7, 1.2, 3.0, 2.0)),
    **dict.fromkeys(("IQ4_NL", "IQ4_XS", "Q6_K", "Q5_K"), Allowance(0.65, 1.2, 3.0, 2.0)),
    "Q4_K": Allowance(0.6, 1.15, 3.0, 2.0),
    "Q3_K": Allowance(0.7, 1.3, 4.0, 2.5),
    "Q2_K": Allowance(0.6, 1.35, 8.0, 4.0),
}
GROSS_SHARE = 1e-3
