"""What a merge will do, tensor by tensor, worked out from headers alone and checked before anything is written."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from crossmatch.adapter import Adapter, Fit, Recorded, Tied, check_whole, fit
from crossmatch.checkpoint import DTYPE_NAMES, SINGLE, Checkpoint, tensor_bytes
from crossmatch.delta import STORABLE, TuningVector
from crossmatch.errors import AdapterError, CheckpointError, RuleError
from crossmatch.results.merging import (
    Action,
    ActionCountsJson,
    PartialJson,
    PlannedMergeJson,
    PlannedTensorJson,
    RecordedJson,
)
from crossmatch.rules import Combined, Recipe, Weight, weight_json

Parts = Mapping[str, tuple[TuningVector, Weight]]
"""What goes into a merge: name -> (tuning vector, weight)."""

# Some models are published in these forms alone.
_DEQUANTISERS = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
DTYPE_ARGUMENTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Storage:
    """How the result is stored.

    dtype: of all floating tensors (None: the base's); rounding: `nearest` or `stochastic`; shard_bytes: tensor bytes of
    one file at most (None: the base's files; 0: a single file); tied: what to do with a change of one of two tied
    embeddings.
    """

    dtype: torch.dtype | None = None
    rounding: str = "nearest"
    shard_bytes: int | None = None
    tied: Tied = "refuse"

    def __post_init__(self) -> None:
        if self.rounding not in ("nearest", "stochastic"):
            raise RuleError(f"rounding {self.rounding!r}: give nearest or stochastic")


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: copied byte for byte, cast to another dtype, or merged from the named parts.

    columns: width of the matrix in which its rows are counted.
    """

    name: str
    file: str
    action: Action
    dtype: torch.dtype
    shape: tuple[int, ...]
    columns: int
    parts: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that will be stored."""
        return tensor_bytes(self.dtype, self.shape)


@dataclass(frozen=True)
class MergePlan:
    """A merge that can run: every tensor of the base is accounted for, every delta has its place.

    parts: what it was made from; fit: the adapters on their base; vector: what is added to it; summed: tensors on
    which another rule than `linear` cannot act; lacking: what adapters lack that were allowed to be partial, by name;
    recorded: what the manifest says besides, such as the sweep that chose the weights.
    """

    parts: Parts
    fit: Fit
    vector: Combined
    storage: Storage
    tensors: tuple[PlannedTensor, ...]
    summed: tuple[str, ...]
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    recorded: RecordedJson = field(default_factory=RecordedJson)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that will be stored."""
        return sum(t.nbytes for t in self.tensors)

    @property
    def adapters(self) -> dict[str, Recorded]:
        """The parts that lie in a directory: adapters and stored vectors."""
        return {name: vector for name, (vector, _) in self.parts.items() if isinstance(vector, Recorded)}

    @property
    def allowed(self) -> PartialJson:
        """What is recorded of adapters that were allowed to be partial: nothing, if all are whole."""
        lacking = {name: list(lacks) for name, lacks in self.lacking.items()}
        return {"partial_adapters": lacking} if lacking else {}

    def count(self, action: str) -> int:
        """Number of tensors to `copy`, `cast` or `merge`."""
        return sum(t.action == action for t in self.tensors)

    def files(self) -> dict[str, list[PlannedTensor]]:
        """Output files with their tensors, in order."""
        files: dict[str, list[PlannedTensor]] = {}
        for tensor in self.tensors:
            files.setdefault(tensor.file, []).append(tensor)
        return files

    def counts(self) -> ActionCountsJson:
        """Number of tensors by what is done with them."""
        return {"merge": self.count("merge"), "copy": self.count("copy"), "cast": self.count("cast")}

    def to_dict(self) -> PlannedMergeJson:
        """As plain JSON."""
        tensors: list[PlannedTensorJson] = [
            {
                "name": t.name,
                "file": t.file,
                "action": t.action,
                "dtype": DTYPE_NAMES[t.dtype],
                "shape": list(t.shape),
                "parts": list(t.parts),
            }
            for t in self.tensors
        ]
        return {
            "schema_version": 1,
            **self.vector.recipe.to_dict(),
            "weights": {name: weight_json(weight) for name, weight in self.vector.weights.items()},
            "rounding": self.storage.rounding,
            "bytes": self.nbytes,
            "counts": self.counts(),
            "files": len(self.files()),
            "linear_instead": list(self.summed),
            "notes": list(self.fit.notes),
            **self.allowed,
            "tensors": tensors,
        }


def plan_merge(
    base: Checkpoint,
    parts: Parts,
    *,
    recipe: Recipe | None = None,
    storage: Storage | None = None,
    allow_partial: bool = False,
) -> MergePlan:
    """Plan the merge of `parts` into `base`; allow_partial: merge adapters that are truncated or untrained as they are.

    Raises CheckpointError for a quantised base, AdapterError for a delta that does not fit or an adapter that is not
    whole, RuleError for weights, rules or parameters that are not defined.
    """
    recipe, storage = recipe or Recipe(), storage or Storage()
    if base.quantisation:
        config = _DEQUANTISERS.get(base.quantisation)
        other = f"; if there is none, save it with transformers' {config}(dequantize=True) first" if config else ""
        raise CheckpointError(
            f"{base.path} is quantised ({base.quantisation}): a delta cannot be added to it exactly; merge into the "
            f"16- or 32-bit checkpoint that it was made from, then quantise{other}"
        )
    vectors = {name: vector for name, (vector, _) in parts.items()}
    lacking = {n: check_whole(n, v, base, partial=allow_partial) for n, v in vectors.items() if isinstance(v, Adapter)}
    lacking = {name: lacks for name, lacks in lacking.items() if lacks}
    found = fit(base, vectors, tied=storage.tied, incomplete=lacking)
    turned = [k for k, (v, _) in parts.items() if isinstance(v, Adapter) and v.config.fan_in_fan_out]
    if turned and recipe.calibration is not None:
        raise RuleError(
            f"adapter {turned[0]} lies on weights that are stored transposed (fan_in_fan_out); rules with calibration "
            "data do not know them"
        )
    vector = Combined(found.vectors, {name: weight for name, (_, weight) in parts.items()}, recipe)
    kinds = {n: [kind for v in found.vectors.values() if n in v for kind in v.kinds(n)] for n in vector}
    tensors = []
    for name, info in found.base.tensors.items():
        used = tuple(label for label, _ in vector.parts(name))
        floating = info.dtype in STORABLE
        stored = storage.dtype if storage.dtype is not None and floating else info.dtype
        plain = stored == info.dtype and found.base.on_disk(name)
        action = "merge" if used else "copy" if plain else "cast"
        # A convolution's delta is a product of matrices with everything but the first axis in one.
        wide = len(info.shape) > 2 and bool({"low-rank", "dora"} & set(kinds.get(name, ())))
        columns = math.prod(info.shape[1:]) if wide else info.columns
        tensors.append(PlannedTensor(name, info.file.name, action, stored, info.shape, columns, used))
    summed = [n for n, k in kinds.items() if "dora" in k and [w for _, w in vector.parts(n)] != [1.0]]
    if summed:
        note = f"DoRA on {len(summed)} tensors is not alone at weight one: multiples of its whole change are summed"
        found = replace(found, notes=(*found.notes, note))
    ordered, others = tuple(_in_files(tensors, storage)), tuple(vector.summed(kinds))
    return MergePlan(parts, found, vector, storage, ordered, others, lacking)


def _in_files(tensors: list[PlannedTensor], storage: Storage) -> Iterator[PlannedTensor]:
    """The tensors with the files that they go to: the base's, or filled in order up to a size."""
    if storage.shard_bytes is None:
        # An untied output embedding goes where its content was: all tensors of a file stand together.
        order = list(dict.fromkeys(t.file for t in tensors))
        yield from sorted(tensors, key=lambda t: order.index(t.file))
        return
    groups: list[list[PlannedTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and storage.shard_bytes and filled + tensor.nbytes > storage.shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.nbytes
    for number, group in enumerate(groups, 1):
        file = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        yield from (replace(tensor, file=file) for tensor in group)


def check_bases(base: Checkpoint, adapters: Mapping[str, Recorded]) -> None:
    """Raise AdapterError for an adapter whose record beside it names another base, by digest."""
    for name, adapter in adapters.items():
        recorded = adapter.trained_on
        if recorded is not None and recorded != base.digest:
            raise AdapterError(
                f"adapter {name} was trained on another base than {base.path} (digest {recorded[:16]}…, not "
                f"{base.digest[:16]}…); merge into that one, or pass --any-base"
            )
