"""The statement that lies beside a merge: what the files are, and from what and how they were made."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import text_facts
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
    return statement(PREDICATE, plan, subjects, facts, home=None if away else out)


def statement(
    kind: str,
    plan: MergePlan,
    subjects: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, Any],
    *,
    home: Path | None,
) -> dict[str, Any]:
    """An in-toto Statement v1: the files as subjects, how they were made as the predicate. No times, no host.

    facts: what only this kind of output has to say; home: its directory (None: that will be elsewhere).
    """
    base = plan.fit.base.original
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": dict(digests)} for name, digests in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": {
            "schema_version": 1,
            "base": {**base.source.origin(home), "digest": base.digest, "files": base.file_digests},
            "adapters": _adapter_facts(plan.parts, home),
            **plan.vector.recipe.to_dict(),
            "notes": list(plan.fit.notes),
            **plan.allowed,
            **plan.recorded,
            "versions": {
                # They decide the bytes.
                "crossmatch": version("crossmatch"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            **facts,
        },
    }


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
