"""What is wrong with the weights, most telling first: names for what the modules show."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from crossmatch.checkpoint import expert_of, input_embedding, is_output
from crossmatch.verification.claim import Resolved
from crossmatch.verification.subject import Subject
from crossmatch.verification.verdict import Finding
from crossmatch.verification.weights.diagnosis import Diagnosis, by_bits, diagnose
from crossmatch.verification.weights.estimate import Estimate, estimate
from crossmatch.verification.weights.module_verdicts import (
    ModuleVerdict,
    Reading,
    Thresholds,
    config_hypotheses,
    fits,
    read_weights,
    same,
)
from crossmatch.verification.weights.scan import ModuleScan, Scan

# Modules that are diagnosed one by one; of more, so many spread over all of them.
_DIAGNOSED = 48
# Left over beyond this, weights alone do not explain a module, even if they fit.
_UNEVEN_EXCESS = 1.5
_BY_KIND = {
    "saved": "saved-module-ignored",
    "tokens": "saved-module-ignored",
    "bias": "bias-delta-dropped",
    "experts": "expert-scrambled",
}


@dataclass(frozen=True)
class Judged:
    """A scan with every module's verdict and the estimate over all of them."""

    scan: Scan
    modules: Sequence[ModuleVerdict]
    pooled: Estimate
    claimed: Sequence[float]

    @property
    def by_name(self) -> dict[str, ModuleScan]:
        """Scans by tensor name."""
        return {module.name: module for module in self.scan.modules}

    @property
    def stderr(self) -> tuple[float, ...]:
        """Standard errors of the pooled weights. Where some module holds more than rounding, its elements are not
        independent: there they are, at least, those of weights that scatter between modules as these do (the sandwich
        of Liang and Zeger, 1986, modules as clusters)."""
        errors, scans = list(self.pooled.stderr), self.by_name
        if all(m.clean for m in self.modules):
            return tuple(errors)
        known = [m for m in self.modules if m.estimate.identifiable]
        for i, weight in enumerate(self.pooled.weights):
            here = [m for m in known if i in m.where]
            sizes = [float(scans[m.name].looked.strata.gram[i, i]) for m in here]
            pairs = zip(sizes, here, strict=True)
            squares = sum((size * (m.estimate.weights[i] - weight)) ** 2 for size, m in pairs)
            if len(here) > 1 and squares == squares:
                spread = math.sqrt(squares * len(here) / (len(here) - 1)) / sum(sizes)
                errors[i] = max(errors[i], spread)
        return tuple(errors)

    def pool(self, some: Sequence[ModuleVerdict]) -> Estimate:
        """The estimate over some modules."""
        scans = self.by_name
        return estimate([scans[m.name].looked.strata for m in some], self.claimed)


def weight_findings(subject: Subject, claim: Resolved, judged: Judged, t: Thresholds) -> list[Finding]:
    """Faults of the adapted modules."""
    modules, claimed = judged.modules, judged.claimed
    scans = judged.by_name
    reading = read_weights(modules, judged.pool, claimed, t, _from_configs(claim, claimed, [m.name for m in modules]))
    flipped = [m for m in scans.values() if m.looked.flips]
    if flipped and all(m.base_own for m in flipped):
        return [Finding("adapter-not-applied", (), f"all {len(flipped)} adapted tensors are the base's own")]
    spoilt = {m.name for m in modules if scans[m.name].nonfinite}
    found = _Findings(subject, claim, judged, t)
    unclean = [m for m in modules if m.estimate.identifiable and not m.clean and m.name not in spoilt]
    identifiable = [m for m in modules if m.estimate.identifiable]
    if unclean and 2 * len(unclean) > len(identifiable):
        found.most(reading, unclean)
        rest = [m for m in reading.others if m.state == "disagree" and m.name not in {u.name for u in unclean}]
    else:
        if reading.fault:
            found.add(reading.fault, (), _weights_text(judged, reading, subject.names, t))
        rest = list(reading.others)
    for module in rest:
        if module.name not in spoilt:
            found.one(module, reading)
    for module in modules:
        if module.coarse:
            found.coarse(module, reading)
    return found.all()


class _Findings:
    """Findings by fault, in the order in which they came up."""

    def __init__(self, subject: Subject, claim: Resolved, judged: Judged, t: Thresholds) -> None:
        self.subject, self.claim, self.judged, self.t = subject, claim, judged, t
        self._found: dict[str, tuple[list[str], str]] = {}
        self._diagnosed = 0

    def add(self, fault: str, where: Iterable[str], evidence: str) -> None:
        """Note a fault; the first evidence stays."""
        places, text = self._found.setdefault(fault, ([], evidence))
        places.extend(where)
        self._found[fault] = (places, text)

    def all(self) -> list[Finding]:
        """One finding per fault."""
        return [Finding(fault, tuple(where), text) for fault, (where, text) in self._found.items()]

    def most(self, reading: Reading, unclean: Sequence[ModuleVerdict]) -> None:
        """Most modules hold something that no weights explain: one name for it."""
        step = -(-len(unclean) // _DIAGNOSED)
        examined = [(m, self._diagnose(m, reading)) for m in unclean[::step]]
        named = Counter(d.fault for _, d in examined)
        fault, count = named.most_common(1)[0]
        diagnosed = fault
        first = next(d for _, d in examined if d.fault == fault)
        scan = self.judged.scan
        if fault == "unexplained-delta":
            full = sum(bool(d.rank and d.full and d.rank > d.full / 2) for _, d in examined)
            if 2 * full > len(examined) or len(scan.untouched_changed) > len(scan.identical):
                fault = "base-differs"
            elif reading.fault == "wrong-adapter":
                fault = "wrong-adapter"
        evidence = f"{first.evidence}, in {len(unclean)} of {len(self.judged.modules)} modules"
        self.add(fault, [m.name for m in unclean] if 2 * count > len(examined) else [], evidence)
        if fault == "quantised-base":
            self._absent([d.weights for _, d in examined if d.fault == fault])
        passed_over = {diagnosed, fault, "unexplained-delta"}
        if diagnosed == "unexplained-delta":
            # A sum is pressed into a lower rank in a whole file. Where most modules hold something unknown, a lower
            # rank that fits a few of them was fitted to that.
            passed_over.add("rank-truncated")
        for module, other in examined:
            if other.fault not in passed_over:
                self.add(other.fault, [module.name], other.evidence)

    def _absent(self, weights: Sequence[Sequence[float]]) -> None:
        """Adapters of which nothing is there, by the weights found in some modules."""
        absent, claimed = [], self.judged.claimed
        for i, wanted in enumerate(claimed):
            known = [w[i] for w in weights if w[i] == w[i]]
            if wanted and known and abs(median(known)) < abs(wanted) / 4:
                absent.append(self.subject.names[i])
        if absent:
            fault = "adapter-not-applied" if len(absent) == sum(map(bool, claimed)) else "adapter-missing"
            self.add(fault, [], f"nothing of {', '.join(absent)} beside that base")

    def one(self, module: ModuleVerdict, reading: Reading) -> None:
        """A module that holds something else than the others."""
        if module.silent and (module.clean or not module.estimate.identifiable):
            names = ", ".join(self.subject.names[i] for i in module.silent)
            self.add(self._silent(module.name), [module.name], f"nothing of {names} here")
            return
        fitting = module.estimate.identifiable and fits(module, reading.weights(module.name), self.t)
        if module.estimate.identifiable and module.clean and not fitting and module.estimate.excess < _UNEVEN_EXCESS:
            own = ", ".join(f"{self.subject.names[i]} {module.estimate.weights[i]:.4g}" for i in module.where)
            self.add("weights-uneven", [module.name], f"the weights here are {own}")
            return
        if self._diagnosed >= _DIAGNOSED:
            last = next(reversed(self._found), "unexplained-delta")
            self.add(last, [module.name], "")
        elif fitting and module.clean:
            self._diagnosed += 1
            found = by_bits(self.subject, module.name, self._options(module, reading))
            if found:
                self.add(self._placed(found.fault, module.name), [module.name], found.evidence)
            else:
                self._odd_elements(module)
        else:
            self._named(module, self._diagnose(module, reading))

    def coarse(self, module: ModuleVerdict, reading: Reading) -> None:
        """A module in which a rounding that no program has could be something else: whether it is a fault of a name."""
        self._diagnosed += 1
        options = self._options(module, reading)
        found = by_bits(self.subject, module.name, options) if self._diagnosed <= _DIAGNOSED else None
        if found:
            self.add(self._placed(found.fault, module.name), [module.name], found.evidence)

    def _named(self, module: ModuleVerdict, found: Diagnosis) -> None:
        """Add what a diagnosis of one module says."""
        if found.fault == "unexplained-delta" and module.silent:
            names = ", ".join(self.subject.names[i] for i in module.silent)
            self.add("wrong-adapter", [module.name], f"nothing of {names} here, but {found.evidence}")
        elif found.fault == "unexplained-delta" and "experts" in self.claim.kinds.get(module.name, set()):
            self.add("expert-scrambled", [module.name], found.evidence)
        else:
            self.add(self._placed(found.fault, module.name), [module.name], found.evidence)

    def _placed(self, fault: str, name: str) -> str:
        """The name of a fault in that place."""
        return self._silent(name) if fault == "modules-skipped" else fault

    def _silent(self, name: str) -> str:
        kinds = self.claim.kinds.get(name, set())
        named = next((fault for kind, fault in _BY_KIND.items() if kind in kinds), None)
        embeds = name == input_embedding(self.subject.base.tensors) or is_output(name)
        if named is None and expert_of(name):
            return "expert-scrambled"
        return named or ("embedding-delta-dropped" if embeds else "modules-skipped")

    def _odd_elements(self, module: ModuleVerdict) -> None:
        """The weights fit and elements do not: what lies there, in those rows."""
        scan = self.judged.by_name[module.name]
        rows = f", between rows {scan.bad[0]} and {scan.bad[1]}" if scan.bad else ""
        left = scan.remainder
        text = f"no honest way of rounding gives {scan.outside} of {scan.elements} elements{rows}"
        if left is not None and left.structured:
            text += "; what is left over has a direction, as a delta has and rounding has not"
        self.add("unexplained-delta", [module.name], text)

    def _diagnose(self, module: ModuleVerdict, reading: Reading) -> Diagnosis:
        self._diagnosed += 1
        scan = self.judged.by_name[module.name]
        limit = min(self.t.excess * scan.looked.noise, max(1.3, 0.6 * module.estimate.excess))
        return diagnose(self.subject, module.name, self._options(module, reading), limit)

    def _options(self, module: ModuleVerdict, reading: Reading) -> list[list[float]]:
        """Weights that the module may have been meant to have: what the others hold, and the claim."""
        read, claimed = list(reading.weights(module.name)), list(self.judged.claimed)
        return [read] if read == claimed else [read, claimed]


def _from_configs(claim: Resolved, claimed: Sequence[float], names: Sequence[str]) -> list:
    numbers = {label: i for i, label in enumerate(claim.parts)}
    factors = {
        numbers[label]: {fault: _factor(by_name) for fault, by_name in known.items()}
        for label, known in claim.misread.items()
        if label in numbers
    }
    return config_hypotheses(factors, claimed, names)


def _factor(by_name: Mapping[str, float]) -> Callable[[str], float]:
    return lambda name: by_name.get(name, 1.0)


def _weights_text(judged: Judged, reading: Reading, names: Sequence[str], t: Thresholds) -> str:
    others = {m.name for m in reading.others}
    found = judged.pool([m for m in judged.modules if m.name not in others and m.estimate.identifiable])
    return weights_text(found, judged.claimed, names, t)


def weights_text(found: Estimate, claimed: Sequence[float], names: Sequence[str], t: Thresholds) -> str:
    """Recovered weights beside the claimed ones, 0 where they are within their error of it; and which adapter it is
    where it is there alone, at 1."""
    known = [i for i, weight in enumerate(found.weights) if weight == weight]
    zero = {i for i in known if abs(found.weights[i]) <= t.sigmas * found.stderr[i]}
    text = "; ".join(f"{names[i]} {0.0 if i in zero else found.weights[i]:.4g} for {claimed[i]:g}" for i in known)
    there = [i for i in known if i not in zero]
    if len(there) == 1 and len(known) == len(names) > 1:
        (one,) = there
        if same(found.weights[one], 1.0, found.stderr[one], t):
            return f"{text}: this is {names[one]} alone"
    return text
