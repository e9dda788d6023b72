"""The tensor of a checkpoint that each delta of an adapter belongs to."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

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
# Models that declare their fused experts to be stored (experts, d_in, d_out), which PEFT asks for.
_TRANSPOSED = ("gpt_oss", "aria", "aria_text", "openai_privacy_filter")


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
    found = find_name(name, base)
    if found is not None:
        upright = _is_upright(adapter, part.shape, base.tensors[found].shape, base)
        shape = part.shape if upright else _turned_shape(part.shape)
        yield found, Placed(name, ("experts",), shape, part.build if upright else partial(_turned, part.build))
        return
    prefix, _, parameter = name.rpartition(".")
    for gate, up, down in _EXPERT_NAMES:
        names = (gate, up) if parameter == "gate_up_proj" else (down,) if parameter == "down_proj" else ()
        targets = [[find_name(f"{prefix}.{e}.{leaf}.weight", base) for leaf in names] for e in range(part.shape[0])]
        if not names or any(target is None for expert in targets for target in expert):
            continue
        first = base.tensors[str(targets[0][0])].shape
        upright = _is_upright(adapter, part.shape, (part.shape[0], len(names) * first[0], first[1]), base)
        stack = lru_cache(maxsize=1)(part.build if upright else partial(_turned, part.build))
        for index, expert in enumerate(targets):
            for half, target in enumerate(expert):
                shape = base.tensors[str(target)].shape
                yield target, Placed(name, ("low-rank",), shape, partial(_expert, stack, index, half * shape[0], shape))
        return
    yield None, Placed(name, ("experts",), part.shape, part.build)


def _is_upright(adapter: Adapter, ours: tuple[int, ...], theirs: tuple[int, ...], base: Checkpoint) -> bool:
    """Whether an expert's delta is B A in the order of the stored axes, and not its transpose.

    The shapes say so, unless both axes are equal. Then it depends on the PEFT that trained it: before 0.19 always the
    transpose; in 0.19.0 only where the model does not declare its experts transposed; since 0.19.1 only where it does.
    """
    if len(set(ours[-2:])) == 2 or len(ours) == 2:
        return ours == theirs
    declared = base.config.get("model_type") in _TRANSPOSED
    version = adapter.config.peft_version
    if version is None:
        raise AdapterError(
            f"{adapter.path}: experts of {ours[-2]} x {ours[-1]} may be stored either way, and the config does not say "
            "by which version of PEFT (peft_version)"
        )
    return declared if version == (0, 19, 0) else version > (0, 19, 0) and not declared


def _expert(stack: Callable[[], Delta], index: int, first: int, shape: tuple[int, ...]) -> Delta:
    """One expert's part of a stack, of the stored shape; the two halves lie on top of each other."""
    whole = stack()
    one = whole.parts[index] if isinstance(whole, Stack) else whole
    assert isinstance(one, LowRank)
    return LowRank(one.b[first : first + shape[0]], one.a, one.scale)


def _turned(build: Callable[[], Delta]) -> Delta:
    delta = build()
    parts = delta.parts if isinstance(delta, Stack) else (delta,)
    turned = tuple(LowRank(p.a.T, p.b.T, p.scale) for p in parts if isinstance(p, LowRank))
    return Stack(turned) if isinstance(delta, Stack) else turned[0]


def _turned_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])
