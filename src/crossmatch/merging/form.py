"""The form of what is written, from the words of options: checkpoint or adapter, dtype, sizes of files."""

import re
from typing import Any, cast

from crossmatch.checkpoint import DTYPE_WORDS
from crossmatch.errors import InputError, one_of
from crossmatch.merging.plan import DTYPE_ARGUMENTS, Storage


def check_form(to: str, rank: int | None, *, checkpoint_only: bool) -> None:
    """Raise InputError for options that do not go together."""
    one_of("--to", to, ("checkpoint", "adapter"))
    if to == "checkpoint" and rank is not None:
        raise InputError("--rank needs --to adapter: a checkpoint takes the whole sum")
    if to == "adapter" and checkpoint_only:
        raise InputError("--dtype, --rounding, --shard-size and --sha256 are for checkpoints; an adapter is one file")


def read_storage(dtype: str | None, rounding: str, shard_size: str | None, tied: str) -> Storage:
    """How a checkpoint is stored, from options. Raises InputError for a word that is none of theirs."""
    dtype = DTYPE_WORDS.get(dtype or "", dtype)
    one_of("--dtype", dtype, (None, *DTYPE_ARGUMENTS))
    one_of("--tied", tied, ("refuse", "untie", "keep"))
    form = DTYPE_ARGUMENTS[dtype] if dtype else None
    return Storage(form, rounding, _shard_bytes(shard_size), cast(Any, tied))


def _shard_bytes(text: str | None) -> int | None:
    """--shard-size into bytes: 5GB, 500MB, or single (0: one file). Raises InputError."""
    if text is None:
        return None
    if text == "single":
        return 0
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "": 1}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]b)?", text.lower())
    if match is None or not float(match[1]):
        raise InputError(f"--shard-size {text}: write it as 5GB, 500MB, or single")
    return int(float(match[1]) * units[match[2] or ""])
