"""What a stored vector is: its form, its tensors, norm and ranks, digests, and what it was made from."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from crossmatch.adapter import VECTOR_FILE, StoredDense, StoredVector
from crossmatch.checkpoint import DTYPE_NAMES, MANIFEST, Checkpoint, layer_of, module_type_of, read_json, text_facts
from crossmatch.delta import Delta, norm
from crossmatch.errors import CrossmatchError
from crossmatch.results.inspection import InspectedVectorJson, MadeFromJson
from crossmatch.runtime import SILENT, Progress, single_threads
from crossmatch.vectors.inner_products import gram

_FORMS = {"delta": "dense", "shared": "dense, of both tied embeddings", "low-rank": "factors", "experts": "factors"}


def describe(vector: StoredVector, progress: Progress = SILENT) -> InspectedVectorJson:
    """Everything that can be said of a stored vector without its base, as plain JSON.

    norm: Frobenius, over all tensors; ranks: numbers of factor columns, with how many tensors have so many; as_written:
    whether the file still has the digest that its manifest gives (None: it gives none).
    """
    kinds = {name: part.kind for name, (part,) in vector.parts.items()}
    infos = vector.files.tensors
    with single_threads(), progress.task("measure", len(vector)) as task:
        size = 0.0
        for name in vector:
            size = math.hypot(size, _norm(vector[name]))
            task.advance(1, name)
    ranks = Counter(infos[f"scale/{n}"].shape[-1] for n, kind in kinds.items() if kind in ("low-rank", "experts"))
    with progress.task("digest", None):
        digest = vector.digest
    record = vector.record
    return {
        "schema_version": 1,
        "kind": "vector",
        "path": str(vector.path),
        "form": dict(Counter(_FORMS[kind] for kind in kinds.values())),
        "tensors": len(vector),
        "layers": len({layer_of(name) for name in vector} - {None}),
        "parameters": vector.files.parameters,
        "bytes": vector.files.nbytes,
        "dtypes": dict(Counter(DTYPE_NAMES[info.dtype] for info in infos.values() if info.shape)),
        "targets": dict(Counter(module_type_of(name) for name in vector)),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())} or None,
        "norm": size,
        "added_rows": {name: infos[key].shape[0] for name, (_, key) in vector.added.items()} or None,
        "made_by": made_by if isinstance(made_by := record.get("made_by"), str) else None,
        "made_from": _made_from(record),
        "text": text_facts(vector.path).to_dict(),
        "as_written": _as_written(vector),
        "digest": digest,
        "files": vector.file_digests,
    }


def _norm(delta: Delta) -> float:
    """Frobenius; a tensor that stays in its file is streamed."""
    if not isinstance(delta, StoredDense):
        return norm(delta)
    return abs(delta.scale) * math.sqrt(gram([replace(delta, scale=1.0)])[0, 0])


def _made_from(record: Mapping[str, object]) -> dict[str, MadeFromJson]:
    """Names, places and digests of what the manifest says that it was made from."""
    sources: dict[Any, Any] = {key: record[key] for key in ("base", "tuned") if isinstance(record.get(key), dict)}
    parts = record.get("parts")
    sources |= parts if isinstance(parts, dict) else {}
    found: dict[str, MadeFromJson] = {}
    for label, source in sources.items():
        facts: MadeFromJson = {}
        for key, form in _TOLD.items() if isinstance(source, dict) else ():
            # A stranger's manifest may have anything here.
            if isinstance(source.get(key), form) and not isinstance(source[key], bool):
                facts[key] = source[key]
        found[str(label)] = facts
    return found


_Told = Literal["path", "hub_id", "revision", "digest", "weight", "factor"]
_TOLD: dict[_Told, tuple[type, ...]] = {
    "path": (str,),
    "hub_id": (str,),
    "revision": (str,),
    "digest": (str,),
    "weight": (int, float, str),
    "factor": (int, float),
}


def _as_written(vector: StoredVector) -> bool | None:
    subjects = read_json(vector.path / MANIFEST).get("subject")
    for subject in subjects if isinstance(subjects, list) else ():
        digest = subject.get("digest") if isinstance(subject, dict) and subject.get("name") == VECTOR_FILE else None
        if isinstance(digest, dict) and isinstance(digest.get("blake3"), str):
            return digest["blake3"] == vector.file_digests[VECTOR_FILE]
    return None


def origin_of(vector: Any, tuned: Checkpoint, base: str | Path | None) -> tuple[Checkpoint | None, str]:
    """The base of which a vector says that it leads from it to `tuned`, or None and why.

    base: where it lies now, if not where the manifest says; either must have the digest that the manifest gives.
    """
    record = vector.record if isinstance(vector, StoredVector) else {}
    theirs, ours = record.get("tuned"), record.get("base")
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return None, "the vector was not extracted from a checkpoint"
    if theirs.get("digest") != tuned.digest:
        return None, f"the vector was extracted from another checkpoint than {tuned.path}"
    where = base
    if where is None:
        path = ours.get("path")
        named = f"{ours['hub_id']}@{ours.get('revision')}" if ours.get("hub_id") else None
        inside = isinstance(path, str) and not Path(path).is_absolute() and len(path) < 1000 and "\0" not in path
        where = named or (vector.path / str(path) if inside else None)
    try:
        found = Checkpoint(where) if where is not None else None
    except CrossmatchError as error:
        return None, str(error)
    if found is None or found.digest != ours.get("digest"):
        return None, "the base is not where the manifest says, or another one lies there (--base)"
    return found, ""
