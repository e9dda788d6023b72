"""Whether an adapter is whole: what its file lacks of what was trained, told from what is honestly zero.

Sharded training writes parts of adapters without a word: the rows that one machine of N has and zeros for the others
(axolotl #3772, Megatron-Bridge #2240), that machine's rows alone (accelerate #4206), empty or flat tensors (ZeRO-3),
the layers of one pipeline stage (NeMo Automodel #3096), or starting values (PEFT #1402). Such files load and merge.

Measured on the adapters of tests/adapter/test_wholeness.py, which PEFT makes and an optimiser trains: none that is
whole is found to lack anything; all that are cut as these tools cut them are found.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from crossmatch.adapter.adapter import Adapter
from crossmatch.adapter.config import CONFIG_FILE
from crossmatch.adapter.resolve import names_for
from crossmatch.adapter.shards import Run, longest_run, lost_shards
from crossmatch.adapter.tensor_names import Places, find_holes, incomplete, place
from crossmatch.checkpoint import Checkpoint, expert_of, is_output, layer_of
from crossmatch.errors import AdapterError
from crossmatch.runtime import workers

TRUNCATED, UNTRAINED, NONFINITE, INCOMPLETE = (
    "adapter-truncated",
    "adapter-untrained",
    "adapter-nonfinite",
    "adapter-incomplete",
)
_PLACE = re.compile(r"^(?P<stack>.*?)\.(?P<layer>\d{1,9})\.(?P<family>.+)$")
# Modules whose output is cut into heads.
_BY_HEAD = re.compile(
    r"(^|\.)(q|k|v|qkv|query|key|value|c_attn|query_key_value|Wqkv|in_proj|[qkv]_lin|qkv_proj|[qkv]_proj|to_[qkv])$"
)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# A pipeline of two stages or more gives none of them many more than half of the layers.
_STAGE = 0.6


@dataclass(frozen=True)
class Lack:
    """One thing that an adapter lacks: a fault's id, the tensors in which it shows, and what was seen, as a sentence.

    usable: whether what is there still makes deltas that fit a base; absent: whether modules are not there at all.
    """

    fault: str
    where: tuple[str, ...]
    evidence: str
    usable: bool = True
    absent: bool = False


@dataclass(frozen=True)
class Wholeness:
    """What an adapter lacks, most telling first, and remarks on what is zero for an honest reason."""

    lacks: tuple[Lack, ...] = ()
    remarks: tuple[str, ...] = ()


def examine(adapter: Adapter, base: Checkpoint | None = None) -> Wholeness:
    """What an adapter's file lacks by itself, by its config, and, if a base is given, by the base's tensors.

    Reads every factor once. Raises AdapterError for a delta that belongs to nothing in the base.
    """
    factors = _factors(adapter)
    shapes = [*_empty(adapter), *_ranks(adapter, factors)]
    if shapes:
        return Wholeness(tuple(shapes))
    lacks, remarks = _values(adapter, factors)
    if base is not None and all(lack.usable for lack in lacks):
        places = place("", adapter, base, [], partial=True)
        lacks += _narrow(adapter, base, factors, places)
        lacks += _holes(adapter, base, places) or _stages(adapter, base, places)
    return Wholeness(tuple(lacks), tuple(remarks))


def check_whole(label: str, adapter: Adapter, base: Checkpoint, *, partial: bool = False) -> tuple[str, ...]:
    """What an adapter lacks, as sentences, if that is allowed; else raise AdapterError for the first of them."""
    found = examine(adapter, base).lacks
    refused = next((lack for lack in found if not (partial and lack.usable)), None)
    if refused is None:
        return tuple(lack.evidence for lack in found)
    if refused.fault == INCOMPLETE:
        raise AdapterError(f"adapter {label} is incomplete: {refused.evidence}", fault=INCOMPLETE)
    words = {UNTRAINED: "was not trained", NONFINITE: "cannot be used"}.get(refused.fault, "is not whole")
    remedy = "save it again, all of it" if refused.fault == TRUNCATED else "train it again"
    if refused.usable:
        remedy += ", or pass --allow-partial-adapter"
    raise AdapterError(f"adapter {label} {words}: {refused.evidence}; {remedy}", fault=refused.fault)


@dataclass(frozen=True)
class _Pair:
    """The two factors of one tensor, by key. down: (rank, d_in); up: (d_out, rank), of experts side by side.

    embedding: the one that starts at zero is the first.
    """

    name: str
    down: str
    up: str
    embedding: bool
    fused: bool

    @cached_property
    def place(self) -> tuple[str, int | None, str]:
        """Stack of layers, index in it, and family: the module's name in its layer, without an expert's number."""
        return _place(self.name)

    @property
    def expert(self) -> bool:
        """Whether it is a module of one expert."""
        return expert_of(self.name) is not None


def _place(name: str) -> tuple[str, int | None, str]:
    module = re.sub(r"\.experts\.\d+\.", ".experts.", name.removesuffix(".weight"))
    match = _PLACE.match(module)
    return (match["stack"], int(match["layer"]), match["family"]) if match else (module, None, module)


def _factors(adapter: Adapter) -> list[_Pair]:
    pairs = []
    for name, parts in adapter.parts.items():
        for part in parts:
            if part.kind in ("low-rank", "dora", "experts"):
                down, up = part.keys[:2]
                pairs.append(_Pair(name, down, up, "lora_embedding_" in down, part.kind == "experts"))
    return pairs


def _shown(count: int, of: int, noun: str) -> str:
    return f"all {of} {noun}" if count == of else f"{count} of {of} {noun}"


def _empty(adapter: Adapter) -> Iterator[Lack]:
    """Tensors without a single value."""
    tensors = adapter.files.tensors
    empty = tuple(key for key, info in tensors.items() if not info.elements)
    if empty:
        shape = list(tensors[empty[0]].shape)
        text = f"{_shown(len(empty), len(tensors), 'tensors')} are empty, first {empty[0]} of shape {shape}"
        yield Lack(TRUNCATED, empty, f"{text}; ZeRO-3 writes that where no machine gathers the parts", usable=False)


def _ranks(adapter: Adapter, factors: Iterable[_Pair]) -> Iterator[Lack]:
    """Factors of a lower rank than the config says: the first axis of lora_A is what sharded training divides."""
    tensors, lower = adapter.files.tensors, []
    for pair in factors:
        module = pair.name.removesuffix(".weight")
        ours = tensors[pair.down].shape[0], tensors[pair.up].shape[1]
        if not pair.fused and min(ours) < (rank := adapter.config.rank(module)):
            lower.append((module, ours, rank))
    if lower:
        module, (down, up), rank = lower[0]
        text = f"{module} has rank {down} in lora_A and {up} in lora_B, {rank} by {CONFIG_FILE}"
        more = f", and {len(lower) - 1} more are too low" if len(lower) > 1 else ""
        yield Lack(TRUNCATED, tuple(m for m, _, _ in lower), f"{text}{more}", usable=False)


@dataclass(frozen=True)
class _Seen:
    """What the values of one pair show. dead: their product is zero; lost: lora_A, which starts at random, is zero;
    unused: columns of fused experts' lora_B are zero."""

    pair: _Pair
    finite: bool
    dead: bool
    lost: bool
    unused: bool
    run: Run


def _values(adapter: Adapter, factors: Sequence[_Pair]) -> tuple[list[Lack], list[str]]:
    """Lacks and remarks that follow from the values of the factors alone."""
    readable = [p for p in factors if adapter.files.tensors[p.up].dtype in _FLOATS]
    with workers() as pool:
        seen = list(pool.map(lambda pair: _look(pair, adapter.files[pair.down], adapter.files[pair.up]), readable))
    spoilt = tuple(s.pair.name for s in seen if not s.finite)
    if spoilt:
        text = f"{_shown(len(spoilt), len(seen), 'modules')} hold NaN or infinite values, first {spoilt[0]}"
        return [Lack(NONFINITE, spoilt, text, usable=False)], []
    dead = [s for s in seen if s.dead]
    if seen and len(dead) == len(seen):
        zero = "lora_embedding_A" if all(s.pair.embedding for s in seen) else "lora_B"
        text = f"{zero} is zero, its starting value, in all {len(seen)} modules"
        return [Lack(UNTRAINED, tuple(s.pair.name for s in seen), f"{text}: no training is in the file")], []
    lacks = [*_lost_factors(adapter, seen), *_dead_layers(seen), *_lost_rows(seen)]
    told = {name for lack in lacks for name in lack.where}
    return lacks, list(_remarks([s for s in dead if s.pair.name not in told], seen))


def _look(pair: _Pair, down: Tensor, up: Tensor) -> _Seen:
    finite = all(math.isfinite(float(t.sum(dtype=torch.float64))) or bool(t.isfinite().all()) for t in (down, up))
    # Of a convolution all axes but the first are columns.
    a, b = down.flatten(1) != 0, up.flatten(1) != 0
    down_zero, up_zero = not bool(a.any()), not bool(b.any())
    unused = pair.fused and not bool(b.any(0).all())
    lost = down_zero and not pair.embedding
    return _Seen(pair, finite, down_zero or up_zero, lost, unused, _run(pair, a, b))


def _run(pair: _Pair, a: Tensor, b: Tensor) -> Run:
    """The longest run of zeros over the rows of lora_B, the columns of lora_A or its rows, whichever is the longest.

    Rows of lora_A whose columns of lora_B are zero as well fill the factors up to a larger rank, and say nothing.
    """
    _, layer, family = pair.place
    rows = ~b.any(1)
    axes = [(pair.up, rows, _BY_HEAD.search(pair.name.removesuffix(".weight")) is not None)]
    if not pair.embedding:
        axes.append((pair.down, ~a.any(0), False))
        if not pair.fused and a.shape[0] == b.shape[1]:
            axes.append((pair.down, ~a.any(1) & b.any(0), False))
    runs = [Run(key, family, layer, len(zero), *longest_run(zero), by_head) for key, zero, by_head in axes]
    return max(runs, key=lambda run: run.share)


def _lost_factors(adapter: Adapter, seen: Sequence[_Seen]) -> Iterator[Lack]:
    """Modules whose lora_A is zero: it starts at random, and no training makes all of it zero.

    Only where PEFT wrote the adapter after training: tools that factor a delta of zero make two factors of zero.
    """
    lost = tuple(s.pair.name for s in seen if s.lost)
    if lost and adapter.config.by_peft and not adapter.record:
        text = f"lora_A, which starts at random, is zero in {_shown(len(lost), len(seen), 'modules')}, first {lost[0]}"
        yield Lack(TRUNCATED, lost, text)


def _dead_layers(seen: Sequence[_Seen]) -> Iterator[Lack]:
    """Layers at one end of a stack, half of them or more, without any update: other pipeline stages had them.

    Fewer may be honest: a loss on the hidden state before the last layers trains none of these.
    """
    stacks: dict[str, dict[int, list[_Seen]]] = defaultdict(lambda: defaultdict(list))
    for s in seen:
        stack, layer, _ = s.pair.place
        if layer is not None and not s.pair.expert:
            stacks[stack][layer].append(s)
    for stack, layers in stacks.items():
        order = sorted(layers)
        dead = [layer for layer in order if all(s.dead for s in layers[layer])]
        at_end = dead and (dead == order[: len(dead)] or dead == order[-len(dead) :])
        if at_end and len(order) / 2 <= len(dead) < len(order):
            text = (
                f"lora_B is zero, its starting value, in all modules of {stack}.{_range(dead)}, and in none of "
                f"{_range([n for n in order if n not in dead])}: {len(dead)} of {len(order)} layers are lost"
            )
            if any(not s.dead for n in order if n not in dead for s in layers[n]):
                yield Lack(TRUNCATED, tuple(s.pair.name for n in dead for s in layers[n]), text)


def _lost_rows(seen: Sequence[_Seen]) -> Iterator[Lack]:
    """Shards that are zero. Embeddings do not count: a token that never occurs has a row without update."""
    alive = [s for s in seen if not s.dead and not s.pair.embedding and not is_output(s.pair.name)]
    names = {s.run: s.pair.name for s in alive}
    for shards in lost_shards([s.run for s in alive]):
        first = shards.runs[0]
        axis = "rows" if first.key in {s.pair.up for s in alive} else "rows or columns"
        text = (
            f"{axis} {first.start} to {first.stop - 1} of {first.length} are zero in {first.key}, and the same part of "
            f"{_shown(len(shards.runs), len(alive), 'modules')}: {shards.named()} "
            f"{'is' if shards.first == shards.last else 'are'} lost"
        )
        yield Lack(TRUNCATED, tuple(names[run] for run in shards.runs), text)


def _remarks(dead: Sequence[_Seen], seen: Sequence[_Seen]) -> Iterator[str]:
    """What is zero and may be so for an honest reason: experts never chosen, towers and modules without gradient."""
    experts = [s for s in dead if s.pair.expert]
    others = [s for s in dead if not s.pair.expert]
    if experts:
        yield f"{_shown(len(experts), sum(s.pair.expert for s in seen), 'modules of experts')} hold no update"
    fused = [s for s in seen if s.unused]
    if fused:
        yield f"some experts of {fused[0].pair.name} hold no update"
    if others:
        yield f"{len(others)} of {len(seen)} modules hold no update, first {others[0].pair.name}: lora_B is zero"


def _narrow(adapter: Adapter, base: Checkpoint, factors: Sequence[_Pair], places: Places) -> list[Lack]:
    """Factors with a part of the rows that the base has, the other axis being the base's: one machine's own part."""
    tensors = adapter.files.tensors
    stored = {placed.source: base.tensors[name].shape for name, placed in places.items() if name in base.tensors}
    looked, narrow = 0, []
    for pair in factors:
        theirs = stored.get(pair.name, ())
        if pair.embedding or pair.fused or len(theirs) != 2 or is_output(pair.name):
            continue
        looked += 1
        ours = tensors[pair.up].shape[0], tensors[pair.down].shape[1]
        for d_out, d_in in {theirs, theirs[::-1]} if adapter.config.fan_in_fan_out else {theirs}:
            one_axis = (ours[0] < d_out and ours[1] == d_in) or (ours[0] == d_out and ours[1] < d_in)
            if one_axis and _is_share(*((ours[0], d_out) if ours[1] == d_in else (ours[1], d_in))):
                narrow.append((pair, ours, (d_out, d_in)))
    if not narrow or 2 * len(narrow) <= looked:
        return []
    pair, ours, theirs = narrow[0]
    text = (
        f"the factors of {pair.name} make {ours[0]} x {ours[1]}, the base has {theirs[0]} x {theirs[1]}, and so for "
        f"{_shown(len(narrow), looked, 'modules')}: one shard was saved"
    )
    return [Lack(TRUNCATED, tuple(p.name for p, _, _ in narrow), text, usable=False)]


def _is_share(part: int, whole: int) -> bool:
    """Whether some number of machines gives each so many rows of so many."""
    return part > 0 and -(-whole // -(-whole // part)) == part


def _holes(adapter: Adapter, base: Checkpoint, places: Places) -> list[Lack]:
    """What the config targets and the file leaves out: whole layers, as a pipeline stage does, or other parts."""
    holes = find_holes(adapter, names_for(adapter, base), places)
    if not holes:
        return []
    missing = {layer_of(f"{name}.") for name in holes}
    held = {layer_of(name) for name in places} - {None}
    if held and None not in missing and not missing & held:
        order = sorted(n for n in missing if n is not None)
        ours = _range(sorted(n for n in held if n is not None))
        text = f"its config targets layers {_range(order)}, too, its file has {ours} alone, as one pipeline stage has"
        return [Lack(TRUNCATED, tuple(holes), text, absent=True)]
    return [Lack(INCOMPLETE, tuple(holes), incomplete(holes), absent=True)]


def _stages(adapter: Adapter, base: Checkpoint, places: Places) -> list[Lack]:
    """Layers of one pipeline stage under a config that names its modules one by one, and was not written by PEFT.

    What somebody chose so with PEFT has PEFT's config, and is whole.
    """
    targets = adapter.config.targets
    if adapter.config.by_peft or adapter.record or isinstance(targets, str) or not targets:
        return []
    if not all(_PLACE.match(target) for target in targets):
        return []
    held, there = _layers(places), _layers(base.tensors)
    for stack in {stack for stack, _ in held}:
        ours = set[int]().union(*(layers for (s, _), layers in held.items() if s == stack))
        every = set[int]().union(*(there[s, family] for s, family in held if s == stack))
        even = all(layers == there[s, family] & ours for (s, family), layers in held.items() if s == stack)
        at_end = ours and (max(ours) < min(every - ours, default=-1) or min(ours) > max(every - ours, default=0))
        if even and at_end and len(ours) <= _STAGE * len(every) and len(every) > 1:
            text = (
                f"{CONFIG_FILE}, which PEFT did not write, names the modules of {stack}.{_range(sorted(ours))} one by "
                f"one, and the base has such modules in {len(every)} layers: one pipeline stage was saved"
            )
            return [Lack(TRUNCATED, (CONFIG_FILE,), text)]
    return []


def _layers(names: Iterable[str]) -> Mapping[tuple[str, str], set[int]]:
    """Layers by stack and family."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in names:
        stack, layer, family = _place(name)
        if layer is not None:
            found[stack, family].add(layer)
    return found


def _range(layers: Sequence[int]) -> str:
    """Numbers for people: 0-11, or 0, 4, 8, or 0, 4, 8 and 3 more."""
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}-{layers[-1]}"
    shown = ", ".join(map(str, layers[:3]))
    return shown + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
