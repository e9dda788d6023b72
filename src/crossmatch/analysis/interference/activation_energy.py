"""Activation interference: what one adapter does to the inputs of another's task, module by module.

At a token, x is a module's input in the model that has the host alone (base + w_s D_s), the one that the guest would
disturb; p = w_p D_p x and s = w_s D_s x are the two effects, and W x what the base puts out there (with its bias).
Everything is formed from the factors: ||B z||^2 = z^T (B^T B) z with z = A x, O(r d_in) for each token, in float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossmatch.analysis.attribution.batches import Batch, batches, sums_by_text
from crossmatch.analysis.attribution.gated_model import Branch, Instrumented, Site
from crossmatch.data.token_classes import KINDS, Text
from crossmatch.results.interference import EffectEstimatesJson, ModuleEffectsJson, PooledEffectsJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.statistics.influence import Array, Estimate, ratio

# Sums over tokens; `both` counts tokens at which neither effect is zero, `hosted` those at which the host has one.
STATISTICS = ("n", "guest", "host", "base", "inner", "inside", "cosine", "both", "reversed", "obscured", "hosted")
# Each is a sum of one statistic over that of another.
_ESTIMATES = {
    "ratio": ("guest", "host"),
    "guest": ("guest", "base"),
    "host": ("host", "base"),
    "inside": ("inside", "guest"),
    "cosine": ("cosine", "both"),
    "reversed": ("reversed", "host"),
    "obscured": ("obscured", "hosted"),
}


@dataclass(frozen=True)
class Interference:
    """Of one module at the tokens of one class; n tokens of `texts` texts, standard errors by text.

    ratio: E||p||^2 / E||s||^2; guest, host: E||p||^2 and E||s||^2 over E||W x||^2; inside: share of the guest's energy
    in the output space of D_s, sum ||Q_s^T p||^2 / sum ||p||^2; inside_null: rank / d_out, that of a random direction;
    cosine: mean of cos(p, s); reversed: sum max(0, -<p, s>) / sum ||s||^2, how much of the host's effect is taken back
    along its own direction; obscured: share of tokens where the guest's effect across that direction, p - <p, s> s /
    ||s||^2, is larger than s. What an adapter that leaves the module alone does not define is None.
    """

    site: Site
    kind: str
    n: int
    texts: int
    ratio: Estimate
    guest: Estimate
    host: Estimate
    inside: Estimate
    inside_null: float | None
    cosine: Estimate
    reversed: Estimate
    obscured: Estimate

    def to_dict(self) -> ModuleEffectsJson:
        """As plain JSON, each estimate as {value, stderr}."""
        return {
            "name": self.site.name,
            "layer": self.site.layer,
            "module": self.site.module,
            "kind": self.kind,
            "n": self.n,
            "texts": self.texts,
            "inside_null": self.inside_null,
            **_estimates_json(self),
        }


@dataclass(frozen=True)
class Pooled:
    """Of all `modules` modules that both adapters change, at the tokens of one class, as if they were one: sums run
    over modules too, so that wide outputs weigh more. Estimates are those of `Interference`; spread: the lowest, the
    median and the highest ratio of single modules, None where the host does nothing in one.
    """

    kind: str
    n: int
    texts: int
    modules: int
    ratio: Estimate
    guest: Estimate
    host: Estimate
    inside: Estimate
    cosine: Estimate
    reversed: Estimate
    obscured: Estimate
    spread: tuple[float, float, float] | None

    def to_dict(self) -> PooledEffectsJson:
        """As plain JSON, each estimate as {value, stderr}."""
        return {
            "kind": self.kind,
            "n": self.n,
            "texts": self.texts,
            "modules": self.modules,
            **_estimates_json(self),
            "spread": None if self.spread is None else list(self.spread),
        }


def _estimates_json(of: Interference | Pooled) -> EffectEstimatesJson:
    return {
        "ratio": of.ratio.to_dict(),
        "guest": of.guest.to_dict(),
        "host": of.host.to_dict(),
        "inside": of.inside.to_dict(),
        "cosine": of.cosine.to_dict(),
        "reversed": of.reversed.to_dict(),
        "obscured": of.obscured.to_dict(),
    }


@dataclass(frozen=True, eq=False)
class ActivationSums:
    """sums: (sites, texts, kinds, statistics) float64, statistics as in `STATISTICS`; nulls: (sites,) rank / d_out."""

    sites: tuple[Site, ...]
    sums: Array
    nulls: tuple[float | None, ...]

    def of(self, statistic: str, kinds: Sequence[str] = KINDS) -> Array:
        """(sites, texts) sums of a statistic over the tokens of some classes."""
        return self.sums[:, :, [KINDS.index(k) for k in kinds], STATISTICS.index(statistic)].sum(2)

    def table(self) -> list[Interference]:
        """One row for each module and each class of which there are tokens."""
        return [
            self._row(number, kind)
            for number in range(len(self.sites))
            for kind in KINDS
            if self.of("n", [kind])[number].any()
        ]

    def classes(self) -> list[Pooled]:
        """One row for each class of which there are tokens; none where no module is changed by both adapters."""
        shared = [n for n, both in enumerate(self.of("both").sum(1)) if both]
        return [
            self._pooled(shared, kind) for kind in KINDS if any(self.of("n", [kind])[number].any() for number in shared)
        ]

    def _pooled(self, shared: list[int], kind: str) -> Pooled:
        sums: Mapping[str, Array] = {s: self.of(s, [kind])[shared] for s in STATISTICS}
        whole = {name: table.sum(0) for name, table in sums.items()}
        single = np.sort(sums["guest"].sum(1) / sums["host"].sum(1)) if sums["host"].sum(1).all() else None
        return Pooled(
            kind=kind,
            n=int(sums["n"][0].sum()),
            texts=int((sums["n"][0] > 0).sum()),
            modules=len(shared),
            **_estimates(whole),
            spread=None if single is None else (float(single[0]), float(np.median(single)), float(single[-1])),
        )

    def _row(self, number: int, kind: str) -> Interference:
        sums: Mapping[str, Array] = {s: self.of(s, [kind])[number] for s in STATISTICS}
        return Interference(
            site=self.sites[number],
            kind=kind,
            n=int(sums["n"].sum()),
            texts=int((sums["n"] > 0).sum()),
            inside_null=self.nulls[number],
            **_estimates(sums),
        )


def activation_interference(
    model: Instrumented, texts: Sequence[Text], *, tokens: int = 1024, progress: Progress = SILENT
) -> ActivationSums:
    """Sums of every statistic for every module, text and class of tokens, from one pass over the texts.

    tokens: how many go through the model at a time; the sums do not depend on it beyond rounding.
    """
    guest, host = model.pair()
    meters = [_Meter(pair[guest], pair[host]) for pair in model.branches]
    sums = np.zeros((len(model.sites), len(texts), len(KINDS), len(STATISTICS)))
    gates = model.gates({model.adapters[guest]: 0.0})
    with torch.inference_mode(), progress.task("activation interference", len(texts)) as task:
        for batch in batches(texts, tokens):
            with model.gated(gates, lambda site, x, y, batch=batch: _add(sums, meters[site], site, (x, y), batch)):
                model.hidden(batch)
            task.advance(len(batch.numbers))
    return ActivationSums(model.sites, sums, tuple(meter.null for meter in meters))


def _estimates(sums: Mapping[str, Array]) -> dict[str, Estimate]:
    """From (texts,) sums of every statistic."""
    return {name: ratio(sums[above], sums[below]) for name, (above, below) in _ESTIMATES.items()}


def _add(sums: Array, meter: "_Meter", site: int, seen: tuple[Tensor, Tensor], batch: Batch) -> None:
    sums[site, list(batch.numbers)] += sums_by_text(meter(*seen), batch)


class _Meter:
    """The statistics of single tokens at one module."""

    def __init__(self, guest: Branch | None, host: Branch | None) -> None:
        self.guest = guest.double() if guest else None
        self.host = host.double() if host else None
        self.basis, self.null = _basis(self.host)
        pairs = {"guest": (self.guest, self.guest), "host": (self.host, self.host), "inner": (self.guest, self.host)}
        self.forms = {key: _Form(left, right) for key, (left, right) in pairs.items() if left and right}
        basis = Branch(self.basis.T, self.basis) if self.basis is not None else None
        self.inside = _Form(basis, self.guest).matrix if basis and self.guest else None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(rows, length, statistics) from x (rows, length, d_in) and W x (rows, length, d_out)."""
        x = x.double()
        zero = x.new_zeros(x.shape[:2])
        z_p = x @ self.guest.a.T if self.guest else None
        z_s = x @ self.host.a.T if self.host else None
        p = self.forms["guest"](z_p, z_p).clamp_min(0) if z_p is not None else zero
        s = self.forms["host"](z_s, z_s).clamp_min(0) if z_s is not None else zero
        inner = self.forms["inner"](z_p, z_s) if z_p is not None and z_s is not None else zero
        inside = (z_p @ self.inside.T).square().sum(-1) if z_p is not None and self.inside is not None else zero
        both, hosted = (p > 0) & (s > 0), s > 0
        cosine = torch.where(both, inner / (p * s).sqrt().where(both, 1.0), 0.0)
        across = p - inner.square() / s.where(hosted, 1.0)
        values = {
            "n": zero + 1,
            "guest": p,
            "host": s,
            "base": y.double().square().sum(-1),
            "inner": inner,
            "inside": inside,
            "cosine": cosine,
            "both": both,
            "reversed": (-inner).clamp_min(0),
            "obscured": hosted & (across > s),
            "hosted": hosted,
        }
        return torch.stack([values[name].to(torch.float64) for name in STATISTICS], -1)


class _Form:
    """<B_1 z_1, B_2 z_2> = z_1^T (B_1^T B_2) z_2; a branch without B has the identity there."""

    def __init__(self, left: Branch, right: Branch) -> None:
        if left.b is None or right.b is None:
            self.matrix = right.b if left.b is None else left.b.T
        else:
            self.matrix = left.b.T @ right.b

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """(rows, length) from z_1 and z_2."""
        return ((left if self.matrix is None else left @ self.matrix) * right).sum(-1)


def _basis(host: Branch | None) -> tuple[Tensor | None, float | None]:
    """Orthonormal basis of the host's output space (d_out, rank), and rank / d_out; None for one without factors."""
    if host is None or host.b is None:
        return None, None
    # The space that D reaches, not all columns of B: those that A leaves at zero do not count.
    u, sigma, _ = torch.linalg.svd(host.b @ torch.linalg.qr(host.a.T, mode="r").R.T, full_matrices=False)
    rank = int((sigma > 1e-10 * sigma[0]).sum()) if len(sigma) else 0
    return u[:, :rank], rank / len(u)
