"""One pass over base and merged: every tensor is compared with what it should be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossmatch.checkpoint import BLOCK_ELEMENTS, Checkpoint
from crossmatch.delta import Delta, LowRank, inner, row_energies
from crossmatch.errors import AdapterError
from crossmatch.progress import Progress
from crossmatch.verification.claim import Claim
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
    that do differ; lost, energy: energy of the claimed delta where it rounds away, and in all; nonfinite: stored NaN or
    infinite elements.
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
    nonfinite: int = 0


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


def scan(merged: Checkpoint, claim: Claim, progress: Progress) -> Scan:
    """Compare every tensor of `merged` with base and claim; memory is a few blocks of rows.

    Raises AdapterError if an adapter has a delta for which the base has no tensor of its shape.
    """
    base, result = claim.base, Scan()
    names = list(claim.parts)
    vectors = [vector for vector, _ in claim.parts.values()]
    weights = [weight for _, weight in claim.parts.values()]
    for name, vector in zip(names, vectors, strict=True):
        lost = [key for key in vector if key not in base.tensors]
        if lost:
            raise AdapterError(f"adapter {name}: {lost[0]} and {len(lost) - 1} more match nothing in {base.path}")
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
    stored = merged.tensors[name].dtype
    if stored not in _FLOATS or base.tensors[name].dtype not in _FLOATS:
        raise AdapterError(f"{name} is stored as {stored}, which cannot be verified; dequantise it first")
    for index, delta in deltas.items():
        if delta.shape != base.tensors[name].shape:
            raise AdapterError(f"{name}: adapter {index} has shape {delta.shape}, the base {base.tensors[name].shape}")
    working = torch.float64 if torch.float32 in (stored, base.tensors[name].dtype) else torch.float32
    result = ModuleScan(name, Strata.empty(len(weights)))
    for i, x in deltas.items():
        for j, y in deltas.items():
            if j >= i:
                result.strata.gram[i, j] = result.strata.gram[j, i] = inner(x, y)
    size = _row_sizes(deltas.values()).to(working)
    for start, stop in base.blocks(name, BLOCK_ELEMENTS):
        theirs = merged.rows(name, start, stop)
        ours = base.rows(name, start, stop).to(working)
        rows = {i: delta.rows(start, stop, working) for i, delta in deltas.items()}
        _add_block(result, theirs, ours, rows, size[start:stop], weights)
    return result


def _add_block(
    result: ModuleScan,
    theirs: Tensor,
    ours: Tensor,
    rows: Mapping[int, Tensor],
    size: Tensor,
    weights: Sequence[float],
) -> None:
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
    squares = claimed.square().double()
    result.energy += float(squares.sum())
    result.lost += float(squares[~flips].sum())


def _row_sizes(deltas: Iterable[Delta]) -> Tensor:
    """Root of the summed mean squares of the rows of the deltas at weight one, (d_out, 1) float64."""
    total = torch.zeros(())
    for delta in deltas:
        if isinstance(delta, LowRank):
            energy = row_energies(delta) / delta.shape[1]
        else:
            energy = delta.rows(0, delta.shape[0], torch.float64).flatten(1).square().mean(1)
        total = total + energy
    return total.sqrt()[:, None]


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
    whole = [(None, None)] if not merged.tensors[name].shape else list(merged.blocks(name))
    for start, stop in whole:
        rows = merged[name] if start is None or stop is None else merged.rows(name, start, stop)
        if not bool(torch.isfinite(rows).all()):
            result.nonfinite.append(name)
            return


def _identical(merged: Checkpoint, base: Checkpoint, name: str) -> bool:
    """Whether a tensor without a delta is the base's, bit for bit, or the base's cast to the stored dtype."""
    ours, theirs = base.tensors[name], merged.tensors[name]
    if ours.dtype == theirs.dtype:
        width = 16 * BLOCK_ELEMENTS
        ranges = ((s, min(width, ours.nbytes - s)) for s in range(0, ours.nbytes, width))
        return all(base.raw(name, start, n) == merged.raw(name, start, n) for start, n in ranges)
    if not ours.shape:
        return bool((base[name].to(theirs.dtype) == merged[name]).all())
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
