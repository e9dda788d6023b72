"""What one tensor of a quantised export shows: sums for the weights, what rounding leaves over, and a replay.

A quantised element is M = Q(W + sum_i l_i D_i), Q rounding to a grid that is coarse beside most deltas. W lies anywhere
between two levels, so it acts as dither: the error of Q is uniform in a step whatever D is, and least squares over all
elements, each weighed by 1/step, is unbiased although single elements show nothing.

Three things are in the way. W itself lies on a grid, that of its 16 bits, and most exports passed through it once more:
where that is not fine beside the delta, the delta was lost before Q came. Sums are kept by that ratio, as in `recover`.
Searched scales minimise the error, which makes M shrink: M = gain (W + sum l_i D_i) + error; the gain is fitted with W
as one more regressor, and divided out. And values beyond the outermost level are cut, which the table of allowances in
`allowance` has measured.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, QuantisedCheckpoint, QuantisedTensor
from crossmatch.delta import Delta
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.quantised.allowance import ALLOWED
from crossmatch.verification.weights.estimate import MAX_CONDITION, Strata, condition
from crossmatch.verification.weights.row_sums import row_sizes

# The replay quantises again for every adapter and route: some rows of every block are evidence enough.
REPLAY_ELEMENTS = 1 << 17
# Types of 32 elements with one scale: whether levels lie on both sides of zero, and how far they reach.
_SPANS = {"Q4_0": (True, 8), "Q5_0": (True, 16), "Q4_1": (False, 15), "Q5_1": (False, 31)}
_SIXTEEN = (torch.bfloat16, torch.float16)


@dataclass
class Replay:
    """Some elements quantised again from the claim: how many, how many differ in value from those stored (rounded once,
    or to the base's dtype first), and how many each adapter makes differ.

    blocks, spanned: of types that an encoder may search scales for: how many, and in how many the outermost level is
    used, as it is without a search.
    """

    elements: int = 0
    direct: int = 0
    through: int = 0
    effects: dict[int, int] = field(default_factory=dict)
    blocks: int = 0
    spanned: int = 0

    @property
    def mismatches(self) -> int:
        """By the route that explains more."""
        return min(self.direct, self.through)

    @property
    def reference(self) -> bool:
        """Whether the file was made by the encoder that is replayed, not by a search for better scales."""
        return self.blocks > 0 and self.spanned >= 0.99 * self.blocks


@dataclass
class TensorSums:
    """One tensor, adapted or not.

    raw: sums with the base itself as the last adapter; elements, nonfinite; gross: elements further from the claim than
    the type's error goes; worst: the largest mean squared error of a row, in that of one rounding; changed: elements
    that a plain type stores otherwise than the base.
    """

    tensor: QuantisedTensor
    adapters: tuple[int, ...]
    raw: Strata
    elements: int = 0
    nonfinite: int = 0
    gross: int = 0
    worst: float = 0.0
    changed: int = 0
    replay: Replay = field(default_factory=Replay)

    @property
    def gain(self) -> float:
        """What W is multiplied with in the file; 1 where that cannot be told from the deltas."""
        last = self.raw.xy.shape[1] - 1
        index = torch.tensor([*self.adapters, last])
        normal = self.raw.xx.sum(0)[index][:, index]
        if self.tensor.plain or condition(normal) > MAX_CONDITION:
            return 1.0
        return 1.0 + float(torch.linalg.solve(normal, self.raw.xy.sum(0)[index])[-1])

    @property
    def shrinkage(self) -> float:
        """Error of one rounding over the energy of W: of the order of which a searched scale shrinks."""
        energy = float(self.raw.xx[:, -1, -1].sum())
        return float(self.raw.count.sum()) / 12.0 / energy if energy > 0 else 0.0

    @property
    def strata(self) -> Strata:
        """Sums for the weights alone, the gain divided out; for `recover.estimate`."""
        raw, gain, k = self.raw, self.gain, self.raw.xy.shape[1] - 1
        off = gain - 1.0
        return Strata(
            xx=gain**2 * raw.xx[:, :k, :k],
            xy=gain * (raw.xy[:, :k] - off * raw.xx[:, :k, k]),
            yy=raw.yy - 2 * off * raw.xy[:, k] + off**2 * raw.xx[:, k, k],
            count=raw.count,
            gram=raw.gram[:k, :k],
            plain=self._plain(gain),
            own=raw.own[:, :k],
            offset=raw.offset[:k],
        )

    def _plain(self, gain: float) -> Tensor:
        """Unweighted sums with M - gain W for M - W, and gain D for D."""
        turn = torch.eye(len(self.raw.gram) + 1, dtype=torch.float64)
        k = len(turn) - 2
        turn[:k] *= gain
        turn[k + 1, k] = 1.0 - gain
        kept = torch.tensor([*range(k), k + 1])
        return (turn @ self.raw.plain @ turn.T)[:, kept[:, None], kept[None, :]]

    @property
    def excess(self) -> float:
        """Mean squared distance from the base, the gain aside, over that of one rounding; for an unadapted tensor."""
        strata = self.strata
        return 12.0 * float(strata.yy.sum()) / max(1.0, float(strata.count.sum()))


def sums_of(
    merged: QuantisedCheckpoint, base: Checkpoint, name: str, deltas: Mapping[int, Delta], weights: Sequence[float]
) -> TensorSums:
    """Compare one tensor with the base and the claim; deltas: by adapter, those that lie on this tensor."""
    columns = next((delta.columns for delta in deltas.values()), base.tensors[name].columns)
    bound = {i: delta.bind(lambda start, stop: base.rows(name, start, stop, columns)) for i, delta in deltas.items()}
    result = TensorSums(merged.tensors[name], tuple(bound), Strata.empty(len(weights) + 1))
    share = min(1.0, REPLAY_ELEMENTS / max(1, base.tensors[name].elements))
    for start, stop in base.blocks(name, columns):
        stored = base.rows(name, start, stop, columns)
        ours = stored.float()
        rows = {i: delta.rows(start, stop, torch.float32, ours) for i, delta in bound.items()}
        levels = merged.levels(name, start, stop, columns)
        block = add_block(result, stored, levels.values, levels.steps, rows, weights)
        some = math.ceil(share * (stop - start))
        _replay(result, block.head(some), partial(merged.requantise, name, start, start + some))
    return result


def add_block(
    result: TensorSums,
    stored: Tensor,
    values: Tensor,
    steps: Tensor,
    rows: Mapping[int, Tensor],
    weights: Sequence[float],
) -> "_Block":
    """Take in some rows: of the base as stored, of the export with its steps, and of every delta at weight one."""
    block = _Block(stored.float(), _grain(stored), values, steps, rows, [weights[i] for i in rows])
    _add(result, block)
    return block


@dataclass
class _Block:
    """Rows of W, the dtype whose grid they lie on, rows of M with their steps, and of every delta with its weight."""

    ours: Tensor
    grain: torch.dtype
    values: Tensor
    steps: Tensor
    rows: Mapping[int, Tensor]
    weights: Sequence[float]

    def head(self, count: int) -> "_Block":
        """The first rows."""
        rows = {i: delta[:count] for i, delta in self.rows.items()}
        return _Block(self.ours[:count], self.grain, self.values[:count], self.steps[:count], rows, self.weights)

    def claim(self) -> Tensor:
        """W and the claimed sum."""
        return sum((w * d for w, d in zip(self.weights, self.rows.values(), strict=True)), self.ours)


def _grain(stored: Tensor) -> torch.dtype:
    """The coarsest dtype whose grid some rows of the base lie on: what is stored wide may have been narrow before."""
    for dtype in _SIXTEEN:
        if stored.dtype == dtype or torch.equal(stored.to(dtype).to(stored.dtype), stored):
            return dtype
    return torch.float32


def _add(result: TensorSums, block: _Block) -> None:
    ours, values, steps, claim = block.ours, block.values, block.steps, block.claim()
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        result.nonfinite += int((~finite).sum())
        values = torch.where(finite, values, claim)
    result.elements += values.numel()
    if result.tensor.plain:
        result.changed += int((values != _plain(ours, result.tensor.kind)).sum())
    steps = _usable(steps)
    size = row_sizes(block.rows.values()) if block.rows else ours.new_zeros(len(ours), 1)
    # What was rounded to 16 bits on its way has that error, too; a plain type may hold what was rounded more coarsely.
    # A cut at a power of two may lie anywhere on the type's own grid, and the outermost cell would be there in part: a
    # random factor in front of |W|, drawn from nothing in the file, makes the edge soft.
    soft = (
        1.0 if result.tensor.plain else torch.exp2(torch.rand(ours.shape, generator=torch.Generator().manual_seed(0)))
    )
    grain = step(ours.abs() * soft + 3 * size, block.grain)
    if result.tensor.plain:
        steps = torch.maximum(steps, step(values.abs(), _grain(values)))
        grain = torch.maximum(grain, steps)
    through = 0.0 if result.tensor.plain else step(ours.abs(), block.grain).square()
    total = (steps.square() + through).sqrt()
    which = [*block.rows, result.raw.xy.shape[1] - 1]
    result.raw.add(values - ours, [*block.rows.values(), ours], which, total, size, grain)
    for i, x in block.rows.items():
        for j, y in block.rows.items():
            result.raw.gram[i, j] += float((x.double() * y.double()).sum())
    error = ((values - claim) / total).abs()
    result.gross += int((error > ALLOWED[result.tensor.kind].gross).sum())
    result.worst = max(result.worst, float(12.0 * error.square().mean(dim=1).max()))


def _usable(steps: Tensor) -> Tensor:
    """Steps with those of blocks that hold one value only replaced: by their row's mean, or a tiny one."""
    if bool((steps > 0).all()):
        return steps
    mean = steps.mean(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny * 2.0**24)
    return torch.where(steps > 0, steps, mean)


def _plain(values: Tensor, kind: str) -> Tensor:
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    return values.to(dtype).float()


def _replay(result: TensorSums, block: _Block, again: Callable[[Tensor], Tensor | None]) -> None:
    """Quantise the claim again, as it is and through the base's dtype; then without each adapter."""
    claim, replay = block.claim(), result.replay
    direct = again(claim)
    if direct is None:
        return
    if result.tensor.kind in _SPANS:
        levels = (block.values / _usable(block.steps)).reshape(-1, 32)
        centred, span = _SPANS[result.tensor.kind]
        used = levels.abs().amax(1) if centred else levels.amax(1) - levels.amin(1)
        replay.blocks += len(levels)
        # A block of zeros alone spans nothing.
        replay.spanned += int(((used > span - 0.1) | (block.steps.reshape(-1, 32)[:, 0] == 0)).sum())
    through = again(claim.to(block.grain).float())
    assert through is not None
    replay.elements += claim.numel()
    replay.direct += int((direct != block.values).sum())
    replay.through += int((through != block.values).sum())
    for (i, delta), weight in zip(block.rows.items(), block.weights, strict=True):
        without = again((claim - weight * delta).to(block.grain).float())
        assert without is not None
        replay.effects[i] = replay.effects.get(i, 0) + int((without != through).sum())
