"""What a checkpoint is said to be: given by the caller, or read from the manifest inside it and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from crossmatch.adapter import Adapter, Fitted, Tied, fit, open_vector
from crossmatch.checkpoint import MANIFEST, Checkpoint, is_hub_id, safe_name
from crossmatch.delta import TuningVector
from crossmatch.errors import CheckpointError, InputError
from crossmatch.rules import Calibration, Combined, Recipe, Weight, parse_weight

# Adapters that a manifest may name, each of which makes work; and characters of a path, as file systems take them.
_MANY, _LONG = 32, 1000
Parts = Mapping[str, tuple[TuningVector, Weight]]
"""A claim's content: name -> (tuning vector, claimed weight)."""


@dataclass(frozen=True)
class Claim:
    """Base, adapters and weights that a checkpoint is said to hold.

    recipe: the rule by which they were combined; tied: what was done with a change of one of two tied embeddings;
    route: how it is said to be rounded, `once` or `stochastic` (None: nothing is said); base_digest: what the base's
    digest must be, if that is claimed too; tokenizer_from: the adapter, or `base`, whose tokenizer and
    template it is said to have; dtypes: those in which it is said to be stored (none: nothing is said);
    partial: adapters that may be truncated or untrained."""

    base: Checkpoint
    parts: Parts
    recipe: Recipe = field(default_factory=Recipe)
    tied: Tied = "untie"
    route: str | None = None
    base_digest: str | None = None
    tokenizer_from: str | None = None
    dtypes: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("a claim needs at least one adapter: pass -a NAME=PATH and -w NAME=NUMBER")

    def check(self) -> None:
        """Raise InputError if the base is not the one of that digest. After it was read: the digest is then known."""
        if self.base_digest is not None:
            _same(self.base.digest, self.base_digest, f"base {self.base.path}")

    def resolve(self) -> "Resolved":
        """The claim tensor by tensor. Raises AdapterError for a delta that does not fit the base, RuleError for weights
        that are not finite."""
        vectors = {name: vector for name, (vector, _) in self.parts.items()}
        found = fit(self.base, vectors, tied=self.tied, incomplete=self.partial)
        weights = {name: weight for name, (_, weight) in self.parts.items()}
        misread: dict[str, dict[str, dict[str, float]]] = {}
        kinds: dict[str, set[str]] = {}
        for label, vector in found.vectors.items():
            config = adapter.config if isinstance(adapter := self.parts[label][0], Adapter) else None
            for name in vector:
                assert isinstance(vector, Fitted)
                kinds.setdefault(name, set()).update(vector.kinds(name))
                if config and self.recipe.rule == "linear":
                    module = vector.source(name).removesuffix(".weight").removesuffix(".bias")
                    for fault, factor in config.misread(module).items():
                        misread.setdefault(label, {}).setdefault(fault, {})[name] = factor
        parts = Combined(found.vectors, weights, self.recipe).claim()
        return Resolved(found.base, parts, kinds, misread)


@dataclass(frozen=True)
class Resolved:
    """A claim by the base's tensor names: base as the adapters saw it; name -> (vector, one number).

    kinds: what the deltas on a tensor are (low-rank, dora, bias, saved, tokens, experts, delta); misread: adapter ->
    fault -> tensor -> factor on its delta, for tools that misread the adapter's config.
    """

    base: Checkpoint
    parts: Mapping[str, tuple[TuningVector, float]]
    kinds: Mapping[str, set[str]] = field(default_factory=dict)
    misread: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


def claim_from_manifest(
    merged: Checkpoint,
    base: str | Path | None,
    adapters: Mapping[str, str | Path],
    calibration: str | Path | None = None,
) -> Claim:
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
        weights = {name: parse_weight(entry["weight"]) for name, entry in named.items()}
        origin = predicate["base"]
        digests = {name: entry["digest"] for name, entry in named.items()}
        base_digest = origin["digest"]
        if len(named) > _MANY or not all(map(safe_name, named)):
            raise ValueError(f"it names {len(named)} adapters, or one in a way that none is called")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{merged.path / MANIFEST} does not describe a merge: {error!r}") from error
    unknown = set(adapters) - set(named)
    if unknown:
        raise InputError(f"-a {min(unknown)}: the manifest names {', '.join(named)}; give weights to claim otherwise")
    checkpoint = Checkpoint(base if base is not None else _where(merged, origin, "base", "--base BASE"))
    if not isinstance(base_digest, str):
        raise CheckpointError(f"{merged.path / MANIFEST} does not describe a merge: no digest of the base")
    parts = {}
    for name, entry in named.items():
        adapter = open_vector(adapters.get(name) or _where(merged, entry, f"adapter {name}", f"-a {name}=PATH"))
        _same(adapter.digest, digests[name], f"adapter {name} at {adapter.path}")
        parts[name] = (adapter, weights[name])
    try:
        tied, route = predicate.get("tied", "refuse"), predicate.get("route")
        if tied not in get_args(Tied):
            raise ValueError(f"tied is {tied!r}")
        recipe = _recipe(predicate, calibration)
        source, dtypes = predicate.get("tokenizer_from"), predicate.get("dtypes", ())
        dtypes = tuple(name for name in dtypes if isinstance(name, str))
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
        raise CheckpointError(f"{merged.path / MANIFEST} does not describe a merge: {error!r}") from error
    source = source if isinstance(source, str) else None
    route = route if route in ("once", "stochastic") else None
    allowed = predicate.get("partial_adapters")
    partial = tuple(name for name in allowed if name in parts) if isinstance(allowed, dict) else ()
    return Claim(checkpoint, parts, recipe, tied, route, base_digest, source, dtypes, partial)


def _recipe(predicate: Mapping[str, Any], calibration: str | Path | None) -> Recipe:
    wanted = predicate.get("calibration")
    if wanted is not None and calibration is None:
        raise InputError("this merge used calibration data; pass the file: --calibration FILE")
    data = Calibration(calibration) if calibration is not None and wanted is not None else None
    if data is not None:
        _same(data.digest, wanted, f"calibration {data.path}")
    return Recipe(
        str(predicate.get("rule", "linear")), dict(predicate.get("parameters", {})), int(predicate.get("seed", 0)), data
    )


def _where(merged: Checkpoint, origin: Mapping[str, Any], what: str, remedy: str) -> str | Path:
    if origin.get("hub_id"):
        text = f"{origin['hub_id']}@{origin.get('revision')}"
        if not is_hub_id(text):
            raise InputError(f"the manifest puts {what} at {text}, which is no name on the hub; pass {remedy}")
        return text
    where = origin.get("path")
    # What a merge writes is relative to it: an absolute path is somebody else's idea of this machine.
    if isinstance(where, str) and (Path(where).is_absolute() or len(where) > _LONG or "\0" in where):
        raise InputError(f"the manifest puts {what} at {where[:_LONG]}, an absolute path; refused, pass {remedy}")
    path = merged.path / str(where)
    if not isinstance(where, str) or not where or not path.exists():
        raise InputError(f"the manifest puts {what} at {path}, where nothing is; pass {remedy}")
    return path


def _same(found: str, recorded: str | None, what: str) -> None:
    if found != recorded:
        raise InputError(
            f"{what} is not the one that was merged: its digest differs from the manifest's; "
            "to test it as a claim of your own, give --base, -a and -w"
        )
