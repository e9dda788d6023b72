"""What a checkpoint is said to be: given by the caller, or read from the manifest inside it and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import MANIFEST, Checkpoint
from crossmatch.delta import TuningVector, check_weights
from crossmatch.errors import CheckpointError, InputError

Parts = Mapping[str, tuple[TuningVector, float]]
"""A claim's content: name -> (tuning vector, claimed weight)."""


@dataclass(frozen=True)
class Claim:
    """Base, adapters and weights that a checkpoint is said to hold."""

    base: Checkpoint
    parts: Parts

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("a claim needs at least one adapter: pass -a NAME=PATH and -w NAME=NUMBER")
        check_weights([weight for _, weight in self.parts.values()])


def claim_from_manifest(merged: Checkpoint, base: str | Path | None, adapters: Mapping[str, str | Path]) -> Claim:
    """The claim that the manifest makes; `base` and `adapters` say where these lie now, where that differs.

    The manifest is a claim, not a proof: what it names is read again, and must have the digests that it gives. Raises
    InputError if there is no manifest, or an input is gone or no longer the same.
    """
    manifest = merged.manifest
    if manifest is None:
        raise InputError(
            f"{merged.path} has no {MANIFEST}, so the claim must be given: --base BASE -a NAME=PATH -w NAME=NUMBER"
        )
    try:
        predicate = manifest["predicate"]
        named = predicate["adapters"]
        weights = {name: float(entry["weight"]) for name, entry in named.items()}
        origin = predicate["base"]
        digests = {name: entry["digest"] for name, entry in named.items()}
        base_digest = origin["digest"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{merged.path / MANIFEST} does not describe a merge: {error!r}") from error
    unknown = set(adapters) - set(named)
    if unknown:
        raise InputError(f"-a {min(unknown)}: the manifest names {', '.join(named)}; give weights to claim otherwise")
    checkpoint = Checkpoint(base if base is not None else _where(merged, origin, "base", "--base BASE"))
    _same(checkpoint.digest, base_digest, f"base {checkpoint.path}")
    parts = {}
    for name, entry in named.items():
        adapter = Adapter(adapters.get(name) or _where(merged, entry, f"adapter {name}", f"-a {name}=PATH"))
        _same(adapter.digest, digests[name], f"adapter {name} at {adapter.path}")
        parts[name] = (adapter, weights[name])
    return Claim(checkpoint, parts)


def _where(merged: Checkpoint, origin: Mapping[str, Any], what: str, remedy: str) -> str | Path:
    if origin.get("hub_id"):
        return f"{origin['hub_id']}@{origin['revision']}"
    path = merged.path / str(origin.get("path"))
    if not origin.get("path") or not path.exists():
        raise InputError(f"the manifest puts {what} at {path}, where nothing is; pass {remedy}")
    return path


def _same(found: str, recorded: str | None, what: str) -> None:
    if found != recorded:
        raise InputError(
            f"{what} is not the one that was merged: its digest differs from the manifest's; "
            "to test it as a claim of your own, give --base, -a and -w"
        )
