"""Where the result of a merge goes, to a place on this machine or to the hub, and what is said of it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crossmatch.cli.console import Terminal, say
from crossmatch.cli.options import DTYPES, one_of, shard_bytes
from crossmatch.errors import InputError, OutputError

if TYPE_CHECKING:
    from crossmatch.merging import MergePlan, Output, Storage
    from crossmatch.results.merging import MergePredicateJson


HUB = "hub:"


@dataclass(frozen=True)
class Written:
    """What a manifest says of what was written, a sentence, and hints ({}: where it is)."""

    facts: "MergePredicateJson"
    sentence: str
    hints: tuple[str, ...] = ()


@contextmanager
def destination(output: str, key: Path | None = None) -> Iterator[tuple[Path, Callable[[], str]]]:
    """The directory to write, and what to call when it is there: it gives the name under which it can be found.

    `hub:ORG/NAME` is written to a temporary directory and then uploaded, in one commit. key: to sign the files with.
    """
    from crossmatch.checkpoint import sign, upload

    if key is not None and not key.is_file():
        raise InputError(f"--sign {key}: no such file; give a private key in PEM")

    def signed(where: Path) -> str:
        if key is not None:
            sign(where, key)
        return str(where)

    if not output.startswith(HUB):
        yield Path(output), lambda: signed(Path(output))
        return

    scratch = Path(tempfile.mkdtemp(prefix="crossmatch-"))
    folder = scratch / "output"

    def publish() -> str:
        signed(folder)
        try:
            source = upload(folder, output.removeprefix(HUB))
        except OutputError as error:
            raise OutputError(f"{error}; the result is kept in {folder}") from error
        shutil.rmtree(scratch)
        return f"{source.hub_id}@{source.revision}"

    try:
        yield folder, publish
    finally:
        if not folder.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def say_notes(plan: "MergePlan", tokenizer: str | None) -> None:
    """What adapters lack that may be partial, and what is left out of the files beside the weights."""
    from crossmatch.merging import side_files

    for name, lacks in plan.lacking.items():
        say(f"warning: adapter {name} is partial, as allowed: {'; '.join(lacks)}")
    for line in side_files(plan, tokenizer).lines:
        say(f"note: {line}")


def write_checkpoint(plan: "MergePlan", folder: Path, options: "Output", verify: bool) -> Written:
    """Write a checkpoint."""
    from crossmatch.merging import execute
    from crossmatch.verification import SampledProof

    terminal = Terminal()
    proof = SampledProof(progress=terminal) if verify else None
    predicate = execute(plan, folder, output=options, proof=proof, progress=terminal)["predicate"]
    counts = predicate["tensors"]
    verdict = predicate["verdict"]
    said_of_it = verdict["verdict"] if verdict else "not verified: not asked to"
    hints = [f"note: {line}" for line in predicate["notes"]]
    # Measured for rounding to the nearest: stochastic rounding loses nothing in the mean.
    shares = verdict["swallowed_by_adapter"] if verdict and plan.storage.rounding == "nearest" else None
    lost = {name: share for name, share in (shares or {}).items() if share is not None}
    if lost:
        said = ", ".join(f"{share:.1%} of {name}" for name, share in lost.items())
        hints.append(f"energy lost in rounding: {said}")
    hints += [
        f"warning: much of {name} is lost in rounding; --dtype float32 keeps it"
        for name, share in lost.items()
        if share >= 0.1
    ]
    merged, copied = counts["merge"], counts["copy"] + counts["cast"]
    hints.append("to judge it again at any time: crossmatch verify {}")
    return Written(predicate, f"{merged} tensors merged, {copied} copied; {said_of_it}", tuple(hints))


def write_adapter(plan: "MergePlan", folder: Path, options: "Output", rank: int | None) -> Written:
    """Write an adapter."""
    from crossmatch.merging import merge_factors

    predicate = merge_factors(plan, folder, rank=rank, output=options, progress=Terminal())["predicate"]
    form = predicate["form"]
    cost = f"relative error {form['relative_error']:.2g}" if form["relative_error"] is not None else "zero"
    worst = form["worst"]
    where = f", {worst['relative_error']:.2g} in {worst['tensor']}" if worst and not form["exact"] else ""
    return Written(predicate, f"rank {form['rank']}, {'exact' if form['exact'] else 'truncated'}, {cost}{where}")


def storage(dtype: str | None, rounding: str, shard_size: str | None, tied: str) -> "Storage":
    """How a checkpoint is stored, from options. Raises InputError for a word that is none of theirs."""
    from crossmatch.merging import DTYPE_ARGUMENTS, Storage

    dtype = DTYPES.get(dtype or "", dtype)
    one_of("--dtype", dtype, (None, *DTYPE_ARGUMENTS))
    one_of("--tied", tied, ("refuse", "untie", "keep"))
    form = DTYPE_ARGUMENTS[dtype] if dtype else None
    return Storage(form, rounding, shard_bytes(shard_size), cast(Any, tied))
