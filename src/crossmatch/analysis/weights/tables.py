"""Everything that weights alone say of some tuning vectors on one base: sizes, alignment, overlaps, claims.

Tensor by tensor: what is measured of one needs no other, so that in memory are the matrices of as many tensors as there
are threads, and the base's directions are read once for all vectors.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from crossmatch.analysis.weights import alignment, norms, overlap, spectral_shifts
from crossmatch.analysis.weights.base_directions import Space, SpaceFacts, Subspaces, cache_directory
from crossmatch.analysis.weights.delta_matrix import Change, LeftOut, changes
from crossmatch.analysis.weights.heads import HeadGroup, head_groups
from crossmatch.analysis.weights.paper_claims import claims
from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError
from crossmatch.results.analysis import SubspaceSummaryJson, WeightsAnalysisJson
from crossmatch.runtime import SILENT, Progress, workers

T = TypeVar("T", covariant=True)
DEFAULT_KS = ("r", "64", "256", "90%")


@dataclass(frozen=True)
class Wanted:
    """What to measure. ks: numbers, `r` (the rank of each delta) and `90%` (as many directions as hold that much of a
    matrix); aligned: False leaves the base's weights alone; cache: where subspaces are kept (None: `cache_directory`);
    signs: sign conflicts, which form every element. Raises InputError for a k that is none of these."""

    ks: tuple[str, ...] = DEFAULT_KS
    aligned: bool = True
    cache: Path | None = None
    signs: bool = False

    def __post_init__(self) -> None:
        for k in self.ks:
            if k not in ("r", "90%") and not (k.isascii() and k.isdigit() and 1 <= int(k) <= 4096):
                raise InputError(f"--k {k}: give a number from 1 to 4096, r (the rank of the delta), or 90%")

    def directions(self, rank: int) -> int:
        """How many of the base's directions are needed for a delta of a rank."""
        numbers = [int(k) for k in self.ks if k.isdigit()]
        return max([*numbers, min(rank, 4096) if "r" in self.ks else 1, 2 * spectral_shifts.TOP])


@dataclass
class _Found:
    """What was measured of one tensor, by vector or by pair of vectors."""

    size: dict[str, list[norms.Size]] = field(default_factory=dict)
    heads: dict[str, list[HeadGroup]] = field(default_factory=dict)
    aligned: dict[str, list[alignment.Alignment]] = field(default_factory=dict)
    read: dict[str, list[spectral_shifts.Readings]] = field(default_factory=dict)
    paired: dict[tuple[str, str], list[overlap.ChangePair]] = field(default_factory=dict)
    subspaces: list[SpaceFacts] = field(default_factory=list)
    unchanged: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, other: "_Found") -> None:
        """Take in another's rows, behind these."""
        for name in ("size", "heads", "aligned", "read", "paired"):
            mine = getattr(self, name)
            for key, rows in getattr(other, name).items():
                mine.setdefault(key, []).extend(rows)
        self.subspaces += other.subspaces
        self.unchanged.update(other.unchanged)
        self.left_out += other.left_out


def analyse(
    base: Checkpoint, vectors: Mapping[str, TuningVector], wanted: Wanted | None = None, *, progress: Progress = SILENT
) -> WeightsAnalysisJson:
    """Sizes, alignment, readings, overlaps and claims as plain JSON; docs/analyse.md says what each key is.

    vectors: by the tensor names of `base` (`fit` for adapters, `Difference` for checkpoints). Raises DataError for NaN,
    InputError if two vectors and the base have nothing in common to measure.
    """
    wanted = wanted or Wanted()
    subspaces = Subspaces(base, cache_directory(wanted.cache)) if wanted.aligned else None
    names = [name for name in base.tensors if any(name in vector for vector in vectors.values())]
    if not names:
        raise InputError(f"none of {', '.join(vectors)} changes a tensor of {base.path}")
    found = _Found()
    with progress.task("weights", len(names)) as task, workers() as pool:
        work = _Work(base, vectors, wanted, subspaces)
        for name, part in zip(names, pool.map(work, names), strict=True):
            found.add(part)
            task.advance(note=name)
    return _facts(list(vectors), found, wanted)


@dataclass(frozen=True)
class _Work:
    """Measures all vectors on one tensor."""

    base: Checkpoint
    vectors: Mapping[str, TuningVector]
    wanted: Wanted
    subspaces: Subspaces | None

    def __call__(self, name: str) -> _Found:
        found = _Found()
        all_changes = {label: changes(v, name, self.base) for label, v in self.vectors.items() if name in v}
        # Experts of a stack lie side by side, whoever has them.
        places = dict.fromkeys(change.place.name for members in all_changes.values() for change in members)
        for place in places:
            here = {label: c for label, members in all_changes.items() for c in members if c.place.name == place}
            zero = [label for label, change in here.items() if change.is_zero]
            found.unchanged.update(zero)
            if here := {label: change for label, change in here.items() if label not in zero}:
                self._matrix(here, found)
        return found

    def _matrix(self, here: Mapping[str, Change], found: _Found) -> None:
        first = next(iter(here.values()))
        space = self._space(here, found)
        dense = any(change.factors is None for change in here.values())
        energy = space.found.energy if space else _energy(first) if dense or self.subspaces else None
        norm = energy**0.5 if energy is not None else None
        bases = {} if norm is not None else None
        for label, change in here.items():
            found.size.setdefault(label, []).append(norms.size(change, norm))
            heads = head_groups(change, self.base.config, bases)
            if isinstance(heads, str):
                found.left_out.append(LeftOut(label, change.place.name, "heads", heads))
            elif heads:
                found.heads.setdefault(label, []).extend(heads)
            if space is not None:
                self._align(label, change, space, found)
        for one, other in itertools.combinations([label for label in self.vectors if label in here], 2):
            if first.single:
                continue
            pair = overlap.compare(here[one], here[other])
            if self.wanted.signs:
                pair = replace(pair, sign_conflict=overlap.sign_conflict(here[one], here[other]))
            found.paired.setdefault((one, other), []).append(pair)

    def _space(self, here: Mapping[str, Change], found: _Found) -> Space | None:
        """The base's directions under these changes, or None where they are not asked for or not sensible."""
        first = next(iter(here.values()))
        if self.subspaces is None or first.single:
            return None
        if first.place.layer is None:
            why = "it lies outside the layers: its rows are tokens, which have directions of their own"
            found.left_out.append(LeftOut(None, first.place.name, "alignment", why))
            return None
        if min(first.place.shape) <= 2 * spectral_shifts.TOP:
            found.left_out.append(LeftOut(None, first.place.name, "alignment", "the matrix is too small"))
            return None
        rank = max((change.rank for change in here.values() if change.factors is not None), default=1)
        space = self.subspaces.of(first, self.wanted.directions(rank), most="90%" in self.wanted.ks)
        found.subspaces.append(space.facts())
        return space

    def _align(self, label: str, change: Change, space: Space, found: _Found) -> None:
        ks = [(k, self._number(k, change, space)) for k in self.wanted.ks]
        known = [(k, number) for k, number in ks if number is not None]
        found.aligned.setdefault(label, []).extend(alignment.align(change, space.found, known))
        read = spectral_shifts.read(change, space.found, space.whole)
        if isinstance(read, str):
            found.left_out.append(LeftOut(label, change.place.name, "readings", read))
        else:
            found.read.setdefault(label, []).append(read)

    def _number(self, k: str, change: Change, space: Space) -> int | None:
        if k == "r":
            return change.rank if change.factors is not None else None
        return space.k90 if k == "90%" else int(k)


def _energy(change: Change) -> float:
    return sum(float(block.double().square().sum()) for _, block in change.base.blocks())


def _facts(labels: Sequence[str], found: _Found, wanted: Wanted) -> WeightsAnalysisJson:
    """Rows of modules first, then those of types, layers and all."""
    judged = [claim for label in labels for claim in claims(label, found.aligned.get(label, []))]
    return {
        "size": {x: _rows(r, norms.grouped(r)) for x in labels if (r := found.size.get(x))},
        "heads": {x: _rows(found.heads[x]) for x in labels if x in found.heads},
        "subspaces": _summary(found.subspaces) if wanted.aligned else None,
        "alignment": {x: _rows(r, alignment.grouped(r)) for x in labels if (r := found.aligned.get(x))},
        "readings": {x: _rows(r, spectral_shifts.grouped(r)) for x in labels if (r := found.read.get(x))},
        "overlap": [
            {"first": x, "second": y, "weights": [1.0, 1.0], "rows": _rows(r, overlap.grouped(r))}
            for x, y in itertools.combinations(labels, 2)
            if (r := found.paired.get((x, y)))
        ],
        "claims": [claim.to_dict() for claim in judged],
        "left_out": [item.to_dict() for item in [*found.left_out, *_missing(found, wanted)]],
    }


class _Row(Protocol[T]):
    def to_dict(self) -> T: ...


def _rows(*tables: Iterable[_Row[T]]) -> list[T]:
    return [row.to_dict() for table in tables for row in table]


def _summary(spaces: Sequence[SpaceFacts]) -> SubspaceSummaryJson:
    """How the base's directions were come by, and how good they are at worst."""
    residuals = [s["largest_residual"] for s in spaces if s["largest_residual"] is not None]
    return {
        "matrices": len(spaces),
        "cached": sum(s["cached"] for s in spaces),
        "directions": dict(Counter(str(s["directions"]) for s in spaces)),
        "largest_residual": max(residuals, default=None),
        "largest_figure_error": max((s["figure_error"] for s in spaces), default=None),
        "smallest_energy": min((s["energy"] for s in spaces if s["energy"] is not None), default=None),
    }


def _missing(found: _Found, wanted: Wanted) -> Iterator[LeftOut]:
    """What was asked for and could not be had of many matrices alike, in one line each."""
    beyond = sum(space["k90"] is None for space in found.subspaces)
    if "90%" in wanted.ks and beyond:
        why = f"of {beyond} matrices 90% of the energy lies beyond the directions known; ask for more (--k 1024)"
        yield LeftOut(None, None, "alignment at 90%", why)
    if not wanted.aligned:
        yield LeftOut(None, None, "alignment", "not asked for: the base's weights were not read for it")
    for label, count in found.unchanged.items():
        yield LeftOut(label, None, "everything", f"{count} tensors are equal to the base's")
    for label, rows in found.size.items():
        vectors = sum(row.method == "vector" for row in rows)
        if vectors:
            why = f"{vectors} biases and norms are vectors: of them there is a size alone"
            yield LeftOut(label, None, "alignment and overlap", why)
