"""What a checkpoint, an adapter or a vector is, as plain JSON."""

import math
from collections import Counter
from pathlib import Path

from crossmatch.adapter import CONFIG_FILE, Adapter, StoredVector, examine, is_vector
from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, layer_of, locate, module_type_of, text_facts
from crossmatch.errors import InputError
from crossmatch.results.inspection import InspectedAdapterJson, InspectedCheckpointJson, InspectedVectorJson
from crossmatch.runtime import Progress
from crossmatch.vectors.describe import describe

Inspected = InspectedCheckpointJson | InspectedAdapterJson | InspectedVectorJson


def inspect_path(path: str | Path, progress: Progress) -> Inspected:
    """What lies in a directory, or at a hub id. Raises InputError for a file."""
    directory = locate(path).path
    if not directory.is_dir():
        raise InputError(f"{path} is a file; give the directory that holds it")
    if (directory / CONFIG_FILE).exists():
        return adapter_facts(str(path), directory)
    if is_vector(directory):
        return describe(StoredVector(str(path)), progress)
    return checkpoint_facts(str(path), directory, progress)


def inspect_vector(path: str, progress: Progress) -> InspectedAdapterJson | InspectedVectorJson:
    """What a stored vector or an adapter is."""
    directory = locate(path).path
    if (directory / CONFIG_FILE).exists():
        return adapter_facts(path, directory)
    return describe(StoredVector(path), progress)


def checkpoint_facts(path: str, directory: Path, progress: Progress) -> InspectedCheckpointJson:
    """What a checkpoint is, as plain JSON: tensors, dtypes, texts, what lies beside."""
    checkpoint = Checkpoint(path)
    architectures = checkpoint.config.get("architectures")
    with progress.task("digest", None):
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


def adapter_facts(path: str, directory: Path) -> InspectedAdapterJson:
    """What an adapter is, as plain JSON."""
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
