"""What a merge will do, tensor by tensor, worked out from headers alone and checked before anything is written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import DTYPE_NAMES, Checkpoint, tensor_bytes
from crossmatch.delta import STORABLE, TuningVector, check_weights
from crossmatch.errors import AdapterError, CheckpointError
from crossmatch.merging.rules import get_rule

Parts = Mapping[str, tuple[TuningVector, float]]
"""What goes into a merge: name -> (tuning vector, weight)."""

DTYPE_ARGUMENTS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: copied byte for byte, cast to another dtype, or merged from the named parts."""

    name: str
    file: str
    action: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that will be stored."""
        return tensor_bytes(self.dtype, self.shape)


@dataclass(frozen=True)
class MergePlan:
    """A merge that can run: every tensor of the base is accounted for, every delta has its place."""

    rule: str
    weights: Mapping[str, float]
    tensors: tuple[PlannedTensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that will be stored."""
        return sum(t.nbytes for t in self.tensors)

    def count(self, action: str) -> int:
        """Number of tensors to `copy`, `cast` or `merge`."""
        return sum(t.action == action for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        tensors = [{**asdict(t), "dtype": DTYPE_NAMES[t.dtype], "shape": list(t.shape)} for t in self.tensors]
        totals = {action: self.count(action) for action in ("merge", "copy", "cast")}
        return {
            "rule": self.rule,
            "weights": dict(self.weights),
            "bytes": self.nbytes,
            "counts": totals,
            "tensors": tensors,
        }


def plan_merge(base: Checkpoint, parts: Parts, *, rule: str = "linear", dtype: torch.dtype | None = None) -> MergePlan:
    """Plan the merge of `parts` into `base`, stored in the base's dtypes or all in `dtype`.

    Raises CheckpointError for a quantised base, AdapterError for a delta without a tensor of its shape, RuleError for
    weights that are not finite.
    """
    get_rule(rule)
    check_weights([weight for _, weight in parts.values()])
    if base.quantisation:
        raise CheckpointError(
            f"{base.path} is quantised ({base.quantisation}): a delta cannot be added to it exactly; merge into the "
            "16- or 32-bit checkpoint that it was made from, then quantise"
        )
    for name, (vector, _) in parts.items():
        check_fits(name, vector, base)
    tensors = []
    for name, info in base.tensors.items():
        used = tuple(part for part, (vector, weight) in parts.items() if weight != 0.0 and name in vector)
        floating = info.dtype in STORABLE
        stored = dtype if dtype is not None and floating else info.dtype
        action = "merge" if used else "copy" if stored == info.dtype else "cast"
        tensors.append(PlannedTensor(name, info.file.name, action, stored, info.shape, used))
    return MergePlan(rule, {name: float(weight) for name, (_, weight) in parts.items()}, tuple(tensors))


def check_bases(base: Checkpoint, adapters: Mapping[str, Adapter]) -> None:
    """Raise AdapterError for an adapter whose record beside it names another base, by digest."""
    for name, adapter in adapters.items():
        recorded = adapter.trained_on
        if recorded is not None and recorded != base.digest:
            raise AdapterError(
                f"adapter {name} was trained on another base than {base.path} (digest {recorded[:16]}…, not "
                f"{base.digest[:16]}…); merge into that one, or pass --any-base"
            )


def check_fits(label: str, vector: TuningVector, base: Checkpoint) -> None:
    """Raise AdapterError unless every delta of `vector` has a floating tensor of its shape in `base`."""
    missing = [name for name in vector if name not in base.tensors]
    if missing:
        tied = base.tied and any(name.startswith("lm_head") for name in missing)
        why = (
            "the base ties lm_head to the input embedding and stores no such tensor; untie it first"
            if tied
            else "adapter and base are of different architectures"
        )
        raise AdapterError(
            f"adapter {label}: {len(missing)} of {len(vector)} modules match nothing in {base.path}, "
            f"first {missing[0]}; {why}"
        )
    for name in vector:
        info = base.tensors[name]
        shape = vector.shape(name) if isinstance(vector, Adapter) else vector[name].shape
        if shape != info.shape:
            raise AdapterError(
                f"adapter {label}: {name} has a delta of {list(shape)}, the base a tensor of {list(info.shape)}; "
                "it was trained on another base"
            )
        if info.dtype not in STORABLE:
            raise AdapterError(f"adapter {label}: {name} is stored as {DTYPE_NAMES[info.dtype]}, which takes no delta")
