"""The tensor of a checkpoint that each delta of an adapter belongs to."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.parts import Part
from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, LowRank, Stack, TuningVector
from crossmatch.errors import AdapterError

OUTPUT = "lm_head.weight"
# A model's own names against those of its file: prefixes that loaders add or drop, and parts that were renamed.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^transformer\.", ""),
    (r"^model\.", ""),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.language_model\.", "model."),
    (r"^model\.(visual|vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"\.mlp\.", ".block_sparse_moe."),
    (r"^", "transformer."),
    (r"^", "model."),
)
# The halves of a fused pair of expert matrices and the third one, as files name them that keep experts apart.
_EXPERT_NAMES = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
# Models whose fused experts are stored (experts, d_in, d_out); it matters where both are equal.
_TRANSPOSED = ("gpt_oss", "llama4", "llama4_text")


@dataclass
class Placed:
    """A delta with its place: its name in the vector, kinds of its parts, the shape that it needs (-1: any), how it is
    built."""

    source: str
    kinds: tuple[str, ...]
    shape: tuple[int, ...]
    build: Callable[[], Delta]


Places = dict[str, Placed]


def place(label: str, vector: TuningVector, base: Checkpoint, notes: list[str]) -> Places:
    """For every delta the name of its tensor in `base`.

    Raises AdapterError for deltas without one, for two on one tensor, and for modules that the adapter's config targets
    and its file leaves out.
    """
    places: Places = {}
    missing: list[str] = []
    renamed: list[tuple[str, str]] = []
    for name in vector:
        for target, placed in _targets(name, vector, base):
            if target is None:
                missing.append(name)
            elif target in places:
                raise AdapterError(f"adapter {label}: two of its deltas belong to {target}; it cannot hold both")
            else:
                places[target] = placed
                if target != name:
                    renamed.append((name, target))
    if missing:
        why = "adapter and base are of different architectures"
        if missing[0].endswith(".bias"):
            why = "it adds to a bias (lora_bias) that the base does not have"
        raise AdapterError(
            f"adapter {label}: {len(missing)} of {len(vector)} modules match nothing in {base.path}, "
            f"first {missing[0]}; {why}"
        )
    if renamed:
        first = " is ".join(renamed[0])
        notes.append(f"{label}: {len(renamed)} tensors go by another name in the base's file, as {first}")
    if isinstance(vector, Adapter):
        holes = find_holes(vector, base, places)
        if holes:
            shown = ", ".join(holes[:3]) + (f" and {len(holes) - 3} more" if len(holes) > 3 else "")
            raise AdapterError(
                f"adapter {label} is incomplete: its config targets {shown}, its file holds nothing for them; "
                "it was saved half, or its target_modules are another adapter's"
            )
    return places


def find_holes(adapter: Adapter, base: Checkpoint, places: Places) -> list[str]:
    """Modules of the base that the adapter's config targets and its file leaves out.

    Experts kept apart in the file are one parameter in memory and count only if the adapter has any of them.
    """
    modules = [n.removesuffix(".weight") for n, info in base.tensors.items() if _adaptable(n, len(info.shape))]
    covered = {name.removesuffix(".weight") for name in places}
    experts = any(re.search(r"\.experts\.\d+\.", name) for name in adapter)
    return [
        module
        for module in modules
        if module not in covered
        and adapter.config.targeted(module)
        and (experts or not re.search(r"\.experts\.\d+\.", module))
    ]


def _adaptable(name: str, axes: int) -> bool:
    return name.endswith(".weight") and axes >= 2 and not name.endswith(OUTPUT)


def _targets(name: str, vector: TuningVector, base: Checkpoint) -> Iterator[tuple[str | None, Placed]]:
    if not isinstance(vector, Adapter):
        delta = vector[name]
        yield name if name in base.tensors else None, Placed(name, ("delta",), delta.shape, lambda: delta)
        return
    parts = vector.parts[name]
    kinds = tuple(part.kind for part in parts)
    if kinds == ("experts",):
        yield from _expert_targets(name, vector, parts[0], base)
        return
    found = find_name(name, base)
    if found is None and name.endswith(OUTPUT) and base.tied:
        found = name
    yield found, Placed(name, kinds, _largest(parts), lambda: vector[name])


def _largest(parts: Sequence[Part]) -> tuple[int, ...]:
    return max((part.shape for part in parts), key=lambda shape: shape[0] if shape else 0)


def find_name(name: str, base: Checkpoint) -> str | None:
    """The base's name of a tensor: the same, or by the first renaming under which it is there."""
    if name in base.tensors:
        return name
    renamed = (re.sub(old, new, name, count=1) for old, new in _RENAMES)
    return next((candidate for candidate in renamed if candidate in base.tensors), None)


def _expert_targets(name: str, adapter: Adapter, part: Part, base: Checkpoint) -> Iterator[tuple[str | None, Placed]]:
    """A fused parameter of experts: one tensor in the file, or one for each expert and half."""
    stack = lru_cache(maxsize=1)(part.build)
    found = find_name(name, base)
    if found is not None:
        info = base.tensors[found]
        square = len(set(part.shape[-2:])) == 1 and base.config.get("model_type") in _TRANSPOSED
        if part.shape == info.shape and not square:
            yield found, Placed(name, ("experts",), part.shape, part.build)
        else:
            yield found, Placed(name, ("experts",), _turned_shape(part.shape), lambda: _turned(part.build()))
        return
    prefix, _, parameter = name.rpartition(".")
    for gate, up, down in _EXPERT_NAMES:
        names = (gate, up) if parameter == "gate_up_proj" else (down,) if parameter == "down_proj" else ()
        for index in range(part.shape[0]):
            targets = [find_name(f"{prefix}.{index}.{leaf}.weight", base) for leaf in names]
            if not targets or None in targets:
                break
            for half, target in enumerate(targets):
                assert target is not None
                shape = base.tensors[target].shape
                yield target, Placed(name, ("low-rank",), shape, _expert(stack, index, half, shape))
        else:
            return
    yield None, Placed(name, ("experts",), part.shape, part.build)


def _expert(stack: Callable[[], Delta], index: int, half: int, shape: tuple[int, ...]) -> Callable[[], Delta]:
    """One expert's part of a stack, of the stored shape; the two halves lie on top of each other."""

    def build() -> Delta:
        whole = stack()
        one = whole.parts[index] if isinstance(whole, Stack) else whole
        assert isinstance(one, LowRank)
        if one.columns != shape[1]:
            one = _turned_factors(one)
        first = half * shape[0]
        return LowRank(one.b[first : first + shape[0]], one.a, one.scale)

    return build


def _turned(delta: Delta) -> Delta:
    if isinstance(delta, Stack):
        return Stack(tuple(_turned_factors(part) for part in delta.parts))
    assert isinstance(delta, LowRank)
    return _turned_factors(delta)


def _turned_factors(delta: LowRank) -> LowRank:
    return LowRank(delta.a.T, delta.b.T, delta.scale)


def _turned_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])
