"""Every honest route: other orders, formats and tools, none of which is a fault."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from crossmatch import Adapter, Checkpoint
from crossmatch.merging import Storage, merge
from crossmatch.rules import Recipe
from faults.build import CLAIM, DTYPES, Bench, State, altered, aside, edit, grow, load, one_by_one, peft, silence, state
from faults.registry import Claimed, case

SOME: dict[str, Any] = {"sizes": (1e-1, 1e-3), "dtypes": ("fp32", "bf16")}
BOTH = {"pt": 1.0, "sft": 1.0}


@case("PEFT merge_and_unload")
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, {"pt": 1.0})
    return Claimed({"pt": 1.0})


@case("PEFT merge_and_unload, safe_merge", notes=("rounded-twice",))
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, {"pt": 1.0}, safe=True)
    return Claimed({"pt": 1.0})


@case("PEFT cat")
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


@case("PEFT cat, most of it rounded away", notes=("rounding-swallow",), dtypes=("bf16",), sizes=(1e-4,))
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


def loaded(name: str, half: torch.dtype, **how: Any) -> None:
    """A base in float32, loaded in 16 bits, as scripts do by default: merged there, and stored there."""

    @case(name, notes=("rounded-twice", "dtype-changed"), dtypes=("fp32",), sizes=(1e-1, 1e-2, 1e-3))
    def make(bench: Bench, out: Path) -> Claimed:
        with silence():
            model = AutoModelForCausalLM.from_pretrained(bench.base, dtype=half)
        if "safe" in how:
            one_by_one(bench, out, {"pt": 1.0}, base=model, saved=half, **how)
            return Claimed({"pt": 1.0})
        peft(bench, out, CLAIM, base=model, dtype=half, **how)
        return Claimed()


for _short, _half in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
    loaded(f"loaded in {_short}, one adapter", _half, safe=False)
    loaded(f"loaded in {_short}, one adapter, safe_merge", _half, safe=True)
    loaded(f"loaded in {_short}, PEFT cat", _half)


@case("PEFT cat, a negative weight", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, {"pt": -0.3, "sft": 0.7})
    return Claimed({"pt": -0.3, "sft": 0.7})


@case("PEFT svd of the whole rank", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM, combination_type="svd", svd_rank=32)
    return Claimed()


@case("pt first, then sft", notes=("rounded-twice",))
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, CLAIM)
    return Claimed()


@case("sft first, then pt", notes=("rounded-twice",))
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, dict(reversed(CLAIM.items())))
    return Claimed()


@case("one after the other at weight one", notes=("rounded-twice",))
def _(bench: Bench, out: Path) -> Claimed:
    """As LLaMA-Factory exports a list of adapters."""
    one_by_one(bench, out, BOTH)
    return Claimed(BOTH)


@case("one after the other, safe_merge", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, CLAIM, safe=True)
    return Claimed()


@case("one after the other, saved in between", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    first = one_by_one(bench, aside(out, "first"), {"pt": 0.3})
    with silence():
        model = AutoModelForCausalLM.from_pretrained(first, dtype=bench.dtype)
    one_by_one(bench, out, {"sft": 0.7}, base=model)
    return Claimed()


def half(name: str, dtype: str, **where: Any) -> None:
    """Adapters stored in 16 bits."""

    @case(name, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        paths = {
            n: altered(
                bench.adapter(n), aside(out, n), tensors=lambda t: {k: v.to(DTYPES[dtype]) for k, v in t.items()}
            )
            for n in CLAIM
        }
        peft(bench, out, CLAIM, paths)
        return Claimed(paths=paths)


half("adapters stored in bfloat16", "bf16")
half("adapters stored in float16", "fp16", sizes=(1e-1, 1e-2, 1e-3))


@case("adapters kept in bfloat16", dtypes=("bf16",), notes=("rounded-twice",))
def _(bench: Bench, out: Path) -> Claimed:
    """PEFT with autocast_adapter_dtype=False: the delta itself is rounded."""
    paths = {
        n: altered(bench.adapter(n), aside(out, n), tensors=lambda t: {k: v.bfloat16() for k, v in t.items()})
        for n in CLAIM
    }
    one_by_one(bench, out, BOTH, paths, autocast_adapter_dtype=False)
    return Claimed(BOTH, paths)


def stored(name: str, dtype: str, dtypes: tuple[str, ...], **where: Any) -> None:
    """Merged in float32 and saved in another dtype than the base's."""

    @case(name, dtypes=dtypes, notes=("dtype-changed",), **where)
    def make(bench: Bench, out: Path) -> Claimed:
        peft(bench, out, CLAIM, dtype=DTYPES[dtype])
        return Claimed()


stored("saved as float16", "fp16", ("fp32", "bf16"))
stored("saved as bfloat16", "bf16", ("fp32", "fp16"))
stored("saved as float32", "fp32", ("bf16", "fp16"), sizes=(1e-1, 1e-3))


@case("weights rounded to bfloat16", notes=("weight-in-bf16",))
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, {n: float(torch.tensor(w, dtype=torch.bfloat16)) for n, w in CLAIM.items()})
    return Claimed()


@case("each merged into a model of its own", notes=("merged-as-models",), dtypes=("bf16", "fp16"))
def _(bench: Bench, out: Path) -> Claimed:
    arithmetic(bench, out)
    return Claimed()


def arithmetic(bench: Bench, out: Path) -> Path:
    """mergekit's task arithmetic, bit for bit (test_peers): a model of each adapter first, then W + sum w (M_i - W),
    all of it in the stored dtype."""
    base = state(bench.base)
    models = {n: state(one_by_one(bench, aside(out, n), {n: 1.0})) for n in CLAIM}
    bench.save(bench.model(), out)

    def change(tensors: State) -> State:
        for name in tensors:
            deltas = torch.stack([(models[n][name] - base[name]) for n in CLAIM])
            weights = torch.tensor(list(CLAIM.values()), dtype=deltas.dtype).reshape(-1, *[1] * base[name].ndim)
            tensors[name] = (base[name] + (weights * deltas).sum(0)).to(base[name].dtype)
        return tensors

    return edit(out, change)


# Other models.


@case("sharded", family="shards", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


@case("tied", family="tied", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


@case("attention with biases", family="qwen", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


@case("Conv1D", family="gpt2", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, CLAIM, dtype=torch.float32)
    return Claimed()


@case("experts", family="moe", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, {"experts": 1.0, "sft": 1.0}, dtype=torch.float32)
    return Claimed({"experts": 1.0, "sft": 1.0})


@case("203 modules", family="deep", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    return Claimed()


# Other kinds of adapters, at weight one beside sft.


def kind(name: str, adapter: str, **where: Any) -> None:
    """PEFT's merge of one adapter of that kind, and of sft at 0.7 after it."""

    @case(name, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        one_by_one(bench, out, {adapter: 1.0, "sft": 0.7}, dtype=torch.float32)
        return Claimed({adapter: 1.0, "sft": 0.7})


kind("rsLoRA", "rslora", **SOME)
kind("alpha_pattern", "alphas", **SOME)
kind("rank_pattern", "ranks", **SOME)
kind("another rank", "low", **SOME)
kind("embeddings adapted", "embeddings", **SOME)
kind("modules_to_save", "saved", **SOME)
kind("trained tokens", "tokens", **SOME)
kind("lora_bias", "biases", family="qwen", **SOME)


@case("DoRA", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, {"dora": 1.0}, dtype=torch.float32)
    return Claimed({"dora": 1.0})


@case("a vocabulary that has grown", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    model = bench.model()
    grow(model)
    with silence():
        tuned = load(model, {"grown": bench.adapter("grown")})
        bench.save(tuned.merge_and_unload(), out)
    return Claimed({"grown": 1.0})


# Our own merges.


def ours(
    name: str, recipe: Recipe | None = None, *, dtype: str | None = None, shards: bool = False, **where: Any
) -> None:
    """By a rule."""

    @case(name, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        parts = {n: (Adapter(bench.adapter(n)), w) for n, w in CLAIM.items()}
        storage = Storage(DTYPES[dtype] if dtype else None, shard_bytes=300_000 if shards else None)
        merge(Checkpoint(bench.base), parts, out, recipe=recipe, storage=storage)
        return Claimed(recipe=recipe)


ours("crossmatch merge")
ours("crossmatch merge into shards", shards=True, **SOME)
for rule, values in {
    "slerp": {},
    "ties": {"density": 0.5},
    "dare-linear": {"density": 0.5},
    "breadcrumbs": {},
    "della": {"density": 0.5},
    "core-tsv": {},
    "project": {"of": "pt"},
}.items():
    ours(f"crossmatch merge --rule {rule}", Recipe(rule, values), **SOME)
