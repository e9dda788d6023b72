"""The statement that lies beside a merge: what the files are, and from what and how they were made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import statement, text_facts, versions
from crossmatch.merging.plan import MergePlan, Parts
from crossmatch.merging.side_files import SideFiles
from crossmatch.rules import weight_json

PREDICATE = "urn:crossmatch:merge:1"


def merge_manifest(
    plan: MergePlan,
    sides: SideFiles,
    subjects: Mapping[str, Mapping[str, str]],
    out: Path,
    verdict: Mapping[str, Any] | None,
    *,
    away: bool = False,
) -> dict[str, Any]:
    """The statement of a merged checkpoint."""
    facts = {
        "linear_instead": list(plan.summed),
        "dtypes": sorted({str(t.dtype).split(".")[-1] for t in plan.tensors}),
        "tensors": {action: plan.count(action) for action in ("merge", "copy", "cast")},
        "route": "once" if plan.storage.rounding == "nearest" else plan.storage.rounding,
        "tied": plan.storage.tied,
        "tokenizer_from": sides.tokenizer_from,
        "generation_config_from": sides.generation_from,
        "not_copied": list(sides.left),
        "text": text_facts(out).to_dict(),
        "verdict": verdict,
    }
    return plan_statement(PREDICATE, plan, subjects, facts, home=None if away else out)


def plan_statement(
    kind: str,
    plan: MergePlan,
    subjects: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, Any],
    *,
    home: Path | None,
) -> dict[str, Any]:
    """The statement of an output of a plan; facts: what only this kind of output has to say; home: its directory (None:
    that will be elsewhere)."""
    base = plan.fit.base.original
    made = {
        "base": {**base.source.origin(home), "digest": base.digest, "files": base.file_digests},
        "adapters": _adapter_facts(plan.parts, home),
        **plan.vector.recipe.to_dict(),
        "notes": list(plan.fit.notes),
        **plan.allowed,
        "versions": versions(),
    }
    return statement(kind, subjects, {**made, **facts})


def _adapter_facts(parts: Parts, out: Path | None) -> dict[str, Any]:
    """Weight, place and digests of every adapter, by name."""
    facts = {}
    for name, (vector, weight) in parts.items():
        known = (
            {**vector.source.origin(out), "digest": vector.digest, "files": vector.file_digests}
            if isinstance(vector, Recorded)
            else {"path": None, "digest": None}
        )
        facts[name] = {"weight": weight_json(weight), **known}
    return facts
