"""What a verdict holds beside its findings, as plain JSON: rounding, weights by groups, modules one by one."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from crossmatch.checkpoint import Checkpoint, layer_of, module_type_of
from crossmatch.results.verdict import (
    GroupsJson,
    GroupWeightJson,
    ModuleVerdictJson,
    RoundingJson,
    SumJson,
    TensorCountsJson,
)
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.subject import Subject
from crossmatch.verification.weights.estimate import Estimate
from crossmatch.verification.weights.estimate import sums as sums_of
from crossmatch.verification.weights.findings import Judged
from crossmatch.verification.weights.module_verdicts import ModuleVerdict
from crossmatch.verification.weights.row_sums import Looked
from crossmatch.verification.weights.scan import ModuleScan, Scan


def tensors(base: Checkpoint, result: Scan) -> TensorCountsJson:
    """Names and numbers of the tensors that carry no delta."""
    return {
        "total": len(base.tensors),
        "untouched_identical": len(result.identical),
        "untouched_changed": result.untouched_changed,
        "missing": result.missing,
        "extra": result.extra,
    }


def rounding(judged: Judged, subject: Subject) -> RoundingJson:
    """The program by which the file was made, if it explains most of it, with the share of elements outside it and of
    those that a different order of additions made; and what of the deltas rounding lost."""
    modules = judged.scan.modules
    looked = [m.looked for m in modules]
    energy = sum(x.energy for x in looked)
    elements = sum(m.elements for m in modules)
    explained = Counter(m.program for m in modules if not m.outside)
    program = max(explained, key=lambda p: (explained[p], p == subject.program), default=None)
    if 2 * explained.total() <= len(modules):
        program = None
    noise = any(m.noise for m in judged.modules)
    route = None
    if program is not None:
        route = "once" if program.once else "models" if program.by_models else "twice"
        route = "stochastic" if program.order == "stochastic" else route
    elif noise:
        route = "twice"
    stored = next((subject.merged.tensors[m.name].dtype for m in modules), torch.float32)
    mismatch = sum(m.mismatches for m in modules) / elements if elements else None
    identifier = program.identifier(subject.names) if program else None
    return {
        "route": route,
        "replay": {"route": identifier, "mismatch": mismatch} if program else None,
        "arithmetic": _in_words(explained, subject, stored) if program else None,
        "violations": sum(m.outside for m in modules) / elements if elements else None,
        "bit_mismatch": mismatch,
        "swallowed_energy": sum(x.lost for x in looked) / energy if energy else None,
        "swallowed_by_adapter": {name: _swallowed(looked, i) for i, name in enumerate(subject.names)},
    }


def _in_words(explained: Mapping[Program, int], subject: Subject, stored: torch.dtype) -> str:
    """The programs by which modules were made, with their numbers where these are several."""
    if len(explained) == 1:
        return next(iter(explained)).describe(subject.names, stored)
    order = sorted(explained, key=lambda program: -explained[program])
    return "; ".join(f"{p.describe(subject.names, stored, tool=False)} ({explained[p]} modules)" for p in order)


def _swallowed(looked: Sequence[Looked], adapter: int) -> float | None:
    """Share of an adapter's energy, at its weight and by itself, that rounding loses."""
    pairs = [x.alone[adapter] for x in looked if adapter in x.alone]
    energy = sum(energy for _, energy in pairs)
    return sum(lost for lost, _ in pairs) / energy if energy else None


def groups(judged: Judged, names: Sequence[str]) -> GroupsJson:
    """Recovered weights by module type and by layer."""

    def over(key: Callable[[str], Any]) -> dict[str, dict[str, GroupWeightJson]]:
        kept: dict[str, list[ModuleVerdict]] = {}
        for module in judged.modules:
            kept.setdefault(str(key(module.name)), []).append(module)
        return {group: _weights(judged.pool(some), names) for group, some in kept.items()}

    return {"types": over(module_type_of), "layers": over(layer_of)}


def _weights(found: Estimate, names: Sequence[str]) -> dict[str, GroupWeightJson]:
    return {
        name: {"recovered": found.weights[i], "stderr": found.stderr[i]}
        for i, name in enumerate(names)
        if not math.isnan(found.weights[i])
    }


def detail(scanned: ModuleScan, judged: ModuleVerdict, names: Sequence[str]) -> ModuleVerdictJson:
    """One adapted tensor."""
    found, seen = judged.estimate, scanned.looked
    return {
        "name": scanned.name,
        "layer": layer_of(scanned.name),
        "module": module_type_of(scanned.name),
        "state": judged.state,
        "weights": _weights(found, names),
        "entries": found.entries,
        "residual_excess": None if math.isnan(found.excess) else found.excess,
        "elements": scanned.elements,
        "looked_at": seen.elements,
        "outside": scanned.outside,
        "bit_mismatches": scanned.mismatches,
        "arithmetic": scanned.program.identifier([str(i) for i in range(len(found.weights))]),
        "rows_in_question": list(scanned.bad) if scanned.bad else None,
        "changed": seen.changed,
        "predicted_changed": seen.flips,
    }


def sums(judged: Judged, names: Sequence[str]) -> list[SumJson]:
    """What can be said of weights that cannot be told apart."""
    if judged.pooled.identifiable:
        return []
    found = sums_of([m.looked.strata for m in judged.scan.modules], judged.claimed)
    return [
        {"terms": {names[i]: c for i, c in s.terms.items()}, "recovered": s.value, "stderr": s.stderr}
        for s in found
        if len(s.terms) > 1
    ]


def swallowed(notes: Sequence[str], rounding: RoundingJson) -> dict[str, str]:
    """The figures of the note `rounding-swallow`, by its name; nothing where it is not noted."""
    lost = rounding.get("swallowed_energy")
    if "rounding-swallow" not in notes or lost is None:
        return {}
    each = rounding.get("swallowed_by_adapter", {}).items()
    parts = ", ".join(f"{share:.0%} of {name}'s" for name, share in each if share is not None)
    return {"rounding-swallow": f"{lost:.0%} of the delta's energy is lost" + (f" ({parts})" if parts else "")}


def left_over(judged: Judged) -> float | None:
    """By how much a module's elements are off what its program gives, over the size of the claimed sum, where that is
    the most: all that can have been added to the file. None where nothing adapted was looked at, or is no number."""
    seen = [m for m in judged.scan.modules if m.looked.energy > 0.0]
    found = (math.sqrt(m.apart / m.looked.energy * m.looked.elements / m.elements) for m in seen)
    return _known(found)


def unseen(judged: Judged) -> float | None:
    """The size of a further delta, over that of the claimed sum, that would be seen with 99% in whichever module it
    were. None where nothing adapted was looked at."""
    found = [
        m.remainder.unseen if m.remainder is not None else m.looked.hiding.smallest(m.looked.elements / m.elements)
        for m in judged.scan.modules
        if m.looked.elements
    ]
    return _known(size for size in found if size is not None)


def _known(sizes: Iterable[float]) -> float | None:
    """The largest of some sizes; None if there is none, or it is no number."""
    most = max(sizes, default=math.inf)
    return most if math.isfinite(most) else None
