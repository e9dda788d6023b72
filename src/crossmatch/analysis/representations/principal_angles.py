"""Principal subspaces of base and tuned activations: how far one is turned from the other, how much of the shift lies
in them, and what a shift of the same size in other directions would do."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from crossmatch.analysis.representations.similarity import Cloud, CloudPair, Shift, descending, random_share
from crossmatch.results.representations import TurnJson
from crossmatch.statistics.influence import Figure, from_draws

# Axes beyond 2 k among which those of a resample are looked for.
_MARGIN = 16


@dataclass(frozen=True, eq=False)
class Turn:
    """How the space of the first k axes is turned.

    cosine2: mean squared cosine of the principal angles; changed: 1 less that; cosines: all k, largest first; null,
    null_sd: of cosine2 for a random space; rotated: cosine2 for shifts S R with random rotations R; inside: share of
    ||S||^2 in the base's space; inside_null, inside_null_sd: for a shift of the same spectrum in random directions.
    """

    k: int
    cosine2: Figure
    changed: Figure
    cosines: tuple[float, ...]
    rotated: tuple[float, ...]
    null: float
    null_sd: float
    inside: Figure
    inside_null: float
    inside_null_sd: float

    def to_dict(self) -> TurnJson:
        """As plain JSON."""
        return {
            "k": self.k,
            "cosine2": self.cosine2.to_dict(),
            "null": self.null,
            "null_sd": self.null_sd,
            "rotated": list(self.rotated),
            "cosines": list(self.cosines),
            "inside": self.inside.to_dict(),
            "inside_null": self.inside_null,
            "inside_null_sd": self.inside_null_sd,
        }


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Principal subspaces of a pair. weights (B, C): resamples of its texts, from which errors are; a resample's axes
    are looked for among the first 2 k of the whole, and some more: what lies beyond cannot come among its first k."""

    pair: CloudPair
    shift: Shift
    weights: Tensor

    def turns(self, ks: Sequence[int], rotated: int, seed: int) -> list[Turn]:
        """For each k; rotated: how many random rotations. Raises InputError for too few positions."""
        dimensions, texts = self.pair.base.x.shape[1], self.pair.base.texts
        self.pair.base.basis(max(ks))
        self.pair.tuned.basis(max(ks))
        width = min(dimensions, 2 * max(ks) + _MARGIN)
        base, tuned = (_resampled(cloud, self.weights, width) for cloud in (self.pair.base, self.pair.tuned))
        across = self.pair.base.axes[1][:, :width].T @ self.pair.tuned.axes[1][:, :width]
        held, total = self._shift_in(width)
        turned = [self._turned_axes(rotation) for rotation in rotations(dimensions, rotated, seed)]
        found = []
        for k in ks:
            u, v = base[:, :, :k], tuned[:, :, :k]
            draws = (u.mT @ across @ v).square().sum((1, 2)) / k
            shares = ((held @ u) * u).sum((1, 2)) / total if float(total.min()) > 0 else torch.zeros_like(total)
            found.append(self._turn(k, (draws, shares), turned, texts))
        return found

    def _turn(self, k: int, draws: tuple[Tensor, Tensor], turned: Sequence[Tensor], texts: int) -> Turn:
        dimensions = self.pair.base.x.shape[1]
        cosines = self.pair.cosines(k)
        mean = float(cosines.square().mean())
        even = torch.zeros(dimensions, dtype=torch.float64)
        even[:k] = 1 / k
        null, null_sd = random_share(even, k)
        share, spectrum = self.shift.inside(k), self.shift.spectrum.values
        inside = Figure(None) if share is None else from_draws(share, draws[1], texts)
        p = even if share is None else (spectrum / spectrum.sum()).cpu()
        inside_null, inside_null_sd = random_share(p, k)
        basis = self.pair.base.basis(k)
        return Turn(
            k=k,
            cosine2=from_draws(mean, draws[0], texts),
            changed=from_draws(1 - mean, -draws[0], texts, "log"),
            cosines=tuple(cosines.tolist()),
            rotated=tuple(float((basis.T @ axes[:, :k]).square().sum() / k) for axes in turned),
            null=null,
            null_sd=null_sd,
            inside=inside,
            inside_null=inside_null,
            inside_null_sd=inside_null_sd,
        )

    def _shift_in(self, width: int) -> tuple[Tensor, Tensor]:
        """S^T S in the base's first `width` axes, (B, width, width), and ||S||^2, (B,), in every resample."""
        base, s = self.pair.base, self.shift.s
        weights = self.weights.to(s.device)
        grams = _text_grams(s @ base.axes[1][:, :width], base)
        return (weights @ grams.flatten(1)).view(-1, width, width), weights @ base.sums(s.square().sum(1))

    def _turned_axes(self, rotation: Tensor) -> Tensor:
        """Principal axes of X + S R, for a rotation R (d, d)."""
        rotation = rotation.to(self.shift.s.device)
        across, form = self._centred
        across = across @ rotation
        return descending(self.pair.base.gram + across + across.T + rotation.T @ form @ rotation)[1]

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        """X^T S and S^T S of what is left without their means."""
        s = self.shift.s - self.shift.s.mean(0)
        return self.pair.base.centred.T @ s, s.T @ s


def rotations(d: int, count: int, seed: int) -> list[Tensor]:
    """(d, d) each, uniform over all rotations: of a Gaussian matrix's QR, signs made unique (math-ph/0609050)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        q, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        found.append(q * r.diagonal().sign())
    return found


def _resampled(cloud: Cloud, weights: Tensor, width: int) -> Tensor:
    """(B, width, width) principal axes in every resample, as columns in coordinates of the whole's first `width`."""
    scores = cloud.scores[:, :width]
    weights = weights.to(scores.device)
    counts = weights @ cloud.sums(torch.ones_like(scores[:, 0]))
    means = (weights @ cloud.sums(scores)) / counts[:, None]
    forms = (weights @ _text_grams(scores, cloud).flatten(1)).view(-1, width, width)
    forms = forms - counts[:, None, None] * means[:, :, None] * means[:, None, :]
    return torch.linalg.eigh(forms).eigenvectors.flip(2)


def _text_grams(x: Tensor, cloud: Cloud) -> Tensor:
    """(C, m, m) x^T x of every text's positions, from x (N, m)."""
    grams = x.new_zeros(cloud.texts, x.shape[1], x.shape[1])
    for number in range(cloud.texts):
        rows = x[cloud.text == number]
        grams[number] = rows.T @ rows
    return grams
