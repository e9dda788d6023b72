"""What a fine-tune does to the representations, layer by layer, and whether it touches a small part of them alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.analysis.representations.layerwise import (
    PARTS,
    Side,
    Streams,
    Tokens,
    choose,
    own,
    random_side,
    with_difference,
    with_vector,
)
from crossmatch.analysis.representations.principal_angles import Subspaces, Turn
from crossmatch.analysis.representations.similarity import VARIANCE, Cloud, CloudPair, Shift, massive
from crossmatch.analysis.representations.subspace_claim import LayerPart, small_subspace
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.passages import Passage
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError
from crossmatch.results.representations import (
    ComparisonScopeJson,
    LayerViewsJson,
    RandomShiftJson,
    RepresentationsJson,
    SmallSubspaceJson,
    ViewJson,
)
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import LEVEL, Figure, resamples

ClaimNumbers = dict[str, LayerPart]
"""What the claim needs of one layer, by reading."""


@dataclass(frozen=True)
class Scope:
    """How much is looked at.

    positions: tokens at most; length: at which a text is cut; ks: sizes of the principal subspaces; parts: of
    `residual`, `attention`, `mlp`; nulls: how many random vectors of the same spectrum, and how many rotations of the
    shift; massive: the factor of the rule `similarity.massive`; small: the part below which a change is called small
    (`small`); draws: of the bootstrap for principal subspaces; tokens: in one batch; seed: of the choice of texts, the
    bootstrap, the rotations, and the first random vector.
    Raises InputError for numbers that leave nothing to look at, and for parts of an unknown name.
    """

    positions: int = 4096
    length: int = 256
    ks: tuple[int, ...] = (16, 64)
    parts: tuple[str, ...] = PARTS[:1]
    nulls: int = 4
    massive: float = 100.0
    small: float = 0.25
    draws: int = 100
    tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.positions < 2 or self.length < 2 or self.tokens < 1 or self.nulls < 0 or self.draws < 2:
            raise InputError("positions, length and draws must be 2 or more, tokens 1 or more, nulls none or more")
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"sizes of principal subspaces must be 1 or more, not {list(self.ks)}")
        if not self.parts or set(self.parts) - set(PARTS):
            raise InputError(f"parts {list(self.parts)}: give some of {', '.join(PARTS)}")

    def to_dict(self) -> ComparisonScopeJson:
        """As plain JSON."""
        return {
            "positions": self.positions,
            "length": self.length,
            "ks": list(self.ks),
            "parts": list(self.parts),
            "nulls": self.nulls,
            "massive": self.massive,
            "small": self.small,
            "draws": self.draws,
            "tokens": self.tokens,
            "seed": self.seed,
        }


def compare(
    base: Checkpoint,
    tuned: TuningVector | Checkpoint,
    passages: Sequence[Passage],
    scope: Scope | None = None,
    *,
    progress: Progress = SILENT,
) -> RepresentationsJson:
    """The same tokens through base and tuned model, compared at every layer, as plain JSON.

    tuned: a vector, added to the base in memory and not rounded; or a checkpoint, or its difference to the base, as it
    is stored. {value, low, high}
    are statistics with their 95% interval by text (`similarity`), None where not defined; a null that is written as
    null and null_sd is a mean and a standard deviation. The keys:

        schema_version, scope, level, variance
        positions, texts      how many tokens, of how many texts
        equal                 whether no activation differs anywhere
        layers                rows with layer, part, massive (numbers of the massive dimensions, found in the base) and,
                              under `all` and `without` (the first tokens and the massive dimensions):
            positions, dimensions
            cka, cka_plain    debiased and plain linear CKA
            svcca             mean canonical correlation, with kept (axes on each side) and null
            subspaces         for each k: `turns.Turn`: k; cosine2 (mean squared cosine of the principal angles of
                              the first k axes), null, null_sd (of it for a random space), rotated (for rotations of
                              the shift; `without` alone), cosines (all k); inside (share of ||S||^2 in the base's
                              first k axes), inside_null, inside_null_sd
            size              ||S|| / ||X||; constant: share of ||S||^2 in the mean shift
            effective_rank, participation, k90   of the shift; base_effective_rank: of the centred activations
            random            for each random vector of the same spectrum: seed, size, effective_rank, participation,
                              k90, and inside (a share for each k), all plain numbers
        claim                 `small.small_subspace` of the residual stream, `without`, at the largest k; None without
                              random vectors

    Raises DataError without texts, InputError for too few positions, models of different architecture, and activations
    that are not finite.
    """
    scope = scope or Scope()
    tokens = choose(passages, scope.positions, length=scope.length, batch=scope.tokens, seed=scope.seed)
    with progress.task("load model") as loading:
        streams = Streams(base)
        vector = Difference(base, tuned) if isinstance(tuned, Checkpoint) else tuned
        side = with_difference(base, vector) if isinstance(vector, Difference) else with_vector(base, vector)
        sides = [own(base), side]
        sides += [random_side(base, vector, seed) for seed in range(scope.seed, scope.seed + scope.nulls)]
        loading.advance()
    rows, parts = _layers(streams, tokens, sides, scope, progress)
    return {
        "schema_version": 1,
        "scope": scope.to_dict(),
        "level": LEVEL,
        "variance": VARIANCE,
        "positions": len(tokens.text),
        "texts": tokens.texts,
        "equal": all(row["all"]["size"]["value"] == 0 for row in rows),
        "layers": rows,
        "claim": _claim(parts, scope.small) if scope.nulls and parts else None,
    }


def _layers(
    streams: Streams, tokens: Tokens, sides: Sequence[Side], scope: Scope, progress: Progress
) -> tuple[list[LayerViewsJson], list[ClaimNumbers]]:
    """Rows of facts, and what the claim needs of every layer."""
    rows: list[LayerViewsJson] = []
    parts: list[ClaimNumbers] = []
    with progress.task("representations", len(streams.layers) * len(sides)) as task:
        for layer, found in enumerate(streams.run(tokens, sides, scope.parts, task)):
            for part, values in found.items():
                outliers = massive(values[0], scope.massive)
                # One at a time: a view holds its activations in double precision.
                everything = _view(values, tokens, outliers, scope, whole=True).facts(scope)
                without = _view(values, tokens, outliers, scope, whole=False)
                rows.append(
                    {
                        "layer": layer,
                        "part": part,
                        "massive": outliers.nonzero()[:, 0].tolist(),
                        "all": everything,
                        "without": without.facts(scope),
                    }
                )
                if part == "residual":
                    parts.append(without.parts(layer))
    return rows, parts


def _claim(parts: Sequence[ClaimNumbers], small: float) -> SmallSubspaceJson:
    return small_subspace({name: [row[name] for row in parts] for name in parts[0]}, small)


def _view(values: Sequence[Tensor], tokens: Tokens, outliers: Tensor, scope: Scope, *, whole: bool) -> "_View":
    """One layer's activations, base first: all, or without first tokens and massive dimensions."""
    text, place = tokens.text.to(outliers.device), tokens.place.to(outliers.device)
    positions, dimensions = place >= (0 if whole else 1), outliers.logical_not() | whole
    base, tuned, *random = (side[positions][:, dimensions].double() for side in values)
    clouds = [Cloud(side, text[positions], tokens.texts) for side in (base, tuned)]
    pair, shift = CloudPair(*clouds), Shift(clouds[0], tuned - base)
    weights = resamples(tokens.texts, scope.draws, scope.seed)
    turns = Subspaces(pair, shift, weights).turns(scope.ks, 0 if whole else scope.nulls, scope.seed)
    return _View(pair, shift, turns, [Shift(clouds[0], side - base) for side in random])


@dataclass(frozen=True, eq=False)
class _View:
    """Base and tuned activations of one layer, the shift between them, and the shifts that random vectors make."""

    pair: CloudPair
    shift: Shift
    turns: Sequence[Turn]
    random: Sequence[Shift]

    def parts(self, layer: int) -> ClaimNumbers:
        """What the claim needs of this layer, by reading."""
        base = self.pair.base.spectrum.effective_rank().on_scale("log")
        ranks = [s.spectrum.effective_rank().on_scale("log") for s in (self.shift, *self.random)]
        relative = [_less(rank, base) for rank in ranks]
        turn = max(self.turns, key=lambda turn: turn.k)
        changed = turn.changed.on_scale("log")
        fixed = [_fixed(1 - value, changed) for value in turn.rotated]
        return {
            "directions": LayerPart(layer, relative[0], tuple(relative[1:])),
            "subspace": LayerPart(layer, changed, tuple(fixed)),
        }

    def facts(self, scope: Scope) -> ViewJson:
        """As plain JSON."""
        pair, spectrum = self.pair, self.shift.spectrum
        debiased, plain = pair.cka()
        svcca, kept, null = pair.svcca()
        return {
            "positions": len(pair.base.x),
            "dimensions": pair.base.x.shape[1],
            "cka": debiased.to_dict(),
            "cka_plain": plain.to_dict(),
            "svcca": {**svcca.to_dict(), "kept": list(kept), "null": null},
            "subspaces": [turn.to_dict() for turn in self.turns],
            "size": self.shift.size().to_dict(),
            "constant": self.shift.constant().to_dict(),
            "effective_rank": spectrum.effective_rank().to_dict(),
            "participation": spectrum.participation().to_dict(),
            "k90": spectrum.count(),
            "base_effective_rank": pair.base.spectrum.effective_rank().to_dict(),
            "random": [_plainly(s, scope.seed + n, scope.ks) for n, s in enumerate(self.random)],
        }


def _less(one: Figure, other: Figure) -> Figure:
    """The difference of two logarithms."""
    if one.value is None or other.value is None or one.carrier is None or other.carrier is None:
        return Figure(None)
    return Figure(one.value - other.value, one.carrier - other.carrier, one.degrees)


def _fixed(value: float, like: Figure) -> Figure:
    """The logarithm of a number that no text has an error in."""
    if value <= 0 or like.carrier is None:
        return Figure(None)
    return Figure(math.log(value), torch.zeros_like(like.carrier), like.degrees)


def _plainly(shift: Shift, seed: int, ks: Sequence[int]) -> RandomShiftJson:
    spectrum = shift.spectrum
    return {
        "seed": seed,
        "size": shift.size().value,
        "effective_rank": spectrum.effective_rank().value,
        "participation": spectrum.participation().value,
        "k90": spectrum.count(),
        "inside": [shift.inside(k) for k in ks],
    }
