"""Identify: which of some adapters are in a file, and how much of each, when nobody claims anything."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from crossmatch.checkpoint import Checkpoint, is_quantised
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError
from crossmatch.progress import SILENT, Progress
from crossmatch.verification.claim import Claim
from crossmatch.verification.judge import DEFAULTS, Thresholds, same
from crossmatch.verification.recover import Estimate, Strata, estimate, sums
from crossmatch.verification.scan import glance
from crossmatch.verification.verdict import RecoveredWeight, Verdict
from crossmatch.verification.verify import open_claim, verify_claim


def identify(
    merged: str | Path | Checkpoint,
    base: Checkpoint,
    candidates: Mapping[str, TuningVector],
    *,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Say which of `candidates` are in `merged`, how much of each, and whether anything else is.

    Weights are recovered from some rows of every tensor; then the whole file is held against exactly that sum, as if it
    had been claimed. verdict: `identified`; `failed` if something is in the file beside it; `inconclusive` if
    the data cannot tell. evidence.absent names the candidates of which nothing is there. Raises as `verify` does.
    """
    if not candidates:
        raise InputError("no candidate given; add -a NAME=PATH")
    if not isinstance(merged, Checkpoint) and is_quantised(merged):
        raise InputError(f"{merged} is a quantised export; its weights need a claim: crossmatch verify")
    # Nobody says here that they are whole.
    claim = Claim(base, {name: (vector, 1.0) for name, vector in candidates.items()}, partial=tuple(candidates))
    opened = open_claim(merged, claim)
    if isinstance(opened, Verdict):
        return opened
    subject, _ = opened
    looked = glance(subject, progress)
    found = estimate([x.strata for x in looked] or [Strata.empty(len(candidates))], subject.weights)
    inside = _inside(found, thresholds)
    if not found.identifiable:
        # Of nearly parallel ones the first stands for all.
        groups = sums([x.strata for x in looked], subject.weights)
        inside = [0.0 if groups else 1.0] * len(candidates)
        for group in groups:
            inside[next(iter(group.terms))] = shortest(group.value, group.stderr)
    parts = {n: (v, inside[i]) for i, (n, v) in enumerate(candidates.items())}
    verdict = verify_claim(subject.merged, replace(claim, parts=parts), thresholds=thresholds, progress=progress)
    absent = [n for n, (_, w) in parts.items() if found.identifiable and w == 0.0]
    weights = {n: RecoveredWeight(None, w.recovered, w.stderr) for n, w in verdict.weights.items()}
    word = {"verified": "identified"}.get(verdict.verdict, verdict.verdict)
    notes = tuple("adapter-partial" if note == "partial-adapter-allowed" else note for note in verdict.notes)
    evidence = {**verdict.evidence, "absent": absent}
    return replace(verdict, verdict=word, weights=weights, notes=notes, evidence=evidence)


def _inside(found: Estimate, t: Thresholds) -> list[float]:
    """Weights to hold the file against: the shortest decimals that the estimate allows, none where it shows none."""
    pairs = zip(found.weights, found.stderr, strict=True)
    return [0.0 if w != w or same(w, 0.0, s, t) else shortest(w, s) for w, s in pairs]


def shortest(value: float, stderr: float) -> float:
    """The decimal with the fewest digits within three standard errors."""
    return next((r for d in range(1, 7) if abs((r := round(value, d)) - value) <= 3 * stderr), value)
