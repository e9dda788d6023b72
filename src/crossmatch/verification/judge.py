"""From recovered weights to a verdict: which modules agree with the claim, and the name of what went wrong."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossmatch.verification.recover import Estimate
from crossmatch.verification.scan import ModuleScan

Weights = Sequence[float]


@dataclass(frozen=True)
class Thresholds:
    """When two weights are the same, and when a rounding is honest; printed with every verdict.

    weight: absolute tolerance; sigmas: or that many standard errors, whichever is larger; violations: share of elements
    that a route may leave unexplained; swallow: share of a delta's energy below which its loss is not mentioned;
    excess: residual variance, over that of one rounding, above which something else is in the file.
    """

    weight: float = 0.01
    sigmas: float = 4.0
    violations: float = 1e-4
    swallow: float = 0.1
    excess: float = 4.0


DEFAULTS = Thresholds()


@dataclass(frozen=True)
class ModuleVerdict:
    """One module against the claim: `agree`, `disagree` or `undecided`, with what was recovered there.

    resolved: whether the estimate is precise enough to tell a claimed adapter from none; silent: numbers of the claimed
    adapters of which nothing is here.
    """

    name: str
    state: str
    estimate: Estimate
    resolved: bool
    silent: tuple[int, ...]


def same(value: float, wanted: float, stderr: float, t: Thresholds, sigmas: float | None = None) -> bool:
    """|value - wanted| <= max(tolerance, sigmas * stderr); the tolerance is at most a quarter of a small weight."""
    tolerance = min(t.weight, abs(wanted) / 4) if wanted else t.weight
    return abs(value - wanted) <= max(tolerance, (sigmas or t.sigmas) * stderr)


def resolves(stderr: float, claimed: float, t: Thresholds) -> bool:
    """Whether a standard error is small enough to tell a claimed weight from none."""
    return t.sigmas * stderr <= (abs(claimed) / 2 if claimed else t.weight)


def judge_module(scan: ModuleScan, found: Estimate, claimed: Weights, t: Thresholds) -> ModuleVerdict:
    """Judge one module.

    It agrees if every element lies within one rounding of the claimed sum, or within two, and the effect of each
    claimed adapter is there: in the bits (twice as many elements show it as differ from a replay) or in recovered
    weights precise enough to tell. It disagrees if recovered weights contradict the claim, or elements are unexplained:
    more than a share of 1e-4 just outside, or a single one far outside.
    Otherwise there is no evidence: undecided.
    """
    allowed = t.violations * scan.elements
    certified, loose = scan.violations.once <= allowed, scan.violations.twice <= allowed
    here = [i for i in scan.effects if float(scan.strata.gram[i, i]) > 0]
    # With every element certified, an estimate must be far off to be believed: hundreds of modules are tested at once.
    sigmas = t.sigmas * 1.5
    contradicts = found.identifiable and any(
        not same(found.weights[i], claimed[i], found.stderr[i], t, sigmas) for i in here
    )
    resolved = found.identifiable and all(resolves(found.stderr[i], claimed[i], t) for i in here)
    silent = tuple(
        i
        for i in here
        if claimed[i] != 0
        and resolved
        and same(found.weights[i], 0.0, found.stderr[i], t)
        and abs(found.weights[i]) < abs(claimed[i]) / 2
    )
    if scan.flips and not scan.changed:
        silent = tuple(i for i in range(len(claimed)) if claimed[i] != 0 and float(scan.strata.gram[i, i]) > 0)
    shown = all(scan.effects.get(i, 0) > 2 * scan.violations.bits for i in here if claimed[i] != 0)
    if scan.nonfinite or contradicts or silent or scan.violations.gross or not (certified or loose):
        state = "disagree"
    elif shown or resolved:
        state = "agree"
    else:
        state = "undecided"
    return ModuleVerdict(scan.name, state, found, resolved, silent)


def skipped(modules: Sequence[ModuleVerdict]) -> list[str]:
    """Modules in question, if an adapter is silent in each that can tell, while the others agree with the claim."""
    questioned = [m for m in modules if m.state == "disagree"]
    silent = [m for m in questioned if m.silent]
    other = [m for m in questioned if m.resolved and not m.silent]
    agreeing = any(m.state == "agree" for m in modules)
    return [m.name for m in questioned] if silent and agreeing and not other else []


def name_weights(
    pooled: Estimate, modules: Sequence[ModuleVerdict], claimed: Weights, t: Thresholds = DEFAULTS
) -> str | None:
    """The fault that the recovered weights show, or None if they are the claimed ones and nothing else is inside."""
    if not pooled.identifiable:
        return None
    here = [i for i, weight in enumerate(pooled.weights) if not math.isnan(weight)]
    found = [pooled.weights[i] for i in here]
    errors = [pooled.stderr[i] for i in here]
    wanted = [claimed[i] for i in here]
    zero = [
        w != 0 and same(f, 0.0, e, t) and abs(f) < abs(w) / 2 for f, w, e in zip(found, wanted, errors, strict=True)
    ]
    if pooled.excess > t.excess:
        # More than rounding is left over: another delta is inside, beside the claimed ones or in place of one.
        return "wrong-adapter" if any(zero) else _uneven(pooled, modules, t, otherwise="unexplained-delta")
    if any(zero):
        return "adapter-not-applied" if all(zero) else "adapter-missing"
    if all(same(f, w, e, t) for f, w, e in zip(found, wanted, errors, strict=True)):
        return None
    for fault, hypothesis in _hypotheses(wanted, found):
        if all(same(f, h, e, t) for f, h, e in zip(found, hypothesis, errors, strict=True)):
            fits = _agreement(modules, here, hypothesis, t)
            return fault if fits >= 0.9 else "weights-uneven"
    return _uneven(pooled, modules, t, otherwise="weights-differ")


def _hypotheses(claimed: Weights, found: Weights) -> list[tuple[str, Weights]]:
    """Named ways to be wrong that are distinct from the claim, the closest to what was found first."""
    total = sum(claimed)
    options: list[tuple[str, Weights]] = [("weights-squared", [c * c for c in claimed])]
    options += [("weights-swapped", p) for p in itertools.islice(itertools.permutations(claimed), 1, 120)]
    options += [("weights-sign", p) for p in _signs(claimed)]
    options.append(("applied-twice", [2 * c for c in claimed]))
    if total > 0:
        options.append(("weights-normalised", [c / total for c in claimed]))
    size = sum(c * c for c in claimed)
    if size > 0:
        factor = sum(c * f for c, f in zip(claimed, found, strict=True)) / size
        options.append(("weights-scaled", [factor * c for c in claimed]))
    distance: Callable[[Weights], float] = lambda h: math.dist(h, found)  # noqa: E731
    named = [o for o in options[:-1] if list(o[1]) != list(claimed)]
    # A common factor fits all that the named ones fit, and is always at least as close: it comes last.
    return sorted(named, key=lambda o: distance(o[1])) + options[-1:]


def _signs(claimed: Weights) -> list[list[float]]:
    flips = itertools.islice(itertools.product((1, -1), repeat=len(claimed)), 1, 64)
    return [[s * c for s, c in zip(signs, claimed, strict=True)] for signs in flips]


def _agreement(modules: Sequence[ModuleVerdict], here: Sequence[int], wanted: Weights, t: Thresholds) -> float:
    """Share of the modules with an estimate of their own that fit `wanted`."""
    fits = []
    for module in modules:
        found = module.estimate
        pairs = [(found.weights[i], w, found.stderr[i]) for i, w in zip(here, wanted, strict=True)]
        pairs = [p for p in pairs if not math.isnan(p[0])]
        if pairs and found.identifiable:
            fits.append(all(same(value, w, error, t, t.sigmas * 1.5) for value, w, error in pairs))
    return sum(fits) / len(fits) if fits else 1.0


def _uneven(pooled: Estimate, modules: Sequence[ModuleVerdict], t: Thresholds, *, otherwise: str) -> str:
    """`weights-uneven` if every module is explained by weights of its own that are not the common ones."""
    judged = [m.estimate for m in modules if m.estimate.identifiable]
    clean = all(e.excess <= t.excess for e in judged)
    apart = any(
        not same(w, common, s, t, 1.5 * t.sigmas)
        for e in judged
        for w, common, s in zip(e.weights, pooled.weights, e.stderr, strict=True)
        if not math.isnan(w)
    )
    return "weights-uneven" if clean and apart else otherwise
