"""How the C library hands out memory: kept by the process rather than returned after every step.

A training step on CPU allocates and frees a few hundred MB (the logits alone 200 MB for 1,000 tokens of a vocabulary of
49,152). glibc serves such blocks by mmap and gives them back at once, and the kernel clears the pages anew in every
step: a third of the time of a step went there (LOG.md has the numbers).
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_heap() -> bool:
    """Tell glibc to keep freed memory for this process; False where there is no glibc. For programs, not libraries."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26))
    # All three are set, whatever one of them answers.
    return sum(mallopt(key, value) for key, value in settings) == len(settings)
