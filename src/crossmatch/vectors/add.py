"""Sums of tuning vectors, written as a vector: each part weighted once, factors kept as factors, all else summed in
float64 and rounded once."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from crossmatch.adapter import LARGEST, VECTOR_FILE, Recorded, StoredDense
from crossmatch.checkpoint import (
    MANIFEST,
    Checkpoint,
    Unchanged,
    atomic_directory,
    check_apart,
    text_facts,
)
from crossmatch.delta import Delta, LowRank, Stack, TuningVector, frobenius, linear, norm, round_once
from crossmatch.errors import InputError, RuleError
from crossmatch.result_kinds import VECTOR_MANIFEST
from crossmatch.results.merging import InputJson, OriginJson
from crossmatch.results.vectors import (
    MadeBy,
    SummandJson,
    TextFilesJson,
    VectorFactsJson,
    VectorManifestJson,
)
from crossmatch.rules import Heads, Weight, Weights, weight_json
from crossmatch.runtime import SILENT, Progress, in_order, single_threads
from crossmatch.vectors.extract import FORMS
from crossmatch.vectors.head_masks import weighted
from crossmatch.vectors.inner_products import cosine_of, gram, ranges
from crossmatch.vectors.operands import Laid, heads_of, lay
from crossmatch.vectors.vector_file import Entry, copy_text_files, vector_statement, write_entries

Parts = Mapping[str, tuple[TuningVector, Weight]]
"""What is summed: name -> (tuning vector, weight)."""


@dataclass(frozen=True)
class Summing:
    """How a sum is formed and written.

    base: the checkpoint under the vectors, for parts that are relative to it (DoRA, saved modules, tokens) and for the
    number of heads; match_norm: the part to whose norm the others are brought before their weights act; dtype: of dense
    results (None: float64 if a part is, else float32); any_base: sum vectors of different bases; made_by: the command.
    """

    base: Checkpoint | None = None
    match_norm: str | None = None
    dtype: str | None = None
    overwrite: bool = False
    any_base: bool = False
    made_by: MadeBy = "add"


DEFAULT = Summing()


@dataclass(frozen=True)
class _Sum:
    """Parts by the names that they share, and what each is multiplied with: first its factor, then its weight.

    idle: deltas of weight zero are written, too, as such.
    """

    laid: Mapping[str, Laid]
    weights: Mapping[str, Weight]
    heads: Heads | None
    factors: Mapping[str, float]
    idle: bool = False

    @property
    def names(self) -> list[str]:
        """All tensors, in the order of the parts."""
        return list(dict.fromkeys(name for part in self.laid.values() for name in part))

    def used(self, name: str) -> dict[str, Delta]:
        """Part -> its weighted delta on a tensor; those of weight zero only if wanted."""
        found = {}
        for label, part in self.laid.items():
            if name in part:
                weight = self.weights[label]
                at = weight.inside(name, self.heads)[0] if isinstance(weight, Weights) else weight
                if self.idle or isinstance(at, Tensor) or at != 0.0:
                    found[label] = weighted(name, part[name].scaled(self.factors[label]), weight, self.heads)
        return found


def add(
    parts: Parts, out: str | Path, *, summing: Summing = DEFAULT, progress: Progress = SILENT
) -> VectorManifestJson:
    """Write sum_i w_i f_i tau_i as a stored vector, and return its manifest.

    w_i: a number, or numbers by layer, module or head (`crossmatch.rules.Weights`). f_i is 1, or with `match_norm`
    ||tau_match|| / ||tau_i||, so that all parts have one norm before they are weighted: with equal weights
    w_1 f_1 ||tau_1|| = w_2 f_2 ||tau_2||. Factors stay factors, of rank sum_i r_i, and nothing of them is rounded; a
    single dense part keeps its tensor beside its weight; sums with dense parts are formed in float64 and rounded once.
    The manifest has norms and cosines of the parts. Raises RuleError for parts that cannot be summed, InputError for
    parts that need a base and are given none, or were made on different ones.
    """
    out, directories = Path(out), [v for v, _ in parts.values() if isinstance(v, Recorded)]
    if summing.match_norm is not None and summing.match_norm not in parts:
        raise InputError(f"--match-norm {summing.match_norm}: the vectors are {', '.join(parts)}")
    check_apart(out, [v.path for v in directories])
    watched = Unchanged([file for v in directories for file in v.paths])
    if summing.base is not None and summing.base.quantisation:
        raise InputError(
            f"--base {summing.base.path} is quantised ({summing.base.quantisation}): vectors change the weights that "
            "it was made from; give those"
        )
    base = _common_base(parts, summing)
    laid = {label: lay(label, vector, summing.base) for label, (vector, _) in parts.items()}
    weights = {label: weight for label, (_, weight) in parts.items()}
    for label, weight in weights.items():
        if isinstance(weight, Weights):
            weight.check(laid[label])
    _check_sizes(weights)
    whole = _Sum(laid, weights, heads_of(parts, summing.base), dict.fromkeys(parts, 1.0))
    whole = replace(whole, idle=summing.made_by == "scale")
    with atomic_directory(out, overwrite=summing.overwrite) as partial:
        plain, used = _products(whole, progress)
        labels = list(parts)
        sizes = {label: math.sqrt(plain[i, i]) for i, label in enumerate(labels)}
        whole = replace(whole, factors=_factors(sizes, summing.match_norm))
        stretch = torch.tensor([whole.factors[label] for label in labels], dtype=torch.float64)
        used = used * stretch[:, None] * stretch[None, :]
        size = _Size()
        entries = [e for name in whole.names for e in _entries(whole, name, _form(whole, summing), size)]
        if not entries:
            raise RuleError("all weights are zero: there is no vector to write")
        with single_threads(), progress.task("write", sum(math.prod(e.shape) for e in entries)) as task:
            digest = write_entries(partial / VECTOR_FILE, entries, task)
        watched.check()
        facts: VectorFactsJson = {
            "made_by": summing.made_by,
            "base": base,
            "heads": whole.heads.to_dict() if whole.heads else None,
            "match_norm": summing.match_norm,
            "parts": _described(parts, whole, sizes, used, partial),
            "cosines": [
                {"first": labels[i], "second": labels[j], "cosine": cosine_of(used, i, j)}
                for i, j in combinations(range(len(labels)), 2)
            ],
            "norm": size.norm,
            "text_files": _text_files(parts, laid, partial),
        }
        manifest = vector_statement({VECTOR_FILE: digest}, facts)
        VECTOR_MANIFEST.write(partial / MANIFEST, manifest)
    return manifest


def _check_sizes(weights: Mapping[str, Weight]) -> None:
    for label, weight in weights.items():
        numbers = [weight.default, *(w for _, w in weight.overrides)] if isinstance(weight, Weights) else [weight]
        if any(abs(number) > LARGEST for number in numbers):
            raise RuleError(f"the weight of {label} is {weight}; it is at most {LARGEST:g} in size")


def _common_base(parts: Parts, summing: Summing) -> InputJson:
    """What the parts' records say of their base. Raises InputError if they say different things."""
    known: dict[str, str] = {}
    origin: OriginJson = {}
    for label, (vector, _) in parts.items():
        if isinstance(vector, Recorded) and vector.trained_on is not None:
            known[label] = vector.trained_on
    if len(set(known.values())) > 1 and not summing.any_base:
        first, *others = known
        other = next(label for label in others if known[label] != known[first])
        raise InputError(
            f"{first} and {other} were made on different bases ({known[first][:12]}…, {known[other][:12]}…); "
            "their sum means little: --any-base adds them anyhow"
        )
    if summing.base is not None:
        origin = {"hub_id": summing.base.source.hub_id, "revision": summing.base.source.revision}
    if len(set(known.values())) != 1 or len(known) < len(parts):
        return {**origin, "digest": None}
    return {**origin, "digest": next(iter(known.values()))}


def _products(whole: _Sum, progress: Progress) -> tuple[Tensor, Tensor]:
    """Inner products of the parts as they are, and as they are weighted."""
    labels = list(whole.laid)
    plain, used = (torch.zeros(len(labels), len(labels), dtype=torch.float64) for _ in range(2))
    by_module = any(isinstance(weight, Weights) for weight in whole.weights.values())
    with single_threads(), progress.task("measure", len(whole.names)) as task:
        for name in whole.names:
            deltas = {label: part[name] for label, part in whole.laid.items() if name in part}
            _same_shape(name, deltas)
            plain += gram([deltas.get(label) for label in labels])
            if by_module:
                weighed = whole.used(name)
                used += gram([weighed.get(label) for label in labels])
            task.advance(1, name)
    if not by_module:
        numbers = torch.tensor([w for w in whole.weights.values() if not isinstance(w, Weights)], dtype=torch.float64)
        used = plain * numbers[:, None] * numbers[None, :]
    return plain, used


def _same_shape(name: str, deltas: Mapping[str, Delta]) -> None:
    shapes = {label: delta.shape for label, delta in deltas.items()}
    if len(set(shapes.values())) > 1:
        shown = ", ".join(f"{label} {list(shape)}" for label, shape in shapes.items())
        raise RuleError(f"{name} has different shapes ({shown}); the vectors are of different models")


def _factors(sizes: Mapping[str, float], match: str | None) -> dict[str, float]:
    if match is None:
        return dict.fromkeys(sizes, 1.0)
    zero = [label for label, size in sizes.items() if size == 0.0]
    if zero:
        raise RuleError(f"--match-norm: {zero[0]} is zero, and no factor gives it a norm")
    return {label: sizes[match] / size if label != match else 1.0 for label, size in sizes.items()}


def _form(whole: _Sum, summing: Summing) -> torch.dtype:
    if summing.dtype is not None:
        if summing.dtype not in FORMS:
            raise RuleError(f"dtype {summing.dtype!r}: a vector is stored as {' or '.join(FORMS)}")
        return FORMS[summing.dtype]
    double = any(part.is_double for part in whole.laid.values())
    return torch.float64 if double else torch.float32


@dataclass
class _Size:
    """Norm of what was written: counted from it, since in a difference of parts their products cancel."""

    norm: float = 0.0

    def add(self, size: float) -> None:
        """Count a part of this norm."""
        self.norm = math.hypot(self.norm, size)

    def of(self, blocks: Iterable[Tensor], scale: float = 1.0) -> Iterator[Tensor]:
        """The blocks, counted on their way."""
        for block in blocks:
            self.add(frobenius(block) * abs(scale))
            yield block


def _entries(whole: _Sum, name: str, form: torch.dtype, size: _Size) -> Iterator[Entry]:
    used = whole.used(name)
    if not used:
        return
    kinds = {label: whole.laid[label].kinds[name] for label in used}
    if "shared" in kinds.values() and set(kinds.values()) != {"shared"}:
        raise RuleError(f"{name}: of {', '.join(kinds)} some act on one of two tied embeddings, some on both")
    try:
        total = linear(list(used.values()), [1.0] * len(used))
    except RuleError as error:
        raise RuleError(f"{name}: {error}") from None
    if isinstance(total, LowRank | Stack):
        size.add(norm(total))
        stacked = isinstance(total, Stack)
        yield from _of_factors(name, total.parts if stacked else (total,), stacked=stacked)
    else:
        yield from _dense(f"{'shared' if 'shared' in kinds.values() else 'delta'}/{name}", total, form, size)
    grown = [label for label in used if name in whole.laid[label].added]
    if len(grown) > 1:
        raise RuleError(f"{name}: {' and '.join(grown)} each added rows to the vocabulary; only one may have done so")
    if grown:
        yield from _added(whole.laid[grown[0]], name)


def _of_factors(name: str, parts: tuple[LowRank, ...], *, stacked: bool) -> Iterator[Entry]:
    dims = parts[0].dims
    tensors = {
        "a": [p.a.reshape(p.rank, *dims[1:]) if dims and len(dims) > 2 else p.a for p in parts],
        "b": [p.b for p in parts],
        "scale": [p.scale for p in parts],
    }
    for kind, found in tensors.items():
        yield Entry.of(f"{kind}/{name}", torch.stack(found) if stacked else found[0])


def _dense(key: str, total: Delta, form: torch.dtype, size: _Size) -> Iterator[Entry]:
    if isinstance(total, StoredDense):
        # Alone: its tensor stays as it is, beside a number.
        if total.key is not None:
            stored = Entry.stored(key, total.files, total.key)
            yield replace(stored, blocks=lambda: size.of(stored.blocks(), total.scale))
            scale = torch.tensor(total.scale, dtype=torch.float64)
            yield from [Entry.of(f"scale/{key.partition('/')[2]}", scale)] if total.scale != 1.0 else []
        return

    def block(at: tuple[int, int]) -> Tensor:
        rows = total.rows(*at, torch.float64)
        return rows if form == torch.float64 else round_once(rows, form)

    yield Entry(key, form, total.shape, lambda: size.of(in_order(block, ranges(total))))


def _added(part: Laid, name: str) -> Iterator[Entry]:
    assert part.vector is not None
    first, key = part.added[name]
    yield Entry.of(f"first/{name}", torch.tensor(first))
    yield Entry.stored(key, part.vector.files, key)


def _described(
    parts: Parts, whole: _Sum, sizes: Mapping[str, float], used: Tensor, home: Path
) -> dict[str, SummandJson]:
    """Every part: where it lies, its norm, and what was done to it; norm_used: of what went into the sum."""
    facts: dict[str, SummandJson] = {}
    for i, (label, (vector, weight)) in enumerate(parts.items()):
        known: InputJson = {"path": None, "digest": None}
        if isinstance(vector, Recorded):
            known = {**vector.source.origin(home), "digest": vector.digest}
        facts[label] = {
            "weight": weight_json(weight),
            "factor": whole.factors[label],
            "norm": sizes[label],
            "norm_used": math.sqrt(used[i, i]),
            **known,
        }
    return facts


def _text_files(parts: Parts, laid: Mapping[str, Laid], out: Path) -> TextFilesJson:
    """Tokenizer and template: of the part that added to the vocabulary, or of all that have one, if they agree."""
    homes = {label: v.path for label, (v, _) in parts.items() if isinstance(v, Recorded)}
    grown = [label for label in homes if laid[label].added]
    facts = {label: text_facts(path) for label, path in homes.items()}
    having = grown or [label for label in homes if facts[label].tokenizer or facts[label].template]
    if not having or len({(facts[label].tokenizer, facts[label].template) for label in having}) > 1:
        return {"from": None, "files": [], "disagree": having}
    return {"from": having[0], "files": copy_text_files(homes[having[0]], out), "disagree": []}
