"""The tensor of a checkpoint that each delta of an adapter belongs to."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.parts import EXPERT_PARAMETERS, Part, build_parts
from crossmatch.adapter.resolve import Names, names_for
from crossmatch.adapter.stored_vector import StoredVector
from crossmatch.checkpoint import Checkpoint, is_output, layer_of
from crossmatch.delta import Delta, LowRank, Stack, TuningVector
from crossmatch.errors import AdapterError

# Models whose linear layers are stored (d_in, d_out); their output embedding is not.
CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
# Models that declare their fused experts to be stored (experts, d_in, d_out), which PEFT asks for.
_TRANSPOSED = ("gpt_oss", "aria", "aria_text", "openai_privacy_filter")


@dataclass
class Placed:
    """A delta with its place: its name in the vector, kinds of its parts (expert: of fused ones that the base keeps
    apart), the shape that it needs (-1: any), how it is built; turned: whether the tensor is stored transposed."""

    source: str
    kinds: tuple[str, ...]
    shape: tuple[int, ...]
    build: Callable[[], Delta]
    turned: bool = False


Places = dict[str, Placed]


def place(label: str, vector: TuningVector, base: Checkpoint, notes: list[str], *, partial: bool = False) -> Places:
    """For every delta the name of its tensor in `base`; partial: modules that the file leaves out are allowed.

    Raises AdapterError for deltas without one, for two on one tensor, and for modules that the adapter's config targets
    and its file leaves out.
    """
    places: Places = {}
    missing: list[str] = []
    renamed: list[tuple[str, str]] = []
    names = names_for(vector, base)
    for name in vector:
        for target, placed in _targets(name, vector, names):
            if target is None:
                missing.append(name)
            elif target in places:
                raise AdapterError(f"adapter {label}: two of its deltas belong to {target}; it cannot hold both")
            else:
                places[target] = placed
                if target != name:
                    renamed.append((name, target))
    if missing:
        why = (
            "adapter and base are of different architectures, or the base stores these weights in a form that "
            "transformers converts as it loads, to which no delta can be added"
        )
        if missing[0].endswith(".bias"):
            why = "it adds to a bias (lora_bias) that the base does not have"
        elif isinstance(vector, Adapter) and all(p.kind == "saved" for name in missing for p in vector.parts[name]):
            why = "it saved a layer that the base does not have, as a new head; give a base that was saved with it"
        raise AdapterError(
            f"adapter {label}: {len(missing)} of {len(vector)} modules match nothing in {base.path}, "
            f"first {missing[0]}; {why}",
            fault="adapter-keys-unused",
        )
    if renamed:
        first = " is ".join(renamed[0])
        notes.append(f"{label}: {len(renamed)} tensors go by another name in the base's file, as {first}")
    if isinstance(vector, Adapter) and not partial:
        holes = find_holes(vector, names, places)
        if holes:
            raise AdapterError(f"adapter {label} is incomplete: {incomplete(holes)}", fault="adapter-incomplete")
    return places


def incomplete(holes: Sequence[str]) -> str:
    """What holes in an adapter are, as a sentence."""
    shown = ", ".join(holes[:3]) + (f" and {len(holes) - 3} more" if len(holes) > 3 else "")
    return (
        f"its config targets {shown}, its file holds nothing for them; it was saved half, or its target_modules are "
        "another adapter's"
    )


def find_holes(adapter: Adapter, names: Names, places: Places) -> list[str]:
    """Tensors of the base that the adapter's config says it changes and its file leaves out.

    Targeted modules; saved modules; biases, if they were trained; experts in every layer that has them. Experts kept
    apart in the file are one parameter in memory and count as modules only if the adapter has any of them. What the
    model does not load does not count: layers beyond those of its config, and parts that its class never builds.
    """
    config, base, holes = adapter.config, names.base, []
    theirs = _model_names(places)
    experts = any(re.search(r"\.experts\.\d+\.", name) for name in adapter)
    layers = _layers(base)
    for name, info in base.tensors.items():
        layer = layer_of(name)
        if name in places or (layers is not None and layer is not None and layer >= layers):
            continue
        module, _, leaf = name.rpartition(".")
        linear = leaf == "weight" and len(info.shape) >= 2 and not is_output(name)
        apart = not experts and re.search(r"\.experts\.\d+\.", name) is not None
        known = [module, *theirs(module), *(names.of_model(module) if linear and not apart else ())]
        if linear and not apart and any(map(config.targeted, known)):
            hole = module
        elif any(m.endswith(saved) for m in known for saved in config.saved) or (
            leaf == "bias" and (config.bias == "all" or (config.bias == "lora_only" and f"{module}.weight" in places))
        ):
            hole = name
        else:
            continue
        if names.built(name):
            holes.append(hole)
    return holes + _missing_experts(adapter, base, layers)


def _layers(base: Checkpoint) -> int | None:
    """How many layers the model loads, as far as its config says."""
    text = base.config.get("text_config")
    count = base.config.get("num_hidden_layers", text.get("num_hidden_layers") if isinstance(text, dict) else None)
    return count if isinstance(count, int) else None


def _missing_experts(adapter: Adapter, base: Checkpoint, layers: int | None) -> list[str]:
    """Layers with experts in which a targeted parameter of experts is not there."""
    present = {layer_of(name) for name in base.tensors if ".experts." in name}
    loaded = {n for n in present if n is not None and (layers is None or n < layers)}
    holes = []
    for parameter in adapter.config.parameters:
        if ".experts." in f".{parameter}" or parameter in EXPERT_PARAMETERS:
            found = {layer_of(name) for name in adapter if f".{name}".endswith(f".{parameter}")}
            holes += [f"{parameter} of layer {n}" for n in sorted(loaded - found)]
    return holes


def _model_names(places: Places) -> Callable[[str], list[str]]:
    """What a model calls a module of the file, judging by the tensors that were found under another name."""
    pairs = set()
    for target, placed in places.items():
        theirs, ours = target.split("."), placed.source.split(".")
        while theirs and ours and theirs[-1] == ours[-1]:
            theirs, ours = theirs[:-1], ours[:-1]
        pairs.add(tuple("".join(f"{part}." for part in parts) for parts in (theirs, ours)))
    return lambda module: [new + module.removeprefix(old) for old, new in sorted(pairs) if module.startswith(old)]


def _targets(name: str, vector: TuningVector, names: Names) -> Iterator[tuple[str | None, Placed]]:
    base = names.base
    if isinstance(vector, StoredVector):
        (part,) = vector.parts[name]
        yield _name_in(name, names), Placed(name, (part.kind,), part.shape, part.build)
        return
    if not isinstance(vector, Adapter):
        yield names.find(name), Placed(name, ("delta",), vector[name].shape, partial(vector.__getitem__, name))
        return
    parts = vector.parts[name]
    kinds = tuple(part.kind for part in parts)
    if kinds == ("experts",):
        yield from _expert_targets(name, vector, parts[0], names)
        return
    found = _name_in(name, names)
    info = base.tensors.get(found or name)
    turned = info is not None and any(_is_turned(part, info.shape, name, vector, base) for part in parts)
    if turned != vector.config.fan_in_fan_out:
        parts = tuple(part.turned or part for part in parts)
    yield found, Placed(name, kinds, _largest(parts), partial(build_parts, parts), turned)


def _name_in(name: str, names: Names) -> str | None:
    """The base's name of a tensor; an output embedding that it does not store, because it is tied, keeps its own."""
    return names.find(name) or (name if is_output(name) and names.base.tied else None)


def _is_turned(part: Part, stored: tuple[int, ...], name: str, adapter: Adapter, base: Checkpoint) -> bool:
    """Whether a module's weight is stored (d_in, d_out): its shape says so, or its class where that is square."""
    if part.turned is None or len(part.shape) != 2:
        return False
    flag = adapter.config.fan_in_fan_out
    if part.shape[0] != part.shape[1]:
        return flag if part.shape == stored else not flag
    model = base.config.get("model_type")
    return flag if model is None else model in CONV1D and not is_output(name)


def stored_turned(name: str, base: Checkpoint) -> bool:
    """Whether a matrix of the layers is stored (d_in, d_out), by the class of the model."""
    info = base.tensors[name]
    inside = len(info.shape) == 2 and layer_of(name) is not None
    return inside and base.config.get("model_type") in CONV1D


def _largest(parts: Sequence[Part]) -> tuple[int, ...]:
    return max((part.shape for part in parts), key=lambda shape: shape[0] if shape else 0)


def _expert_targets(name: str, adapter: Adapter, part: Part, names: Names) -> Iterator[tuple[str | None, Placed]]:
    """A fused parameter of experts: one tensor in the file, or one for each expert and half."""
    base, found = names.base, names.find(name)
    if found is not None:
        upright = _is_upright(adapter, part.shape, base.tensors[found].shape, base)
        shape = part.shape if upright else (*part.shape[:-2], part.shape[-1], part.shape[-2])
        yield found, Placed(name, ("experts",), shape, part.build if upright else partial(_turned, part.build))
        return
    prefix, _, parameter = name.rpartition(".")
    for leaves in names.experts(parameter):
        targets = [[names.find(f"{prefix}.{e}.{leaf}.weight") for leaf in leaves] for e in range(part.shape[0])]
        if any(target is None for expert in targets for target in expert):
            continue
        first = base.tensors[str(targets[0][0])].shape
        upright = _is_upright(adapter, part.shape, (part.shape[0], len(leaves) * first[0], first[1]), base)
        stack = partial(_stack, adapter, name, upright)
        for index, expert in enumerate(targets):
            for half, target in enumerate(expert):
                shape = base.tensors[str(target)].shape
                yield target, Placed(name, ("expert",), shape, partial(_expert, stack, index, half * shape[0], shape))
        return
    yield None, Placed(name, ("experts",), part.shape, part.build)


@lru_cache(maxsize=2)
def _stack(adapter: Adapter, name: str, upright: bool) -> Delta:
    """The factors of all experts, kept while one expert after the other is asked for."""
    build = adapter.parts[name][0].build
    return build() if upright else _turned(build)


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
