"""What a fine-tune does to the representations, layer by layer, and whether it touches a small part of them alone."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
from crossmatch.analysis.representations.similarity import VARIANCE, Cloud, Pair, Shift, massive
from crossmatch.analysis.representations.subspace_claim import Part, small_subspace
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.passages import Passage
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import LEVEL, Figure, resamples

# What is left out: nothing, or the first token of every text and the massive dimensions.
VIEWS = ("all", "without")


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


def compare(
    base: Checkpoint,
    tuned: TuningVector | Checkpoint,
    passages: Sequence[Passage],
    scope: Scope | None = None,
    *,
    progress: Progress = SILENT,
) -> dict[str, Any]:
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
        "scope": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(scope).items()},
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
) -> tuple[list[dict[str, Any]], list[dict[str, Part]]]:
    """Rows of facts, and what the claim needs of every layer."""
    rows, parts = [], []
    with progress.task("representations", len(streams.layers) * len(sides)) as task:
        for layer, found in enumerate(streams.run(tokens, sides, scope.parts, task)):
            for part, values in found.items():
                outliers = massive(values[0], scope.massive)
                rows.append({"layer": layer, "part": part, "massive": outliers.nonzero()[:, 0].tolist()})
                for name in VIEWS:
                    # One at a time: a view holds its activations in double precision.
                    view = _view(name, values, tokens, outliers, scope)
                    rows[-1][name] = view.facts(scope)
                    if part == "residual" and name == "without":
                        parts.append(view.parts(layer))
    return rows, parts


def _claim(parts: Sequence[dict[str, Part]], small: float) -> dict[str, Any]:
    return small_subspace({name: [row[name] for row in parts] for name in parts[0]}, small)


def _view(name: str, values: Sequence[Tensor], tokens: Tokens, outliers: Tensor, scope: Scope) -> "_View":
    """What `all` or `without` leaves of one layer's activations, base first."""
    whole = name == "all"
    text, place = tokens.text.to(outliers.device), tokens.place.to(outliers.device)
    positions, dimensions = place >= (0 if whole else 1), outliers.logical_not() | whole
    base, tuned, *random = (side[positions][:, dimensions].double() for side in values)
    clouds = [Cloud(side, text[positions], tokens.texts) for side in (base, tuned)]
    pair, shift = Pair(*clouds), Shift(clouds[0], tuned - base)
    weights = resamples(tokens.texts, scope.draws, scope.seed)
    turns = Subspaces(pair, shift, weights).turns(scope.ks, 0 if whole else scope.nulls, scope.seed)
    return _View(pair, shift, turns, [Shift(clouds[0], side - base) for side in random])


@dataclass(frozen=True, eq=False)
class _View:
    """Base and tuned activations of one layer, the shift between them, and the shifts that random vectors make."""

    pair: Pair
    shift: Shift
    turns: Sequence[Turn]
    random: Sequence[Shift]

    def parts(self, layer: int) -> dict[str, Part]:
        """What the claim needs of this layer, by reading."""
        base = self.pair.base.spectrum.effective_rank().on_scale("log")
        ranks = [s.spectrum.effective_rank().on_scale("log") for s in (self.shift, *self.random)]
        relative = [_less(rank, base) for rank in ranks]
        turn = max(self.turns, key=lambda turn: turn.k)
        changed = turn.changed.on_scale("log")
        fixed = [_fixed(1 - value, changed) for value in turn.rotated]
        return {
            "directions": Part(layer, relative[0], tuple(relative[1:])),
            "subspace": Part(layer, changed, tuple(fixed)),
        }

    def facts(self, scope: Scope) -> dict[str, Any]:
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


def _plainly(shift: Shift, seed: int, ks: Sequence[int]) -> dict[str, Any]:
    spectrum = shift.spectrum
    return {
        "seed": seed,
        "size": shift.size().value,
        "effective_rank": spectrum.effective_rank().value,
        "participation": spectrum.participation().value,
        "k90": spectrum.count(),
        "inside": [shift.inside(k) for k in ks],
    }
