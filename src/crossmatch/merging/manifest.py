"""The statement that lies beside a merge: what the files are, and from what and how they were made."""

from collections.abc import Mapping
from pathlib import Path

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import text_facts, versions
from crossmatch.merging.plan import MergePlan, Parts
from crossmatch.merging.side_files import SideFiles
from crossmatch.results.merging import (
    DigestsJson,
    MadeOfJson,
    MergeManifestJson,
    MergePredicateJson,
    MergeType,
    WeightedInputJson,
)
from crossmatch.results.verdict import ManifestVerdictJson
from crossmatch.rules import weight_json


def merge_manifest(
    plan: MergePlan,
    sides: SideFiles,
    subjects: Mapping[str, DigestsJson],
    out: Path,
    verdict: ManifestVerdictJson | None,
    *,
    away: bool = False,
) -> MergeManifestJson:
    """The statement of a merged checkpoint."""
    predicate: MergePredicateJson = {
        **made_of(plan, None if away else out),
        "linear_instead": list(plan.summed),
        "dtypes": sorted({str(t.dtype).split(".")[-1] for t in plan.tensors}),
        "tensors": plan.counts(),
        "route": "once" if plan.storage.rounding == "nearest" else plan.storage.rounding,
        "tied": plan.storage.tied,
        "tokenizer_from": sides.tokenizer_from,
        "generation_config_from": sides.generation_from,
        "not_copied": list(sides.left),
        "text": text_facts(out).to_dict(),
        "verdict": verdict,
    }
    return statement("urn:crossmatch:merge:1", subjects, predicate)


def statement(kind: MergeType, subjects: Mapping[str, DigestsJson], predicate: MergePredicateJson) -> MergeManifestJson:
    """An in-toto Statement v1: the files as subjects, how they were made as the predicate. No times, no host."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {**digests}} for name, digests in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": predicate,
    }


def made_of(plan: MergePlan, home: Path | None) -> MadeOfJson:
    """From what and how a plan's output is made; home: its directory (None: that will be elsewhere)."""
    base = plan.fit.base.original
    return {
        "schema_version": 1,
        "base": {**base.source.origin(home), "digest": base.digest, "files": base.file_digests},
        "adapters": _adapter_facts(plan.parts, home),
        **plan.vector.recipe.to_dict(),
        "notes": list(plan.fit.notes),
        **plan.allowed,
        **plan.recorded,
        "versions": versions(),
    }


def _adapter_facts(parts: Parts, out: Path | None) -> dict[str, WeightedInputJson]:
    """Weight, place and digests of every adapter, by name."""
    facts: dict[str, WeightedInputJson] = {}
    for name, (vector, weight) in parts.items():
        if isinstance(vector, Recorded):
            known = vector.source.origin(out)
            facts[name] = {
                "weight": weight_json(weight),
                **known,
                "digest": vector.digest,
                "files": vector.file_digests,
            }
        else:
            facts[name] = {"weight": weight_json(weight), "path": None, "digest": None}
    return facts
