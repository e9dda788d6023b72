"""Identify: which of some adapters are in a file, and how much of each, when nobody claims anything."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from crossmatch.checkpoint import Checkpoint, is_quantised
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress, single_threads
from crossmatch.verification.arithmetic.fit import discover, shortest
from crossmatch.verification.arithmetic.sample_rows import pieces_of
from crossmatch.verification.arithmetic.without_program import recover
from crossmatch.verification.claim import Claim
from crossmatch.verification.verdict import RecoveredWeight, Verdict
from crossmatch.verification.verify import open_claim, verify_claim
from crossmatch.verification.weights.estimate import sums
from crossmatch.verification.weights.module_verdicts import DEFAULTS, Thresholds
from crossmatch.verification.weights.scan import glance


# Also outside of the passes: threads that wait for each other spin, and on a busy machine each waits for a core.
@single_threads()
def identify(
    merged: str | Path | Checkpoint,
    base: Checkpoint,
    candidates: Mapping[str, TuningVector],
    *,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Say which of `candidates` are in `merged`, how much of each, and whether anything else is.

    Weights are recovered from some rows of every tensor; then the whole file is held against that sum: at numbers as
    people type them, if these explain it, else at the recovered ones as far as they are known. verdict: `identified`;
    `failed` if something is in the file beside it; `inconclusive` if the data cannot tell. evidence.absent names the
    candidates of which nothing is there. Raises as `verify` does.
    """
    if not candidates:
        raise InputError("no candidate given; add -a NAME=PATH")
    if not isinstance(merged, Checkpoint) and is_quantised(merged, base):
        raise InputError(f"{merged} is a quantised export; its weights need a claim: crossmatch verify")
    # Nobody says here that they are whole.
    claim = Claim(base, {name: (vector, 1.0) for name, vector in candidates.items()}, partial=tuple(candidates))
    opened = open_claim(merged, claim)
    if isinstance(opened, Verdict):
        return opened
    subject, resolved = opened
    recovered = recover(subject, list(pieces_of(subject)), progress)
    found = recovered.estimate
    if found.identifiable:
        subject = discover(subject, resolved, recovered, thresholds)
        inside = subject.weights
    else:
        # Of nearly parallel ones the first stands for all.
        groups = sums([x.strata for x in glance(subject, progress)], subject.weights)
        inside = [0.0 if groups else 1.0] * len(candidates)
        for group in groups:
            inside[next(iter(group.terms))] = shortest(group.value, group.stderr)
    parts = {n: (v, inside[i]) for i, (n, v) in enumerate(candidates.items())}
    settled = subject if found.identifiable else None
    claim = replace(claim, parts=parts)
    verdict = verify_claim(subject.merged, claim, thresholds=thresholds, progress=progress, settled=settled)
    absent = [n for n, (_, w) in parts.items() if found.identifiable and w == 0.0]
    weights = {n: RecoveredWeight(None, w.recovered, w.stderr) for n, w in verdict.weights.items()}
    word = {"verified": "identified"}.get(verdict.verdict, verdict.verdict)
    renamed = {"partial-adapter-allowed": "adapter-partial"}
    notes = tuple(renamed.get(note, note) for note in verdict.notes if note != "claim-rounded")
    evidence = {**verdict.evidence, "absent": absent}
    findings = tuple(replace(finding, unclaimed=True) for finding in verdict.findings)
    return replace(verdict, verdict=word, findings=findings, weights=weights, notes=notes, evidence=evidence)
