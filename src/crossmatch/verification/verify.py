"""Verify: which sum of deltas is really in a file, and is everything else the base's?"""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, by_names_of, input_embedding, is_output, is_quantised
from crossmatch.errors import InputError
from crossmatch.rules import Recipe
from crossmatch.runtime import SILENT, Progress, single_threads
from crossmatch.verification import verdict_record as record
from crossmatch.verification.arithmetic.fit import most_misses, pieces_in_question, settle, settle_again
from crossmatch.verification.arithmetic.sample_rows import pieces_of
from crossmatch.verification.arithmetic.without_program import widened
from crossmatch.verification.claim import Claim, Parts, Resolved
from crossmatch.verification.files.directory import Directory, inspect_directory
from crossmatch.verification.quantised.verify import verify_quantised_claim
from crossmatch.verification.subject import Subject, differing
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict
from crossmatch.verification.weights.estimate import Estimate, Strata, estimate
from crossmatch.verification.weights.findings import Judged, weight_findings
from crossmatch.verification.weights.module_verdicts import DEFAULTS, Thresholds, judge_module, resolves
from crossmatch.verification.weights.scan import ModuleScan, Scan, scan
from crossmatch.verification.weights.second_pass import look_again, quick_scope
from crossmatch.verification.whole_adapters import examine_adapters

# What a proof beside the writing does not look at.
_UNSEEN = ("directory: only the weights were judged",)
# Further passes, each with what the one before could not give: wrong programs and weights are shut out one by one.
_PASSES = 4


def verify(
    merged: str | Path | Checkpoint,
    base: Checkpoint,
    parts: Parts,
    *,
    recipe: Recipe | None = None,
    thresholds: Thresholds = DEFAULTS,
    quick: bool = False,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge the claim that `merged` is round(base + sum_i weight_i * D_i) and nothing else.

    parts: name -> (tuning vector, claimed weight); recipe: another rule than the weighted sum; quick: judge some rows
    of every tensor instead of all. Reads base and merged once, block by block; no forward pass. Raises CheckpointError
    or AdapterError for what cannot be read, RuleError for weights that are not finite.
    """
    claim = Claim(base, parts, recipe or Recipe())
    return verify_claim(merged, claim, thresholds=thresholds, quick=quick, progress=progress)


# Also outside of the passes: threads that wait for each other spin, and on a busy machine each waits for a core.
@single_threads()
def verify_claim(
    merged: str | Path | Checkpoint,
    claim: Claim,
    *,
    thresholds: Thresholds = DEFAULTS,
    quick: bool = False,
    progress: Progress = SILENT,
    settled: Subject | None = None,
) -> Verdict:
    """Judge a claim; see `verify`. settled: the program and the weights that are inside, where these are known."""
    started = time.monotonic()
    whole = examine_adapters(claim)
    if isinstance(whole, Verdict):
        return whole
    if not isinstance(merged, Checkpoint) and is_quantised(merged, claim.base):
        if quick or claim.dtypes:
            raise InputError(f"{merged} is a quantised export: it is judged whole, without --quick and --dtype")
        return whole.added_to(verify_quantised_claim(merged, claim, thresholds=thresholds, progress=progress))
    opened = open_claim(merged, claim)
    if isinstance(opened, Verdict):
        return opened
    subject, resolved = opened
    checkpoint = subject.merged
    vectors = {name: vector for name, (vector, _) in claim.parts.items()}
    with ThreadPoolExecutor(1, "directory") as pool:
        # Beside the weights: tokenizers and templates are loaded by processes of their own.
        placed = [vector for vector, _ in resolved.parts.values()]
        directory = pool.submit(inspect_directory, checkpoint, resolved.base, vectors, claim.tokenizer_from, placed)
        subject = settled or settle(subject, resolved, thresholds, progress, claim.route)
        result = scan(subject, progress, quick=quick)
        rows, tried, seen = [], subject, result
        for _ in range(_PASSES):
            rows += pieces_in_question(tried, seen)
            other = settle_again(subject, resolved, result, thresholds, rows, is_claimed=settled is None)
            if other is None:
                break
            tried, seen = other, scan(other, progress, quick=quick)
            # Other bits at the middle of what weights may be are no sign of a program that leaves more open.
            same = tried.sharpened and tried.program == subject.program and not _outside(seen)
            if _outside(seen) < _outside(result) and (same or _mismatches(seen) <= most_misses(_mismatches(result))):
                subject, result = tried, seen
        if not quick:
            look_again(subject, result, thresholds, progress)
        beside = directory.result()
    verdict = decide(subject, resolved, result, thresholds, beside=beside)
    other = _other_dtype(checkpoint, claim.dtypes)
    if other:
        verdict = replace(verdict, verdict="failed", findings=(*verdict.findings, other))
    if quick:
        scope = quick_scope(subject, result)
        verdict = replace(verdict, notes=(*verdict.notes, "sampled"), evidence={**verdict.evidence, "sampled": scope})
    if not quick:
        claim.check()
    digests = {
        "merged": None if quick else checkpoint.digest,
        "base": None if quick else claim.base.digest,
        "adapters": {n: v.digest if isinstance(v, Recorded) else None for n, (v, _) in claim.parts.items()},
    }
    return whole.added_to(replace(verdict, digests=digests, seconds=round(time.monotonic() - started, 3)))


def _outside(result: Scan) -> int:
    return sum(module.outside for module in result.modules)


def _mismatches(result: Scan) -> int:
    return sum(module.mismatches for module in result.modules)


def open_claim(merged: str | Path | Checkpoint, claim: Claim) -> tuple[Subject, Resolved] | Verdict:
    """What is compared; the verdict, if a file cannot be read because of a fault that has a name."""
    try:
        checkpoint = merged if isinstance(merged, Checkpoint) else Checkpoint(merged)
        resolved = claim.resolve()
    except InputError as error:
        if error.fault is None:
            raise
        return Verdict.refused(error.fault, str(error))
    named, _ = by_names_of(resolved.base, checkpoint)
    return Subject(named, resolved), resolved


def _other_dtype(merged: Checkpoint, claimed: Sequence[str]) -> Finding | None:
    """Tensors that are stored in another dtype than said."""
    named = {name: str(info.dtype).removeprefix("torch.") for name, info in merged.tensors.items()}
    others = tuple(name for name, dtype in named.items() if dtype not in claimed) if claimed else ()
    if not others:
        return None
    return Finding("dtype-changed", others, f"stored as {named[others[0]]}, said to be {' or '.join(claimed)}")


def decide(
    subject: Subject,
    claim: Resolved,
    result: Scan,
    thresholds: Thresholds,
    *,
    beside: Directory | None = None,
) -> Verdict:
    """The verdict on what a scan has shown; beside: what the directory's other files have shown.

    Modules are judged at the weights that are inside (the subject's) where the claim's are these, or round to them.
    """
    claimed = subject.weights if subject.at_claim else [weight for _, weight in claim.parts.values()]
    modules = [
        judge_module(m, estimate([m.looked.strata], claimed), claimed, thresholds, at_claim=subject.at_claim)
        for m in result.modules
    ]
    pooled = _pooled(result.modules, claimed)
    judged = Judged(result, modules, pooled, claimed)
    beside = beside or Directory((), (), (), _UNSEEN)
    findings = _findings(subject, claim, judged, thresholds)
    findings = _ordered(findings, beside.findings)
    rounding = record.rounding(judged, subject)
    notes, conclusive = _notes(subject, claim, judged, rounding, thresholds, failed=bool(findings))
    return Verdict(
        verdict="failed" if findings else "verified" if conclusive else "inconclusive",
        findings=tuple(findings),
        notes=(*notes, *beside.notes),
        weights=_recovered(subject, claim, judged),
        modules={
            "adapted": len(modules),
            "agree": sum(m.state == "agree" for m in modules),
            "disagree": sum(m.state == "disagree" for m in modules),
            "undecided": sum(m.state == "undecided" for m in modules),
        },
        tensors=record.tensors(subject.base, result),
        rounding=rounding,
        evidence={
            "elements": sum(m.elements for m in result.modules),
            "entries": pooled.entries,
            "residual_excess": None if math.isnan(pooled.excess) else pooled.excess,
            "left_over": record.left_over(judged),
            "unseen": record.unseen(judged),
            "modules_in_question": [m.name for m in modules if m.state == "disagree"],
            "sums": record.sums(judged, subject.names),
            "noted": {**beside.noted, **record.swallowed(notes, rounding)},
            "checked": list(beside.checked),
            "not_checked": list(beside.not_checked),
        },
        thresholds=vars(thresholds),
        digests={},
        seconds=0.0,
        details=tuple(record.detail(s, m, subject.names) for s, m in zip(result.modules, modules, strict=True)),
        groups=record.groups(judged, subject.names),
    )


def _recovered(subject: Subject, claim: Resolved, judged: Judged) -> dict[str, RecoveredWeight]:
    """What the verdict says of the weights, beside those that are claimed."""
    said = [weight for _, weight in claim.parts.values()]
    errors: Sequence[float] = judged.stderr
    if subject.program.rounds_weight:
        known = replace(judged.pooled, stderr=tuple(errors))
        errors = widened(known, list(pieces_of(subject)), subject.program, subject.weights).stderr
    every = zip(subject.names, said, judged.pooled.weights, errors, strict=True)
    return {name: RecoveredWeight.of(claimed, w, e) for name, claimed, w, e in every}


def _ordered(weights: Sequence[Finding], beside: Sequence[Finding]) -> list[Finding]:
    """All findings, most telling first; what one says need not be said again by another."""
    first = [f for f in beside if f.fault == "two-weight-sets"]
    every = [*first, *weights, *(f for f in beside if f not in first)]
    if {"tied-leak", "tie-flag-stale"} & {f.fault for f in every}:
        every = [f for f in every if (f.fault, f.where) != ("config-changed", ("tie_word_embeddings",))]
    return every


def _pooled(modules: Sequence[ModuleScan], claimed: Sequence[float]) -> Estimate:
    return estimate([m.looked.strata for m in modules] or [Strata.empty(len(claimed))], claimed)


def _findings(subject: Subject, claim: Resolved, judged: Judged, t: Thresholds) -> list[Finding]:
    """All that is wrong, most telling first: what explains the others comes before them."""
    merged, base, result = subject.merged, subject.base, judged.scan
    first: list[Finding] = []
    leak = base.original.tied and not base.tied and merged.tied and not any(map(is_output, merged.tensors))
    if leak:
        first.append(Finding("tied-leak", (), "the claim changes one embedding alone, the file has one for both"))
    weights = weight_findings(subject, claim, judged, t)
    spoilt = [m.name for m in result.modules if m.nonfinite] + result.nonfinite
    changed = tuple(result.untouched_changed)
    if len(changed) > len(result.identical):
        # Most of what nobody should have touched is another base's.
        weights = [replace(f, fault="base-differs") if f.fault == "unexplained-delta" else f for f in weights]
    if any(f.fault == "base-differs" for f in weights):
        changed = ()
    changed = tuple(n for n in changed if not (leak and n == input_embedding(base.tensors)))
    rest = {
        "nonfinite": tuple(spoilt),
        # With a leak, the other embedding is neither missing nor another one by itself.
        "tensors-missing": tuple(n for n in result.missing if not (leak and is_output(n))),
        "tensors-extra": tuple(result.extra),
        "untouched-changed": changed,
    }
    shown = {"untouched-changed": differing(subject, changed[0])} if changed else {}
    return first + weights + [Finding(fault, where, shown.get(fault, "")) for fault, where in rest.items() if where]


def _notes(
    subject: Subject,
    claim: Resolved,
    judged: Judged,
    rounding: Mapping[str, Any],
    t: Thresholds,
    *,
    failed: bool,
) -> tuple[list[str], bool]:
    """Honest peculiarities, and whether the evidence decides at all."""
    result, pooled, claimed = judged.scan, judged.pooled, judged.claimed
    notes = []
    identifiable = pooled.identifiable and all(
        resolves(e, c, t) for e, c in zip(pooled.stderr, claimed, strict=True) if not math.isnan(e)
    )
    absent = any(math.isnan(weight) for weight in pooled.weights)
    if not any(claimed) and not any(m.looked.changed for m in result.modules):
        # The claim is the base, and every adapted element is the base's: no weight needs to be told from another.
        identifiable, absent = True, False
    if (not identifiable or absent) and not failed:
        notes.append("not-identifiable")
    said = [weight for _, weight in claim.parts.values()]
    if list(claimed) != said:
        halves = [[float(torch.tensor(w, dtype=half)) for w in said] for half in (torch.bfloat16, torch.float16)]
        notes.append("weight-in-bf16" if list(claimed) in halves else "claim-rounded")
    named = {"models": "merged-as-models", "twice": "rounded-twice", "stochastic": "rounded-stochastically"}
    if rounding["route"] in named:
        notes.append(named[rounding["route"]])
    if any(m.noise or m.coarse for m in judged.modules) and rounding["route"] != "stochastic":
        notes.append("rounded-otherwise")
    if rounding["swallowed_energy"] is not None and rounding["swallowed_energy"] > t.swallow:
        notes.append("rounding-swallow")
    if result.cast:
        notes.append("dtype-changed")
    # A module without evidence may still be exactly what the claim predicts; then it is no open question.
    scans = judged.by_name
    is_open = [m for m in judged.modules if m.state == "undecided" and (scans[m.name].outside or m.noise)]
    return notes, identifiable and not absent and not is_open
