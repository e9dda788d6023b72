"""From recovered weights to names: which modules agree with the claim, and what the weights of the others tell."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from crossmatch.results.verdict import ModuleState
from crossmatch.verification.weights.estimate import Estimate
from crossmatch.verification.weights.row_sums import Looked
from crossmatch.verification.weights.scan import ModuleScan

Weights = Sequence[float]


@dataclass(frozen=True)
class Thresholds:
    """When two weights are the same, and when a rounding is honest; printed with every verdict.

    weight: absolute tolerance; sigmas: or that many standard errors, whichever is larger; swallow: share of a delta's
    energy below which its loss is not mentioned; excess: residual variance, over that of the file's own arithmetic,
    above which something else is in the file.
    """

    weight: float = 0.01
    sigmas: float = 4.0
    swallow: float = 0.1
    excess: float = 4.0


DEFAULTS = Thresholds()


@dataclass(frozen=True)
class ModuleVerdict:
    """One module against the claim: `agree`, `disagree` or `undecided`, with what was recovered there.

    resolved: whether the estimate is precise enough to tell a claimed adapter from none; silent: numbers of the claimed
    adapters of which nothing is here; clean: whether no more than rounding is left over; where: of this adapter's
    numbers, those with a delta here; noise: whether no program gives every element, and what is left over is noise;
    left: the residual variance, in that which is allowed; coarse: that noise has room for as much as an adapter does.
    """

    name: str
    state: ModuleState
    estimate: Estimate
    resolved: bool
    silent: tuple[int, ...]
    clean: bool
    where: tuple[int, ...]
    noise: bool = False
    left: float = 0.0
    coarse: bool = False


def same(value: float, wanted: float, stderr: float, t: Thresholds, sigmas: float | None = None) -> bool:
    """|value - wanted| <= max(tolerance, sigmas * stderr); the tolerance is at most a quarter of a small weight."""
    tolerance = min(t.weight, abs(wanted) / 4) if wanted else t.weight
    return abs(value - wanted) <= max(tolerance, (sigmas or t.sigmas) * stderr)


def resolves(stderr: float, claimed: float, t: Thresholds) -> bool:
    """Whether a standard error is small enough to tell a claimed weight from none."""
    return t.sigmas * stderr <= (abs(claimed) / 2 if claimed else t.weight)


def near(found: Estimate, wanted: Weights, where: Sequence[int], t: Thresholds) -> bool:
    """Whether one module's estimate allows some weights for the adapters `where`: within half as many standard errors
    again as elsewhere, since hundreds of modules are tested at once."""
    return all(same(found.weights[i], wanted[i], found.stderr[i], t, 1.5 * t.sigmas) for i in where)


def absent(found: Estimate, claimed: Weights, where: Sequence[int], t: Thresholds) -> tuple[int, ...]:
    """Claimed adapters of which an estimate that can tell shows nothing."""
    zero = (i for i in where if claimed[i] != 0 and same(found.weights[i], 0.0, found.stderr[i], t))
    return tuple(i for i in zero if abs(found.weights[i]) < abs(claimed[i]) / 2)


def judge_module(
    scan: ModuleScan, found: Estimate, claimed: Weights, t: Thresholds, *, at_claim: bool = True
) -> ModuleVerdict:
    """Judge one module; at_claim: whether its program was run at the claimed weights.

    It agrees if its program can have stored every element, and the effect of each claimed adapter is there: in the bits
    (twice as many elements show it as differ from the program's own) or in recovered weights precise enough to tell. It
    disagrees if recovered weights contradict the claim, more than rounding is left over, or an element lies outside of
    the program; unless all that is left over, over all rows, is noise of one more rounding. Otherwise there is no
    evidence: undecided.
    """
    seen = scan.looked
    random = scan.program.order == "stochastic"
    certified = scan.outside == 0 and not random and at_claim
    left_over = scan.remainder if not certified and scan.remainder and scan.remainder.is_noise else None
    # Where a rounding that no program has leaves room for as much as an adapter does, it certifies nothing.
    coarse = left_over is not None and not random and left_over.unseen >= _least_share(seen, claimed)
    noise = left_over is not None and not coarse
    here = tuple(i for i in seen.effects if float(seen.strata.gram[i, i]) > 0)
    left = found.excess / (t.excess * seen.noise) if found.identifiable and not certified else 0.0
    clean = left <= 1.0
    contradicts = not certified and found.identifiable and not near(found, claimed, here, t)
    resolved = found.identifiable and all(resolves(found.stderr[i], claimed[i], t) for i in here)
    silent = absent(found, claimed, here, t) if resolved and not certified else ()
    if scan.base_own and seen.flips:
        silent = tuple(i for i in range(len(claimed)) if claimed[i] != 0 and i in here)
    shown = all(seen.effects.get(i, 0) > 2 * seen.mismatches for i in here if claimed[i] != 0)
    pending = random and scan.remainder is None and not scan.outside
    if scan.nonfinite or contradicts or silent or not (certified or noise or coarse or pending) or not clean:
        state = "disagree"
    elif ((shown and not noise) or resolved) and not coarse:
        state = "agree"
    else:
        state = "undecided"
    return ModuleVerdict(scan.name, state, found, resolved, silent, clean, here, noise, left, coarse)


def _least_share(seen: Looked, claimed: Weights) -> float:
    """The smallest claimed adapter's size, over that of the claimed sum."""
    gram, at = seen.strata.gram, torch.tensor(list(claimed), dtype=torch.float64)
    whole = float(at @ gram @ at)
    sizes = [abs(w) * math.sqrt(float(gram[i, i])) for i, w in enumerate(claimed) if w and float(gram[i, i]) > 0]
    return min(sizes, default=math.inf) / math.sqrt(whole) if whole > 0 else math.inf


@dataclass(frozen=True)
class Hypothesis:
    """A named way to be wrong about weights: the fault, and the weights that it gives a module."""

    fault: str
    weights: Callable[[str], Weights]


@dataclass(frozen=True)
class Reading:
    """What the weights of the modules say together.

    fault: the name of what most of them show, None if that is the claim; weights: what they hold then, by module;
    others: modules that hold something else.
    """

    fault: str | None
    weights: Callable[[str], Weights]
    others: tuple[ModuleVerdict, ...]


def read_weights(
    modules: Sequence[ModuleVerdict],
    pool: Callable[[Sequence[ModuleVerdict]], Estimate],
    claimed: Weights,
    t: Thresholds,
    further: Sequence[Hypothesis] = (),
) -> Reading:
    """Name what most modules agree on, and set the others apart.

    pool: the estimate over some modules; further: hypotheses whose weights follow from an adapter's config.
    """
    claim = _always(claimed)
    judged = [m for m in modules if m.estimate.identifiable]
    questioned = [m for m in modules if m.state == "disagree"]
    if not judged:
        return Reading(None, claim, tuple(questioned))
    if not all(fits(m, claimed, t) for m in judged):
        patterned = [h for h in further if len({tuple(h.weights(m.name)) for m in judged}) > 1]
        named = next((h for h in patterned if _explains(h, judged, pool(judged), t)), None)
        if named:
            return Reading(named.fault, named.weights, tuple(m for m in questioned if not m.estimate.identifiable))
    as_claimed = [m for m in judged if m.resolved and m.clean and fits(m, claimed, t)]
    skipped = [m for m in judged if m.silent and m.clean]
    if as_claimed and 2 * (len(as_claimed) + len(skipped)) >= len(judged) and len(as_claimed) < len(judged) and skipped:
        # Nothing here and as claimed there: however many are skipped, the rest tell what was meant.
        return Reading(None, claim, tuple(questioned))
    clean = [m for m in judged if m.clean]
    voting = clean if 2 * len(clean) >= len(judged) else judged
    middle = [_middle(voting, i) for i in range(len(claimed))]
    voting = [m for m in voting if fits(m, middle, t)]
    if 2 * len(voting) < len(judged):
        return Reading(None, claim, tuple(questioned))
    pooled = pool(voting)
    fault, weights = name_weights(pooled, claimed, t, clean=2 * len(clean) >= len(judged))
    if fault in ("weights-scaled", "weights-differ"):
        # What a config explains is the better explanation, where both fit.
        known = next((h for h in further if _explains(h, voting, pooled, t)), None)
        if known:
            fault, weights = known.fault, known.weights
    if fault is None:
        return Reading(None, claim, tuple(questioned))
    # A merge into a merge was rounded twice, whatever its program.
    allowed = 2.0 if fault == "applied-twice" else 1.0
    dirty = set() if 2 * len(clean) < len(judged) else {m.name for m in judged if m.left > allowed}
    apart = [m for m in judged if not fits(m, weights(m.name), t) or m.name in dirty]
    if fault in ("weights-scaled", "weights-differ") and 4 * sum(m.clean for m in apart) >= len(judged):
        # No common weights: each module is read by itself.
        return Reading(None, claim, tuple(questioned))
    unread = [m for m in questioned if not m.estimate.identifiable and m.silent]
    return Reading(fault, weights, tuple(apart + unread))


def _explains(known: Hypothesis, modules: Sequence[ModuleVerdict], pooled: Estimate, t: Thresholds) -> bool:
    """Whether a hypothesis fits modules one by one, and together."""
    if not all(fits(m, known.weights(m.name), t) for m in modules):
        return False
    count = sum(len(m.where) for m in modules)
    if _distance(modules, known.weights) > count + t.sigmas * math.sqrt(2 * count) + t.sigmas**2:
        return False
    first = known.weights(modules[0].name)
    if any(list(known.weights(m.name)) != list(first) for m in modules):
        return True
    return all(same(f, w, e, t) for f, w, e in zip(pooled.weights, first, pooled.stderr, strict=True) if f == f)


def _distance(modules: Sequence[ModuleVerdict], weights: Callable[[str], Weights]) -> float:
    """Summed squares of the distances between the modules' own weights and others, in standard errors; these at least
    a thousandth of a weight."""
    total = 0.0
    for m in modules:
        wanted, found = weights(m.name), m.estimate
        errors = [max(found.stderr[i], 1e-3 * abs(wanted[i]), 1e-6) for i in m.where]
        total += sum(((found.weights[i] - wanted[i]) / e) ** 2 for i, e in zip(m.where, errors, strict=True))
    return total


def _middle(modules: Sequence[ModuleVerdict], adapter: int) -> float:
    found = [m.estimate.weights[adapter] for m in modules if adapter in m.where]
    return median(found) if found else float("nan")


def fits(module: ModuleVerdict, wanted: Weights, t: Thresholds) -> bool:
    """Whether a module's own estimate agrees with some weights, as far as it goes."""
    return module.estimate.identifiable and near(module.estimate, wanted, module.where, t)


def name_weights(
    pooled: Estimate, claimed: Weights, t: Thresholds, *, clean: bool = True
) -> tuple[str | None, Callable[[str], Weights]]:
    """The fault that common weights show, None if they are the claimed ones; and the weights that are then inside.

    clean: whether rounding is all that is left over in most modules.
    """
    claim = _always(claimed)
    here = [i for i, weight in enumerate(pooled.weights) if not math.isnan(weight)]
    if not pooled.identifiable or not here:
        return None, claim
    found = [pooled.weights[i] for i in here]
    errors = [pooled.stderr[i] for i in here]
    wanted = [claimed[i] for i in here]
    recovered = [pooled.weights[i] if i in here else c for i, c in enumerate(claimed)]
    zero = [
        w != 0 and resolves(e, w, t) and same(f, 0.0, e, t) and abs(f) < abs(w) / 2
        for f, w, e in zip(found, wanted, errors, strict=True)
    ]
    if any(zero):
        name = "wrong-adapter" if not clean else "adapter-not-applied" if all(zero) else "adapter-missing"
        gone = {i for i, z in zip(here, zero, strict=True) if z}
        return name, _always([0.0 if i in gone else w for i, w in enumerate(recovered)])
    if all(same(f, w, e, t) for f, w, e in zip(found, wanted, errors, strict=True)):
        return None, claim
    for fault, hypothesis in _hypotheses(wanted, found):
        if all(same(f, h, e, t) for f, h, e in zip(found, hypothesis, errors, strict=True)):
            return fault, _always([hypothesis[here.index(i)] if i in here else c for i, c in enumerate(claimed)])
    return "weights-differ", _always(recovered)


def _always(weights: Weights) -> Callable[[str], Weights]:
    return lambda _: weights


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


Factors = Mapping[str, Callable[[str], float]]
"""How a misread config scales an adapter, module by module: fault -> (tensor name -> factor on its delta)."""


def config_hypotheses(factors: Mapping[int, Factors], claimed: Weights, names: Sequence[str]) -> list[Hypothesis]:
    """Weights as a tool would give them that misreads the config of one adapter, or of all; distinct from the claim.

    factors: by the adapter's number. A single number for all modules is no less a hypothesis than one by pattern.
    """
    options: list[Hypothesis] = []
    faults = dict.fromkeys(fault for known in factors.values() for fault in known)
    for key in faults:
        having = [i for i, known in factors.items() if key in known]
        for chosen in [having, *([i] for i in having if len(having) > 1)]:
            for common in (None, _combined(factors)) if key == "rslora-scale" else (None,):

                def weights(
                    name: str,
                    key: str = key,
                    chosen: Sequence[int] = tuple(chosen),
                    common: Callable[[str], float] | None = common,
                ) -> Weights:
                    factor = common(name) if common else 1.0
                    return [factor * c * (factors[i][key](name) if i in chosen else 1) for i, c in enumerate(claimed)]

                if any(
                    not math.isclose(a, b, rel_tol=0.02)
                    for n in names
                    for a, b in zip(weights(n), claimed, strict=True)
                ):
                    options.append(Hypothesis(key.partition(":")[0], weights))
    return options


def _combined(factors: Mapping[int, Factors]) -> Callable[[str], float]:
    """The factor on everything where adapters are put side by side in one, and that is scaled as rsLoRA: the root of
    the sum of their ranks, each the square of the factor that takes one scaling for the other."""
    taken = [known["rslora-scale"] for known in factors.values() if "rslora-scale" in known]
    return lambda name: math.sqrt(sum(max(f(name), 1 / f(name)) ** 2 for f in taken))
