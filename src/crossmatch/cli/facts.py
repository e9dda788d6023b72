"""What a checkpoint, an adapter or a vector is, as JSON and as lines."""

import math
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.cli.console import Terminal, emit
from crossmatch.report.text import printable, size

if TYPE_CHECKING:
    from crossmatch.results.inspection import InspectedAdapterJson, InspectedCheckpointJson, InspectedVectorJson

    Inspected = InspectedCheckpointJson | InspectedAdapterJson | InspectedVectorJson


def checkpoint_facts(path: str, directory: Path) -> "InspectedCheckpointJson":
    """What a checkpoint is, as plain JSON: tensors, dtypes, texts, what lies beside."""
    from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, text_facts

    checkpoint = Checkpoint(path)
    architectures = checkpoint.config.get("architectures")
    with Terminal().task("digest", None):
        digest = checkpoint.digest
    return {
        "schema_version": 1,
        "kind": "checkpoint",
        "path": str(directory),
        "architecture": ", ".join(map(str, architectures if isinstance(architectures, list) else ())) or "unknown",
        "tensors": len(checkpoint),
        "parameters": checkpoint.parameters,
        "bytes": checkpoint.nbytes,
        "dtypes": dict(Counter(DTYPE_NAMES[info.dtype] for info in checkpoint.tensors.values())),
        "tied_embeddings": checkpoint.tied,
        "quantisation": checkpoint.quantisation,
        "other_weight_files": ", ".join(p.name for p in checkpoint.layout.strays) or None,
        "merged_by_crossmatch": checkpoint.manifest is not None,
        "text": text_facts(directory).to_dict(),
        "digest": digest,
        "files": checkpoint.file_digests,
    }


def adapter_facts(path: str, directory: Path) -> "InspectedAdapterJson":
    """What an adapter is, as plain JSON."""
    from crossmatch.adapter import Adapter, examine
    from crossmatch.checkpoint import DTYPE_NAMES, layer_of, module_type_of, text_facts

    adapter = Adapter(path)
    whole = examine(adapter)
    usable = all(lack.usable for lack in whole.lacks)
    layers = {layer_of(name) for name in adapter} - {None}
    kinds = {name: {part.kind for part in parts} for name, parts in adapter.parts.items()}
    modules = [name.removesuffix(".weight") for name in adapter if kinds[name] & {"low-rank", "dora", "experts"}]
    needs_base = any(found & {"dora", "saved", "tokens"} for found in kinds.values())
    norm = None if needs_base or not usable else adapter.norm()
    dtypes = Counter(DTYPE_NAMES[info.dtype] for info in adapter.files.tensors.values())
    facts: InspectedAdapterJson = {
        "schema_version": 1,
        "kind": "adapter",
        "path": str(directory),
        "base": adapter.config.base,
        "modules": len(adapter),
        "layers": len(layers),
        "parameters": adapter.files.parameters,
        "bytes": adapter.files.nbytes,
        "dtypes": dict(dtypes),
        "targets": dict(Counter(module_type_of(name) for name in adapter)),
        "ranks": {str(k): v for k, v in sorted(Counter(adapter.config.rank(m) for m in modules).items())},
        "scales": {f"{k:.6g}": v for k, v in sorted(Counter(adapter.config.scaling(m) for m in modules).items())},
        "rslora": adapter.config.rslora,
        "fan_in_fan_out": adapter.config.fan_in_fan_out,
        "lacks": [{"fault": lack.fault, "evidence": lack.evidence} for lack in whole.lacks],
        "remarks": "; ".join(whole.remarks) or None,
        "text": text_facts(directory).to_dict(),
        "digest": adapter.digest,
        "files": adapter.file_digests,
    }
    if usable:
        facts["norm"] = norm if norm is not None and math.isfinite(norm) else None
    return facts


def fact_lines(key: str, value: Any) -> list[str]:
    """One fact as lines of 80 columns."""
    if key == "bytes":
        key, value = "size", size(value)
    if key == "lacks":
        told = {lack["fault"]: lack["evidence"] for lack in value}
        key, value = "whole", told or "yes, as far as the file alone tells"
    if key == "norm" and value is None:
        value = "needs the base: DoRA, saved modules and tokens are relative to it"
    if isinstance(value, dict):
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in value.values()):
            return [line for k, v in value.items() for line in fact_lines(f"{key}: {k}", v)]
        value = ", ".join(f"{k} x {v}" for k, v in value.items())
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int):
        value = f"{value:,}"
    if isinstance(value, float):
        value = f"{value:.6g}"
    shown = value[:32] + "…" if isinstance(value, str) and len(value) == 64 else str("-" if value is None else value)
    return textwrap.wrap(f"{key:22} {shown}", 79, subsequent_indent=" " * 23, break_long_words=False)


def vector_facts(path: str) -> "InspectedVectorJson":
    """What a stored vector is, as plain JSON."""
    from crossmatch.adapter import StoredVector
    from crossmatch.vectors import describe

    return describe(StoredVector(path), Terminal())


def show_facts(facts: "Inspected", as_json: bool) -> None:
    """Facts on stdout, as JSON or as lines."""
    if as_json:
        from crossmatch.result_kinds import INSPECTION

        emit(INSPECTION, facts)
        return
    for key, value in facts.items():
        if key == "schema_version":
            continue
        for line in fact_lines(key.replace("_", " "), value):
            print(printable(line))
