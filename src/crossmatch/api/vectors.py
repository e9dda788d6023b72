"""Tuning vectors as files: one entry for each command of `crossmatch vectors`; `crossmatch.vectors` offers them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.results.vectors import AppliedStrengthJson, StrengthNormJson, VectorManifestJson

Strength = float | str | Sequence[float | str]


def __getattr__(name: str) -> Any:
    """What else the room `crossmatch.vectors` holds: `import crossmatch.vectors.vector_file as file` finds it here."""
    try:
        return getattr(sys.modules["crossmatch.vectors"], name)
    except (KeyError, AttributeError):
        raise AttributeError(f"crossmatch.vectors has no {name!r}") from None


def extract(
    base: str | Path,
    tuned: str | Path,
    output: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    dtype: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> "VectorManifestJson":
    """Take tau = tuned - base: dense and exact to one rounding, or of low rank as a PEFT adapter with its error stated.

    base, tuned: directories or hub ids; rank, energy: write an adapter, the best one of this rank, or one that holds
    this share of each matrix's squared norm; dtype: of a dense vector, float32 (None) or float64; seed: of the random
    sketches. The manifest is returned. Raises EqualError if nothing changed, CheckpointError for checkpoints that make
    no pair, InputError for what does not go together.

        >>> import crossmatch
        >>> manifest = crossmatch.vectors.extract("models/base", "models/merged", "tau")
        >>> manifest["predicate"]["dtype"]
        'float32'
    """
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.vectors import LowRankForm
    from crossmatch.vectors.requests import write_difference

    form = None if rank is None and energy is None else LowRankForm(rank, energy, seed)
    pair = Checkpoint(base), Checkpoint(tuned)
    return write_difference(pair, Path(output), form, dtype, overwrite, progress)


def add(
    adapter: Mapping[str, str | Path],
    output: str | Path,
    *,
    weight: Mapping[str, float | str] | None = None,
    match_norm: str | None = None,
    base: str | Path | None = None,
    dtype: str | None = None,
    any_base: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> "VectorManifestJson":
    """Add vectors and adapters, each times its weight (default 1): by layer, module type and head, if you like.

    adapter: name -> vector or adapter; weight: name -> number, or numbers by module as in `0.3,mlp:0.2`; match_norm:
    bring the others to this one's norm first; base: for DoRA, saved modules and tokens; the other names are the
    command's options. Factors stay factors. Raises InputError for a weight without a vector, RuleError for parts that
    cannot be summed.

        >>> import crossmatch
        >>> pair = {"pt": "runs/pt", "sft": "runs/sft"}
        >>> manifest = crossmatch.vectors.add(pair, "sum", weight={"pt": 0.5})
        >>> manifest["predicate"]["parts"]["pt"]["weight"]
        0.5
    """
    from crossmatch.vectors.requests import SumRequest, write_sum

    asked = SumRequest(dict(adapter), dict(weight or {}), match_norm, base, dtype, any_base, overwrite)
    return write_sum(asked, Path(output), progress)


def scale(
    vector: str | Path,
    output: str | Path,
    *,
    strength: Strength = 1.0,
    base: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> "list[StrengthNormJson]":
    """Multiply a vector by a number, or by several: nothing is rounded, the number is kept beside the tensors.

    strength: a number, several, or a grid as in `0:1:0.25`; output: the directory, in which several have one each.
    Returned are strengths and norms.

        >>> import crossmatch
        >>> [one["strength"] for one in crossmatch.vectors.scale("runs/sft", "half", strength=0.5)]
        [0.5]
    """
    from crossmatch.vectors.requests import write_multiples

    return write_multiples(vector, Path(output), _texts(strength), base, overwrite, progress)


def apply(
    base: str | Path,
    vector: str | Path,
    output: str | Path,
    *,
    strength: Strength = 1.0,
    dtype: str | None = None,
    tied: str = "refuse",
    any_base: bool = False,
    verify: bool = True,
    allow_partial_adapter: bool = False,
    overwrite: bool = False,
) -> "list[AppliedStrengthJson]":
    """Write round(base + g vector) for every strength g: a merge of one vector, proved and published like a merge.

    strength, output: as of `scale`; the other names are the command's options. Returned is what is known of each.

        >>> import crossmatch
        >>> (one,) = crossmatch.vectors.apply("models/base", "runs/sft", "models/with-sft", strength=0.5)
        >>> one["verdict"]["verdict"]
        'verified'
    """
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.console import Terminal
    from crossmatch.merging import read_storage
    from crossmatch.study.strengths import StrengthJob, write_strengths

    stored = read_storage(dtype, "nearest", None, tied)
    job = StrengthJob(Checkpoint(base), open_vector(vector), 1.0, stored, verify, any_base, allow_partial_adapter)
    made = write_strengths(job, Path(output), _texts(strength), overwrite, Terminal())
    return [one.facts for one in made.values()]


def remove(
    tuned: str | Path,
    vector: str | Path,
    output: str | Path,
    *,
    strength: Strength = 1.0,
    base: str | Path | None = None,
    dtype: str | None = None,
    tied: str = "refuse",
    verify: bool = True,
    allow_partial_adapter: bool = False,
    overwrite: bool = False,
) -> "list[AppliedStrengthJson]":
    """Write round(tuned - g vector) for every strength g.

    base: the vector's base, with which strength 1 is compared (None: as its manifest says); strength, output: as of
    `scale`; the other names are the command's options. Returned is what is known of each; `against_base` counts the
    elements that are not the base's.

        >>> import crossmatch
        >>> (one,) = crossmatch.vectors.remove("models/merged", "runs/sft", "models/without", strength=0.7)
        >>> one["weight"]
        -0.7
    """
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.console import Terminal
    from crossmatch.merging import read_storage
    from crossmatch.study.strengths import StrengthJob, write_without

    stored = read_storage(dtype, "nearest", None, tied)
    job = StrengthJob(Checkpoint(tuned), open_vector(vector), -1.0, stored, verify, True, allow_partial_adapter)
    made = write_without(job, Path(output), _texts(strength), overwrite, base, Terminal())
    return [one.facts for one in made.values()]


def inspect(path: str | Path) -> Mapping[str, Any]:
    """What a vector is: form, tensors, norm, ranks, digests, and what it was made from. path: a directory or hub id.

    >>> import crossmatch
    >>> crossmatch.vectors.inspect("runs/sft")["kind"]
    'adapter'
    """
    from crossmatch.console import Terminal
    from crossmatch.vectors.facts import inspect_vector

    return inspect_vector(str(path), Terminal())


def _texts(strength: Strength) -> list[str]:
    """As the command takes them."""
    given = [strength] if isinstance(strength, str | float | int) else strength
    return [one if isinstance(one, str) else repr(float(one)) for one in given]
