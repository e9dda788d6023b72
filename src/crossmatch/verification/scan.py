"""One pass over base and merged: every tensor is compared with what it should be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossmatch.checkpoint import BLOCK_ELEMENTS, Checkpoint
from crossmatch.delta import Delta, LowRank, Stack, inner
from crossmatch.errors import AdapterError
from crossmatch.progress import Progress
from crossmatch.verification.claim import Resolved
from crossmatch.verification.recover import Strata
from crossmatch.verification.rounding import Violations, step, violations

# What a verdict says nothing about, so far.
NOT_CHECKED = ("tokenizer", "chat_template", "generation_config")
# Fields of config.json that differ between honest exports of one model.
_VOLATILE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class ModuleScan:
    """What one adapted tensor showed.

    strata: sums for the weights; violations: against the claimed sum; elements; flips: elements that the claim says
    differ from the base; effects: elements that each adapter alone makes differ, by the claim; changed: elements
    that do differ; lost, energy: energy of the claimed delta where it rounds away, and in all; alone: the same for each
    adapter by itself, where asked for; nonfinite: stored NaN or infinite elements.
    """

    name: str
    strata: Strata
    violations: Violations = field(default_factory=Violations)
    elements: int = 0
    flips: int = 0
    effects: dict[int, int] = field(default_factory=dict)
    changed: int = 0
    lost: float = 0.0
    energy: float = 0.0
    alone: dict[int, tuple[float, float]] = field(default_factory=dict)
    nonfinite: int = 0
    from_factors: bool = True


@dataclass
class Scan:
    """The whole pass: adapted modules, and the tensors that should be the base's own."""

    modules: list[ModuleScan] = field(default_factory=list)
    identical: list[str] = field(default_factory=list)
    untouched_changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    cast: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)


def scan(merged: Checkpoint, claim: Resolved, progress: Progress) -> Scan:
    """Compare every tensor of `merged` with base and claim; memory is a few blocks of rows."""
    base, result = claim.base, Scan()
    vectors = [vector for vector, _ in claim.parts.values()]
    weights = [weight for _, weight in claim.parts.values()]
    result.extra = sorted(set(merged.tensors) - set(base.tensors))
    with progress.task("verify", base.nbytes) as task:
        for name, info in base.tensors.items():
            theirs = merged.tensors.get(name)
            if theirs is None or theirs.shape != info.shape:
                if theirs is not None or not _tied_alias(name, merged, base):
                    result.missing.append(name)
                continue
            if theirs.dtype != info.dtype:
                result.cast.append(name)
            which = [i for i, vector in enumerate(vectors) if name in vector]
            if which:
                deltas = {i: vectors[i][name] for i in which}
                result.modules.append(_scan_module(merged, base, name, deltas, weights))
            else:
                _compare(result, merged, base, name)
            task.advance(info.nbytes, name)
    return result


def _scan_module(
    merged: Checkpoint, base: Checkpoint, name: str, deltas: Mapping[int, Delta], weights: Sequence[float]
) -> ModuleScan:
    columns = next(iter(deltas.values())).columns
    deltas = {i: delta.bind(lambda start, stop: base.rows(name, start, stop, columns)) for i, delta in deltas.items()}
    working = working_dtype(name, base.tensors[name].dtype, merged.tensors[name].dtype)
    result = new_module(name, deltas, len(weights))
    for start, stop in base.blocks(name, columns):
        theirs = merged.rows(name, start, stop, columns)
        ours = base.rows(name, start, stop, columns).to(working)
        rows = {i: delta.rows(start, stop, working, ours) for i, delta in deltas.items()}
        add_rows(result, theirs, ours, rows, weights)
    return result


def working_dtype(name: str, ours: torch.dtype, theirs: torch.dtype) -> torch.dtype:
    """In what a tensor is compared. Raises AdapterError for one that is not stored as a floating number."""
    if theirs not in _FLOATS or ours not in _FLOATS:
        raise AdapterError(f"{name} is stored as {theirs}, which cannot be verified; dequantise it first")
    return torch.float64 if torch.float32 in (theirs, ours) else torch.float32


def new_module(name: str, deltas: Mapping[int, Delta], adapters: int, *, sampled: bool = False) -> ModuleScan:
    """An empty result; inner products of factors are taken at once, those of other deltas come with their rows, and so
    do all of a sample's."""
    result = ModuleScan(name, Strata.empty(adapters))
    result.from_factors = not sampled and all(isinstance(delta, LowRank | Stack) for delta in deltas.values())
    if result.from_factors:
        for i, x in deltas.items():
            for j, y in deltas.items():
                if j >= i:
                    result.strata.gram[i, j] = result.strata.gram[j, i] = inner(x, y)
    return result


def add_rows(
    result: ModuleScan,
    theirs: Tensor,
    ours: Tensor,
    rows: Mapping[int, Tensor],
    weights: Sequence[float],
    *,
    alone: bool = False,
) -> None:
    """Take in some rows: stored, of the base, and of every delta at weight one; `alone`: each adapter's own loss,
    too."""
    size = row_sizes(rows.values())
    if not result.from_factors:
        for i, x in rows.items():
            for j, y in rows.items():
                result.strata.gram[i, j] += float((x.double() * y.double()).sum())
    finite = torch.isfinite(theirs)
    if not bool(finite.all()):
        result.nonfinite += int((~finite).sum())
        theirs = torch.where(finite, theirs, ours.to(theirs.dtype))
    value = theirs.to(ours.dtype)
    shares = {i: weights[i] * d for i, d in rows.items()}
    claimed = sum(shares.values(), torch.zeros((), dtype=ours.dtype))
    moved = sum((share.abs() for share in shares.values()), torch.zeros((), dtype=ours.dtype))
    exact = ours + claimed
    predicted = exact.to(theirs.dtype)
    same_base = ours.to(theirs.dtype)
    steps = step(ours.abs() + 3 * size, theirs.dtype)
    result.strata.add(value - ours, list(rows.values()), list(rows), steps, size)
    result.violations += violations(theirs, exact, moved, size, roundings=max(1, len(rows) - 1))
    flips = predicted != same_base
    for i, share in shares.items():
        effect = flips if len(shares) == 1 else (exact - share).to(theirs.dtype) != predicted
        result.effects[i] = result.effects.get(i, 0) + int(effect.sum())
    result.elements += theirs.numel()
    result.flips += int(flips.sum())
    result.changed += int((theirs != same_base).sum())
    energy, lost = _loss(claimed, flips)
    result.energy += energy
    result.lost += lost
    for i, share in shares.items() if alone else ():
        energy, lost = _loss(share, (ours + share).to(theirs.dtype) != same_base)
        before = result.alone.get(i, (0.0, 0.0))
        result.alone[i] = (before[0] + lost, before[1] + energy)


def _loss(delta: Tensor, flips: Tensor) -> tuple[float, float]:
    """Energy of a delta, and that part of it where it changes nothing."""
    squares = delta.double().square()
    return float(squares.sum()), float(squares.masked_fill_(flips, 0.0).sum())


def row_sizes(rows: Iterable[Tensor]) -> Tensor:
    """Root of the summed mean squares of the rows of some deltas, (rows, 1)."""
    total: Tensor = torch.zeros(())
    width = 1
    for delta in rows:
        total = total + torch.linalg.vector_norm(delta, dim=1, keepdim=True).square()
        width = delta.shape[1]
    return (total / width).sqrt()


def changed_config(merged: Checkpoint, base: Checkpoint) -> list[str]:
    """Fields that both configs have and give different values, those of an honest export aside; all if one is gone."""
    if base.config and not merged.config:
        return ["config.json is missing"]
    shared = sorted(set(merged.config) & set(base.config) - _VOLATILE)
    return [key for key in shared if merged.config[key] != base.config[key]]


def _compare(result: Scan, merged: Checkpoint, base: Checkpoint, name: str) -> None:
    """Note a tensor without a delta: identical or changed, and not finite where it is so."""
    same = _identical(merged, base, name)
    (result.identical if same else result.untouched_changed).append(name)
    if not merged.tensors[name].dtype.is_floating_point:
        return
    for start, stop in merged.blocks(name):
        if not bool(torch.isfinite(merged.rows(name, start, stop)).all()):
            result.nonfinite.append(name)
            return


def _identical(merged: Checkpoint, base: Checkpoint, name: str) -> bool:
    """Whether a tensor without a delta is the base's, bit for bit, or the base's cast to the stored dtype."""
    ours, theirs = base.tensors[name], merged.tensors[name]
    if ours.dtype == theirs.dtype:
        width = 16 * BLOCK_ELEMENTS
        ranges = ((s, min(width, ours.nbytes - s)) for s in range(0, ours.nbytes, width))
        return all(base.raw(name, start, n) == merged.raw(name, start, n) for start, n in ranges)
    return all(
        torch.equal(base.rows(name, start, stop).to(theirs.dtype), merged.rows(name, start, stop))
        for start, stop in base.blocks(name)
    )


def _tied_alias(name: str, merged: Checkpoint, base: Checkpoint) -> bool:
    """Whether a missing output embedding is no loss: both configs tie it, and the base stores it twice."""
    inputs = [n for n in base.tensors if n.endswith("embed_tokens.weight") and n in merged.tensors]
    return (
        name.endswith("lm_head.weight")
        and merged.tied
        and base.tied
        and bool(inputs)
        and base.tensors[name].shape == base.tensors[inputs[0]].shape
        and torch.equal(base[name], base[inputs[0]])
    )
