"""A verdict for supply chains: an in-toto statement over the model's digest, and a CycloneDX bill of materials.

No times and no host names: the same inputs give the same bytes. Neither file is signed: that is for the one who vouches
for it (cosign, a workflow's attestation, a line of claims.jsonl).
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from crossmatch.export.table import Json

PREDICATE = "urn:crossmatch:verdict:1"
STATEMENT = "https://in-toto.io/Statement/v1"
_NAMESPACE = uuid.UUID("6f1c3f0e-5a0b-5c8e-9a53-3b7f7a6f2c11")


@dataclass(frozen=True)
class Part:
    """A base or an adapter: its name, where it is on the hub (if it is), the blake3 digest of its content, the weight
    that is claimed for it (None: a base)."""

    name: str
    hub_id: str | None = None
    revision: str | None = None
    digest: str | None = None
    weight: float | str | None = None

    @property
    def purl(self) -> str | None:
        """A package URL, if it is on the hub."""
        if not self.hub_id:
            return None
        return f"pkg:huggingface/{self.hub_id.partition('@')[0]}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class JudgedModel:
    """A model and what was found in it.

    name: of the model; sha256: its digest; method: how that was made; files: sha256 by file; verdict: the dict of
    `verify --json`; base: None where nothing was claimed that could be read; recipe: rule and parameters of the claim.
    """

    name: str
    sha256: str
    method: str
    files: Mapping[str, str]
    verdict: Json
    base: Part | None = None
    adapters: Sequence[Part] = ()
    recipe: Json = field(default_factory=dict)


def attestation(model: JudgedModel) -> dict[str, Any]:
    """An in-toto Statement v1 whose subject is the model, as one line of claims.jsonl holds it once it is signed."""
    verdict = model.verdict
    adapters = {
        part.name: {"weight": part.weight, "hub_id": part.hub_id, "revision": part.revision, "blake3": part.digest}
        for part in model.adapters
    }
    base = model.base
    origin = base and {"name": base.name, "hub_id": base.hub_id, "revision": base.revision, "blake3": base.digest}
    findings = [{key: finding[key] for key in ("fault", "where", "evidence")} for finding in verdict["findings"]]
    evidence = verdict.get("evidence", {})
    return {
        "_type": STATEMENT,
        "subject": [{"name": model.name, "digest": {"sha256": model.sha256}}],
        "predicateType": PREDICATE,
        "predicate": {
            "schema_version": 1,
            "verifier": {"name": "crossmatch", "version": version("crossmatch")},
            "subject_digest": model.method,
            "verdict": verdict["verdict"],
            "faults": list(verdict["faults"]),
            "claim": {"base": origin, "adapters": adapters, **model.recipe},
            "weights": verdict["weights"],
            "modules": verdict["modules"],
            "rounding": {key: verdict["rounding"].get(key) for key in ("route", "violations", "swallowed_energy")},
            "findings": findings,
            "notes": list(verdict["notes"]),
            "thresholds": verdict["thresholds"],
            "scope": "sampled rows" if evidence.get("sampled") else "every element",
            "checked": list(evidence.get("checked", ())),
            "not_checked": list(evidence.get("not_checked", ())),
            "inputs": {"blake3": verdict["digests"], "files_sha256": dict(model.files)},
        },
    }


def bill_of_materials(model: JudgedModel) -> dict[str, Any]:
    """A CycloneDX 1.7 ML-BOM: the model, its base and adapters as `pedigree.ancestors` with recovered weights."""
    verdict = model.verdict
    ancestors = [_ancestor(part, verdict["weights"].get(part.name)) for part in model.adapters]
    if model.base is not None:
        ancestors.insert(0, _ancestor(model.base, None))
    facts = {
        "verdict": verdict["verdict"],
        "faults": ", ".join(verdict["faults"]) or None,
        "notes": ", ".join(verdict["notes"]) or None,
        "rule": model.recipe.get("rule"),
        "rounding": verdict["rounding"].get("route"),
        "modules-agree": f"{verdict['modules'].get('agree', 0)} of {verdict['modules'].get('adapted', 0)}",
        "digest-method": model.method,
        "blake3": verdict["digests"].get("merged"),
    }
    words = f"Merge of {', '.join(part.name for part in model.adapters) or 'adapters'} into a base; weights recovered "
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, model.sha256 + verdict['verdict'])}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "crossmatch", "version": version("crossmatch")}]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": f"model:{model.sha256}",
                "name": model.name,
                "version": model.sha256[:12],
                "hashes": [{"alg": "SHA-256", "content": model.sha256}],
                "pedigree": {"ancestors": ancestors, "notes": f"{words}from the file by crossmatch."},
                "properties": _properties(facts),
            },
        },
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for name, digest in model.files.items()
        ],
    }


def _ancestor(part: Part, weight: Json | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": f"ancestor:{part.name}", "name": part.name}
    if part.purl:
        found["purl"] = part.purl
    if part.revision or part.digest:
        found["version"] = part.revision or str(part.digest)[:12]
    facts = {"role": "base" if weight is None and part.weight is None else "adapter", "blake3": part.digest}
    if weight is not None or part.weight is not None:
        known = weight or {}
        facts |= {"weight:claimed": part.weight if part.weight is not None else known.get("claimed")}
        facts |= {"weight:recovered": known.get("recovered"), "weight:stderr": known.get("stderr")}
    return {**found, "properties": _properties(facts)}


def _properties(facts: Json) -> list[dict[str, str]]:
    """Properties as CycloneDX has them, texts; what is not known is left out."""
    return [
        {"name": f"crossmatch:{key}", "value": value if isinstance(value, str) else repr(value)}
        for key, value in facts.items()
        if value is not None
    ]
