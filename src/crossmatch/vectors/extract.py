"""A tuning vector from a base and its fine-tune: tau = tuned - base, tensor by tensor, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from crossmatch.adapter import VECTOR_FILE
from crossmatch.checkpoint import (
    DTYPE_NAMES,
    MANIFEST,
    Checkpoint,
    Unchanged,
    atomic_directory,
    check_apart,
)
from crossmatch.delta import STORABLE, is_finite, round_once
from crossmatch.errors import CheckpointError, EqualError, RuleError
from crossmatch.result_kinds import VECTOR_MANIFEST
from crossmatch.results.merging import InputJson
from crossmatch.results.vectors import ExactnessJson, PairFactsJson, VectorFactsJson, VectorManifestJson
from crossmatch.rules import Heads
from crossmatch.runtime import SILENT, Progress, Task, in_order, single_threads
from crossmatch.vectors.checkpoint_pair import Pair, Site, pair_checkpoints, same_bits, unequal_bits
from crossmatch.vectors.vector_file import Entry, copy_text_files, vector_statement, write_entries

FORMS = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Exactness:
    """What comes back: elements of which round(base + tau) is not, bit for bit, the tuned element, and why.

    elements: compared; sign_of_zero: the tuned one is a zero of the other sign; rounded: tau does not fit its dtype,
    because the base's element is so much larger, or has so many digits; by tensor where there are any.
    """

    elements: int = 0
    sign_of_zero: int = 0
    rounded: int = 0
    tensors: dict[str, int] = field(default_factory=dict)

    @property
    def differ(self) -> int:
        """Elements that do not come back, for either reason."""
        return self.sign_of_zero + self.rounded

    def add(self, name: str, compared: int, zeros: int, rounded: int) -> None:
        """Count what a block has shown."""
        self.elements += compared
        self.sign_of_zero += zeros
        self.rounded += rounded
        if zeros + rounded:
            self.tensors[name] = self.tensors.get(name, 0) + zeros + rounded

    def to_dict(self) -> ExactnessJson:
        """As plain JSON."""
        return {
            "elements": self.elements,
            "differ": self.differ,
            "sign_of_zero": self.sign_of_zero,
            "rounded": self.rounded,
            "tensors": dict(self.tensors),
        }


@dataclass(frozen=True)
class Changes:
    """The tensors of a pair that differ, and how many elements of the others differ in the sign of a zero alone."""

    pair: Pair
    sites: tuple[Site, ...]
    unchanged: int
    signs: dict[str, int]


def find_changes(pair: Pair, progress: Progress = SILENT) -> Changes:
    """Compare every tensor up to its first difference: the base's elements, in the tuned dtype, against the tuned ones.

    Raises EqualError if nothing differs, CheckpointError for values that are not finite and for a changed tensor that
    takes no delta.
    """
    changed, signs = [], {}
    with progress.task("compare", sum(site.elements for site in pair.sites)) as task:
        for site in pair.sites:
            differs, flipped = _compare(pair, site, task)
            if differs or site.added:
                _check_dtype(pair, site)
                changed.append(site)
            elif flipped:
                signs[site.name] = flipped
    if not changed:
        zeros = f" (but for {sum(signs.values())} zeros of the other sign)" if signs else ""
        raise EqualError(f"{pair.tuned.path} equals its base {pair.base.path}{zeros}: there is no vector")
    return Changes(pair, tuple(changed), len(pair.sites) - len(changed), signs)


def _compare(pair: Pair, site: Site, task: Task) -> tuple[bool, int]:
    flipped = done = 0
    stored = {pair.base.tensors[site.ours].dtype, site.dtype}
    if len(stored) > 1 and not stored <= set(STORABLE):
        # Of a number that is no floating-point number the values may agree by chance.
        return True, 0
    for start, stop in pair.blocks(site):
        ours, theirs = pair.rows(site, start, stop)
        done += theirs.numel()
        task.advance(theirs.numel(), site.name)
        ours = ours.to(theirs.dtype)
        if same_bits(ours, theirs):
            continue
        if not torch.equal(ours, theirs):
            task.advance(site.elements - done)
            return True, 0
        flipped += unequal_bits(ours, theirs)
    return False, flipped


def _check_dtype(pair: Pair, site: Site) -> None:
    for checkpoint, name in ((pair.base, site.ours), (pair.tuned, site.name)):
        dtype = checkpoint.tensors[name].dtype
        if dtype not in STORABLE:
            raise CheckpointError(f"{checkpoint.path}: {name} changed; {DTYPE_NAMES[dtype]} takes no delta")


def extract(
    base: Checkpoint,
    tuned: Checkpoint,
    out: str | Path,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> VectorManifestJson:
    """Write tau = tuned - base as a stored vector, and return its manifest.

    tau is rounded once to `dtype` (float32 or float64); only tensors that changed are stored. Every element of
    round(base + tau), formed in float64 and rounded once to the tuned dtype, is compared with the tuned one; the
    manifest says how many differ, and why. In memory are a few blocks of rows. Raises EqualError if nothing changed,
    CheckpointError for checkpoints that make no pair, and OutputError as all writers do.
    """
    if dtype not in FORMS:
        raise RuleError(f"dtype {dtype!r}: a vector is stored as {' or '.join(FORMS)}")
    out = Path(out)
    check_apart(out, [base.path, tuned.path])
    watched = Unchanged([*base.layout.files, *tuned.layout.files])
    pair = pair_checkpoints(base, tuned)
    with atomic_directory(out, overwrite=overwrite) as partial:
        changes = find_changes(pair, progress)
        exact = Exactness()
        for name, count in changes.signs.items():
            exact.add(name, 0, count, 0)
        entries = [e for site in changes.sites for e in _entries(changes.pair, site, FORMS[dtype], exact)]
        with single_threads(), progress.task("extract", sum(site.elements for site in changes.sites)) as task:
            digest = write_entries(partial / VECTOR_FILE, entries, task)
        with progress.task("digest", None):
            facts = pair_facts(changes, partial)
        watched.check()
        predicate: VectorFactsJson = {
            "made_by": "extract",
            **facts,
            "dtype": dtype,
            "exactness": exact.to_dict(),
            "text_files": copy_text_files(tuned.path, partial),
        }
        manifest = vector_statement({VECTOR_FILE: digest}, predicate)
        VECTOR_MANIFEST.write(partial / MANIFEST, manifest)
    return manifest


def pair_facts(changes: Changes, home: Path) -> PairFactsJson:
    """What a manifest says of a pair: both checkpoints with their digests, and what of them changed."""
    pair = changes.pair
    base, tuned = (_input(checkpoint, home) for checkpoint in (pair.base, pair.tuned))
    dtypes = sorted({str(pair.tuned.tensors[s.name].dtype).split(".")[-1] for s in changes.sites})
    return {
        "base": base,
        "tuned": {**tuned, "dtypes": dtypes},
        "heads": heads.to_dict() if (heads := Heads.of(pair.base.config)) else None,
        "changed": len(changes.sites),
        "unchanged": changes.unchanged,
        "rounding": rounding_share(changes),
        "notes": list(pair.notes),
    }


def rounding_share(changes: Changes) -> float | None:
    """How much of ||tau||^2 rounding alone makes: ||round(base) - base||^2 / ||tuned - base||^2, over the changed
    tensors that are float32 in the base and 16 bits wide in the tuned checkpoint; None where there are none.

    This part has no direction, so that no factors of a low rank hold it. Where the base was rounded before it was
    changed, the sum was rounded once more, which adds about as much again.
    """
    pair, lost, whole = changes.pair, 0.0, 0.0
    for site in changes.sites:
        narrower = pair.base.tensors[site.ours].dtype == torch.float32 and site.dtype in (torch.bfloat16, torch.float16)
        for start, stop in pair.blocks(site) if narrower else ():
            ours, theirs = pair.rows(site, start, stop)
            exact = ours.double()
            lost += float((exact.to(theirs.dtype).double() - exact).square().sum())
            whole += float((theirs.double() - exact).square().sum())
    return lost / whole if whole else None


def _input(checkpoint: Checkpoint, home: Path) -> InputJson:
    return {**checkpoint.source.origin(home), "digest": checkpoint.digest, "files": checkpoint.file_digests}


def _entries(pair: Pair, site: Site, form: torch.dtype, exact: Exactness) -> Iterator[Entry]:
    kind = "shared" if site.shared else "delta"

    def blocks() -> Iterator[Tensor]:
        ranges = pair.blocks(site)
        for tau, counts in in_order(lambda at: difference(pair, site, at, form), ranges):
            exact.add(site.name, *counts)
            yield tau

    yield Entry(f"{kind}/{site.name}", form, site.shape, blocks)
    if site.added:
        yield Entry.of(f"first/{site.name}", torch.tensor(site.rows))
        # As they are: added rows are nobody's difference.
        yield Entry(f"added/{site.name}", site.dtype, (site.added, site.columns), lambda: _added(pair, site))


def _added(pair: Pair, site: Site) -> Iterator[Tensor]:
    step = max(1, (1 << 19) // site.columns)
    for start in range(0, site.added, step):
        yield pair.added_rows(site, start, min(site.added, start + step))


def difference(pair: Pair, site: Site, at: tuple[int, int], form: torch.dtype) -> tuple[Tensor, tuple[int, int, int]]:
    """Rows of tau = tuned - base, rounded once to `form`; how many elements were compared, how many come back as a zero
    of the other sign, and how many not at all."""
    ours, theirs = pair.rows(site, *at)
    tau = theirs.to(form) - ours.to(form)
    if not is_finite(tau):
        raise CheckpointError(f"{site.name}: the difference overflows {form}; extract it with --dtype float64")
    back = round_once(ours.double() + tau.double(), theirs.dtype)
    unequal = unequal_bits(back, theirs)
    rounded = int((back != theirs).sum()) if unequal else 0
    return tau, (theirs.numel(), unequal - rounded, rounded)
