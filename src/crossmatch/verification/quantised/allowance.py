"""What the error of an honest quantisation looks like, by type: measured with llama.cpp's own encoders (with and
without an importance matrix) on normal, heavy-tailed and unevenly scaled weights, and widened by about a fifth.

    python benchmarks/quantised.py --ggml libggml-base.so

    type     mean square  gain of W      worst row  1 in 1000   weights 0.3/0.7 at delta sizes 0.1, 0.03, 0.01
                                                                error/stderr (rms)  largest error at 0.1
    Q8_0     0.98-1.00    1.000          1.09       0.75        0.91                0.0001
    Q6_K     0.84-1.00    0.998-1.000    1.21       1.49        1.24                0.0005
    Q5_K     0.87-0.94    0.997-0.999    1.20       1.14        1.02                0.0009
    Q5_1     0.86-1.00    0.998-1.000    1.11       1.02        1.07                0.0016
    Q5_0     0.94-1.00    0.996-1.000    1.13       1.17        1.13                0.0020
    Q4_K     0.78-0.90    0.991-0.997    1.18       1.19        1.14                0.0029
    Q4_1     0.86-1.00    0.992-1.001    1.13       1.11        1.10                0.0024
    Q4_0     0.95-1.01    0.987-0.998    1.22       1.32        1.58                0.0052
    IQ4_NL   0.91-0.99    0.989-0.993    1.04       0.76        1.04                0.0022
    IQ4_XS   0.92-0.99    0.988-0.993    1.06       0.80        0.82                0.0016
    Q3_K     0.94-1.06    0.956-0.995    1.61       1.73        2.14                0.0091
    Q2_K     0.80-1.07    0.881-0.982    2.42       2.18        1.85                0.0167

Where errors exceed their standard errors (above 1.5), it is where an importance matrix was used: the gain of a delta is
then not quite that of W, and `evidence.GAIN_DOUBT` widens the standard error for it. FP8 and int8, scaled by tensor,
row and 128 x 128 block, were simulated: mean square 0.86-1.00, worst row 1.2, no error beyond a step.
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
