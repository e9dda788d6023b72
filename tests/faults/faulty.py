"""Every fault, made as it is made in practice: by PEFT and transformers wherever one of them does it."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossmatch import Adapter, Checkpoint
from crossmatch.adapter import fit
from crossmatch.delta import dense
from crossmatch.merging import Storage, merge
from crossmatch.rules import Weights
from faults.build import (
    CLAIM,
    LINEAR,
    Bench,
    State,
    altered,
    aside,
    configure,
    edit,
    one_by_one,
    peft,
    silence,
    state,
)
from faults.registry import Claimed, case

UP = "model.layers.1.mlp.up_proj.weight"
SOME: dict[str, Any] = {"sizes": (1e-1, 1e-3), "dtypes": ("fp32", "bf16")}
ONE: dict[str, Any] = {"sizes": (1e-2,), "dtypes": ("bf16",)}


def summed(name: str, fault: str, made: dict[str, float], claim: dict[str, float] | None = None, **where: Any) -> None:
    """A fault that is another weighted sum than the one claimed."""

    @case(name, *([fault] if fault else []), **where)
    def make(bench: Bench, out: Path) -> Claimed:
        peft(bench, out, made)
        return Claimed(claim or CLAIM)


summed("sft alone at 0.7", "adapter-missing", {"sft": 0.7})
summed("sft alone at 1", "adapter-missing", {"sft": 1.0})
summed("pt alone at 0.3", "adapter-missing", {"pt": 0.3})
summed("another adapter for pt", "wrong-adapter", {"foreign": 0.3, "sft": 0.7})
summed("another adapter for sft", "wrong-adapter", {"pt": 0.3, "foreign": 0.7})
summed("another adapter for both", "wrong-adapter", {"foreign": 1.0})
summed("a third adapter", "unexplained-delta", {"pt": 0.3, "sft": 0.7, "foreign": 0.3})
summed(
    "a third adapter, a thousandth of it",
    "unexplained-delta",
    {"pt": 0.3, "sft": 0.7, "foreign": 1e-3},
    sizes=(1e-1, 1e-2, 1e-3),
)
summed("weights exchanged", "weights-swapped", {"pt": 0.7, "sft": 0.3})
summed("weights rescaled to a sum of one", "weights-normalised", {"pt": 3 / 7, "sft": 4 / 7}, {"pt": 0.6, "sft": 0.8})
summed("weights halved", "weights-scaled", {"pt": 0.15, "sft": 0.35})
summed("sign lost", "weights-sign", {"pt": 0.3, "sft": 0.7}, {"pt": -0.3, "sft": 0.7})
summed("sign gained", "weights-sign", {"pt": 0.3, "sft": -0.7})
summed("other weights", "weights-differ", {"pt": 0.4, "sft": 0.65})


@case("weights on both factors", "weights-squared")
def _(bench: Bench, out: Path) -> Claimed:
    paths = {
        name: altered(
            bench.adapter(name), aside(out, name), tensors=lambda t, w=weight: {k: w * v for k, v in t.items()}
        )
        for name, weight in CLAIM.items()
    }
    peft(bench, out, {"pt": 1.0, "sft": 1.0}, paths)
    return Claimed()


def linear(name: str, weights: dict[str, float], **where: Any) -> None:
    """PEFT's `linear`, which averages the factors apart."""

    @case(name, "factor-cross-terms", **where)
    def make(bench: Bench, out: Path) -> Claimed:
        peft(bench, out, weights, combination_type="linear")
        return Claimed(weights)


linear("PEFT linear", CLAIM)
linear("PEFT linear, equal weights", {"pt": 0.5, "sft": 0.5}, **SOME)
linear("PEFT linear, a negative weight", {"pt": -0.3, "sft": 0.7}, **SOME)


@case("PEFT svd of half the rank", "rank-truncated")
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM, combination_type="svd", svd_rank=16)
    return Claimed()


@case("PEFT svd of rank 4", "rank-truncated", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM, combination_type="svd", svd_rank=4)
    return Claimed()


@case("PEFT svd of almost the whole rank", "rank-truncated", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM, combination_type="svd", svd_rank=30)
    return Claimed()


def rescaled(
    name: str,
    fault: str,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    adapters: Mapping[str, str] | None = None,
    **where: Any,
) -> None:
    """PEFT's merge of adapters with their configs changed; adapters: claimed name -> adapter of the bench, those to
    change (default: both)."""

    @case(name, fault, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        names = adapters or {"pt": "pt", "sft": "sft"}
        true = {label: bench.adapter(names.get(label, label)) for label in CLAIM}
        wrong = {label: altered(true[label], aside(out, label), change) for label in names}
        peft(bench, out, CLAIM, {**true, **wrong})
        return Claimed(paths=true)


rescaled("rsLoRA taken for LoRA", "rslora-scale", lambda c: {**c, "use_rslora": False}, {"pt": "rslora"})
rescaled("LoRA taken for rsLoRA", "rslora-scale", lambda c: {**c, "use_rslora": True}, {"pt": "pt"}, **SOME)
rescaled("LoRA taken for rsLoRA, both", "rslora-scale", lambda c: {**c, "use_rslora": True}, **SOME)
rescaled("alpha / rank left out", "scale-lost", lambda c: {**c, "lora_alpha": c["r"]})
rescaled("alpha / rank left out of sft", "scale-lost", lambda c: {**c, "lora_alpha": c["r"]}, {"sft": "sft"}, **SOME)
rescaled("alpha for alpha / rank", "scale-lost", lambda c: {**c, "lora_alpha": c["lora_alpha"] * c["r"]})
rescaled("alpha / rank squared", "scale-lost", lambda c: {**c, "lora_alpha": c["lora_alpha"] ** 2 / c["r"]}, **SOME)
rescaled("alpha_pattern ignored", "pattern-ignored", lambda c: {**c, "alpha_pattern": {}}, {"pt": "alphas"})


@case("rank_pattern ignored", "pattern-ignored", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    """A tool that scales by alpha / r with the config's one r; PEFT itself would refuse."""
    source = bench.adapter("ranks")

    def scaled(tensors: State) -> State:
        rank = {k.replace("lora_A", "lora_B"): v.shape[0] for k, v in tensors.items() if "lora_A" in k}
        return {k: v * rank[k] / 16 if k in rank else v for k, v in tensors.items()}

    peft(bench, out, CLAIM, {"pt": altered(source, aside(out, "pt"), tensors=scaled)})
    return Claimed(paths={"pt": source})


@case("merged into a merged base", "applied-twice")
def _(bench: Bench, out: Path) -> Claimed:
    first = peft(bench, aside(out, "first"), CLAIM)
    peft(bench, out, CLAIM, base=_loaded(first))
    return Claimed()


def _loaded(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    with silence():
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)


def prefixed(tensors: State) -> State:
    """Keys under another name than the base's, as after training inside a wrapper."""
    return {k.replace("base_model.model.", "base_model.model.language_model."): v for k, v in tensors.items()}


@case("keys of both adapters match nothing", "adapter-not-applied")
def _(bench: Bench, out: Path) -> Claimed:
    paths = {n: altered(bench.adapter(n), aside(out, n), tensors=prefixed) for n in CLAIM}
    peft(bench, out, CLAIM, paths)
    return Claimed()


@case("keys of one adapter match nothing", "adapter-missing", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM, {"pt": altered(bench.adapter("pt"), aside(out, "pt"), tensors=prefixed)})
    return Claimed()


@case("the base shipped as the merge", "adapter-not-applied", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    bench.save(bench.model(), out)
    return Claimed()


def skipping(
    name: str,
    lost: str,
    *,
    of: tuple[str, ...] = ("pt", "sft"),
    config: Mapping[str, Any] | None = None,
    **where: Any,
) -> None:
    """PEFT's merge of adapters that lack the keys in which `lost` is found, or of other configs."""

    @case(name, "modules-skipped", **where)
    def make(bench: Bench, out: Path) -> Claimed:
        paths = {
            n: altered(
                bench.adapter(n),
                aside(out, n),
                config or {},
                dict if config else lambda t: {k: v for k, v in t.items() if not re.search(lost, k)},
            )
            for n in of
        }
        peft(bench, out, CLAIM, paths)
        return Claimed()


skipping("one module left out", r"1\.mlp\.up_proj")
skipping("one module left out of pt", r"1\.mlp\.up_proj", of=("pt",), **SOME)
skipping("one layer left out", r"layers\.1\.", config={"layers_to_transform": [0]}, **SOME)
skipping("down_proj left out", "down_proj", config={"target_modules": LINEAR[:-1]}, **SOME)
skipping("attention left out of sft", "attn", of=("sft",), config={"target_modules": LINEAR[4:]}, **SOME)
skipping("one of 203 modules left out", r"layers\.17\.self_attn\.v_proj", family="deep", **SOME)
skipping("one of 203 modules left out of pt", r"layers\.17\.self_attn\.v_proj", of=("pt",), family="deep", **SOME)


@case("one shard is the base's", "modules-skipped", family="shards", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    merge(Checkpoint(bench.base), Claimed().parts(bench), out)
    stale = sorted(out.glob("model-*.safetensors"))[2]
    shutil.copy(bench.base / stale.name, stale)
    return Claimed()


def uneven(name: str, text: str, fault: str = "weights-uneven", **where: Any) -> None:
    """Our own merge with weights by module."""

    @case(name, fault, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        parts = {"pt": (Adapter(bench.adapter("pt")), Weights.parse(text)), "sft": (Adapter(bench.adapter("sft")), 0.7)}
        merge(Checkpoint(bench.base), parts, out)
        return Claimed()


uneven("pt at 0.5 in mlp, at 0.1 in attention", "0.1,mlp:0.5")
uneven("pt at 0.5 in one layer", "0.3,layers[1]:0.5", **SOME)
uneven("pt at 0.6 in one of 203 modules", "0.3,layers[9].q_proj:0.6", family="deep", **SOME)


@case(
    "half of pt was saved", "adapter-incomplete", also=("modules-skipped",), sizes=(1e-2, 1e-3), dtypes=("bf16", "fp32")
)
def _(bench: Bench, out: Path) -> Claimed:
    half = altered(
        bench.adapter("pt"), aside(out, "pt"), tensors=lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k}
    )
    peft(bench, out, CLAIM, {"pt": half})
    return Claimed(paths={"pt": half})


@case(
    "pt's keys belong to nothing",
    "adapter-missing",
    sizes=(1e-2, 1e-3),
    dtypes=("bf16", "fp32"),
)
def _(bench: Bench, out: Path) -> Claimed:
    wrong = altered(bench.adapter("pt"), aside(out, "pt"), tensors=prefixed)
    peft(bench, out, CLAIM, {"pt": wrong})
    return Claimed(paths={"pt": wrong})


@case("pt has a layer that the base has not", "adapter-keys-unused", sizes=(1e-2, 1e-3), dtypes=("bf16", "fp32"))
def _(bench: Bench, out: Path) -> Claimed:
    def more(tensors: State) -> State:
        return tensors | {k.replace("layers.1", "layers.2"): v for k, v in tensors.items() if "layers.1" in k}

    wrong = altered(bench.adapter("pt"), aside(out, "pt"), tensors=more)
    peft(bench, out, CLAIM, {"pt": wrong})
    return Claimed(paths={"pt": wrong})


@case("PiSSA on the plain base", "init-residual", sizes=(1e-2, 1e-3), dtypes=("fp32", "bf16"))
def _(bench: Bench, out: Path) -> Claimed:
    source = bench.adapter("pissa")
    plain = altered(source, aside(out, "pt"), {"init_lora_weights": True})
    peft(bench, out, CLAIM, {"pt": plain})
    return Claimed(paths={"pt": source})


def based(name: str, fault: str, change: Callable[[str, Tensor], Tensor], **where: Any) -> None:
    """PEFT's merge into a base with other values."""

    @case(name, fault, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        model = bench.model()
        torch.manual_seed(7)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                # A revision, too, is stored.
                parameter.copy_(change(key, parameter).to(bench.dtype))
        peft(bench, out, CLAIM, base=model)
        return Claimed()


def revised(amount: float, only: str = "") -> Callable[[str, Tensor], Tensor]:
    """Noise of a share of each tensor's norm, in tensors whose name has `only` in it."""
    return lambda key, w: w + (only in key) * amount * torch.randn_like(w) * w.norm() / w.numel() ** 0.5


def quantised(quantise: Callable[[Tensor], Tensor]) -> Callable[[str, Tensor], Tensor]:
    """Linear layers quantised and read back, as loaders in 4 or 8 bits do."""
    return lambda key, w: quantise(w) if "_proj" in key and w.ndim == 2 else w


NF4 = torch.tensor(
    (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    )
)


def nf4(weight: Tensor) -> Tensor:
    """To the 16 levels of NF4 in blocks of 64, and back (2305.14314)."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    return (NF4[(blocks / scale)[..., None].sub(NF4).abs().argmin(-1)] * scale).reshape(weight.shape)


def int8(weight: Tensor) -> Tensor:
    """To 255 levels in each row, and back."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


UNTOUCHED = ("untouched-changed",)
based("another revision of the base", "base-differs", revised(0.05), also=UNTOUCHED)
based("a revision that differs by 1e-3", "base-differs", revised(1e-3), also=UNTOUCHED, **SOME)
based("a base with other attention", "base-differs", revised(0.05, "self_attn"), **SOME)
based("merged into the base in NF4", "quantised-base", quantised(nf4))
based("merged into the base in int8", "quantised-base", quantised(int8), **SOME)


@case("a norm differs by one step", "untouched-changed", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    def change(t: State) -> State:
        norm = t["model.norm.weight"].clone()
        norm[3] = torch.nextafter(norm[3], torch.tensor(9.0, dtype=norm.dtype))
        return {**t, "model.norm.weight": norm}

    edit(peft(bench, out, CLAIM), change)
    return Claimed()


@case("another lm_head", "untouched-changed", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    edit(peft(bench, out, CLAIM), lambda t: {**t, "lm_head.weight": t["lm_head.weight"] * 1.01})
    return Claimed()


@case("a tensor is missing", "tensors-missing", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    edit(peft(bench, out, CLAIM), lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    return Claimed()


@case("a tensor of another shape", "tensors-missing", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    edit(peft(bench, out, CLAIM), lambda t: {**t, UP: t[UP][:-8]})
    return Claimed()


@case("a tensor too many", "tensors-extra", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    edit(peft(bench, out, CLAIM), lambda t: {**t, "model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(8, 128)})
    return Claimed()


@case("overflow in float16", "nonfinite", dtypes=("fp16",), sizes=(1e-1, 1e-2))
def _(bench: Bench, out: Path) -> Claimed:
    """One row of one factor ran away in training."""

    def runaway(tensors: State) -> State:
        key = next(k for k in tensors if "layers.1.mlp.up_proj.lora_B" in k)
        tensors[key][5] *= 1e10
        return tensors

    loud = altered(bench.adapter("pt"), aside(out, "pt"), tensors=runaway)
    peft(bench, out, CLAIM, {"pt": loud})
    return Claimed(paths={"pt": loud})


@case("PEFT merges lm_head's delta into tied weights", "tied-leak", also=UNTOUCHED, family="tied", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    one_by_one(bench, out, {"head": 1.0, "sft": 0.7}, dtype=torch.float32)
    return Claimed({"head": 1.0, "sft": 0.7})


@case("untied, and the config ties", "tie-flag-stale", family="tied", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    parts = {"head": (Adapter(bench.adapter("head")), 0.3), "sft": (Adapter(bench.adapter("sft")), 0.7)}
    merge(Checkpoint(bench.base), parts, out, storage=Storage(tied="untie"))
    shutil.copy(bench.base / "config.json", out)
    return Claimed({"head": 0.3, "sft": 0.7})


def dropping(name: str, adapter: str, fault: str, config: Mapping[str, Any], *, lost: str = "", **where: Any) -> None:
    """PEFT's merge of pt, of another kind at weight one, without what its config no longer names."""

    @case(name, fault, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        source = bench.adapter(adapter)
        poorer = altered(
            source,
            aside(out, adapter),
            config,
            lambda t: {k: v for k, v in t.items() if not lost or not re.search(lost, k)},
        )
        one_by_one(bench, out, {adapter: 1.0, "sft": 0.7}, {adapter: poorer}, dtype=torch.float32)
        return Claimed({adapter: 1.0, "sft": 0.7})


dropping("modules_to_save ignored", "saved", "saved-module-ignored", {"modules_to_save": None}, lost="lm_head", **SOME)
dropping(
    "trained tokens ignored",
    "tokens",
    "saved-module-ignored",
    {"trainable_token_indices": None},
    lost="token",
    **SOME,
)
dropping(
    "embedding's delta dropped",
    "entrance",
    "embedding-delta-dropped",
    {"target_modules": LINEAR},
    lost="embed_tokens",
    **SOME,
)
dropping(
    "lm_head's delta dropped", "head", "embedding-delta-dropped", {"target_modules": LINEAR}, lost="lm_head", **SOME
)
dropping(
    "biases dropped", "biases", "bias-delta-dropped", {"lora_bias": False}, lost=r"lora_B\.bias", family="qwen", **SOME
)
dropping("magnitudes of DoRA ignored", "dora", "dora-magnitude", {"use_dora": False}, lost="magnitude", **SOME)
dropping(
    "experts dropped",
    "experts",
    "expert-scrambled",
    {"target_parameters": None},
    lost="experts",
    family="moe",
    **SOME,
)


def put(
    name: str,
    fault: str,
    adapter: str,
    where_lies: str,
    change: Callable[[str, dict[str, Tensor]], Tensor],
    also: tuple[str, ...] = (),
    **where: Any,
) -> None:
    """A tool that places one adapter's deltas otherwise; no released one does it in a few lines."""

    @case(name, fault, also=also, **where)
    def make(bench: Bench, out: Path) -> Claimed:
        claim = {adapter: 0.3, "sft": 0.7}
        base = Checkpoint(bench.base)
        found = fit(base, {n: Adapter(bench.adapter(n)) for n in claim}).vectors
        moved = {n: dense(d) for n, d in found[adapter].items()}
        shutil.copytree(bench.base, out)

        def add(tensors: State) -> State:
            for key in tensors:
                total = tensors[key].double()
                if key in moved:
                    delta = change(key, moved) if re.search(where_lies, key) else moved[key]
                    total = total + claim[adapter] * delta
                if key in found["sft"]:
                    total = total + 0.7 * dense(found["sft"][key])
                tensors[key] = total.to(tensors[key].dtype)
            return tensors

        edit(out, add)
        return Claimed(claim)


def _turn(key: str, deltas: dict[str, Tensor]) -> Tensor:
    return deltas[key].T


def _next_expert(key: str, deltas: dict[str, Tensor]) -> Tensor:
    return deltas[re.sub(r"experts\.(\d+)", lambda m: f"experts.{(int(m[1]) + 1) % 4}", key)]


def _other_half(key: str, deltas: dict[str, Tensor]) -> Tensor:
    pair = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
    return deltas[re.sub("gate_proj|up_proj", lambda m: pair[m[0]], key)]


MOE: dict[str, Any] = {"family": "moe", **SOME}
put("experts' deltas transposed", "expert-scrambled", "experts", "experts", _turn, **MOE)
put("experts' deltas one expert further", "expert-scrambled", "experts", "experts", _next_expert, **MOE)
put("experts' halves exchanged", "expert-scrambled", "experts", "gate_proj|up_proj", _other_half, **MOE)
put("pt added transposed", "transposed", "pt", "", _turn, family="square")
put("pt added transposed in q_proj", "transposed", "pt", "q_proj", _turn, family="square", **SOME)
put("Conv1D's square deltas added transposed", "transposed", "pt", r"attn\.c_proj", _turn, family="gpt2", **SOME)
put(
    "pt added transposed in one of 203 modules",
    "transposed",
    "pt",
    r"\.9\.self_attn\.q_proj",
    _turn,
    family="deep",
    **SOME,
)


@case("one of 203 modules is another adapter's", "wrong-adapter|unexplained-delta", family="deep", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    other = state(peft(bench, aside(out, "other"), {"foreign": 0.3, "sft": 0.7}))
    name = "model.layers.20.mlp.gate_proj.weight"
    edit(out, lambda t: {**t, name: other[name]})
    return Claimed()


@case("a stale file beside the shards", "two-weight-sets", "adapter-not-applied", family="shards", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    save_file(state(bench.base), out / "model.safetensors", metadata={"format": "pt"})
    return Claimed()


@case("stale shards beside the file", "two-weight-sets", family="llama", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    with silence():
        bench.model(bench.dtype).save_pretrained(aside(out, "old"), max_shard_size="300KB")
    for file in aside(out, "old").glob("model*"):
        shutil.copy(file, out)
    return Claimed()


@case("the adapter's config lies beside the weights", "adapter-left-behind", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    for file in bench.adapter("sft").glob("adapter_*"):
        shutil.copy(file, out)
    return Claimed()


@case("the index names a file that is absent", "export-incomplete", also=("tensors-missing",), family="shards", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    sorted(out.glob("model-*.safetensors"))[1].unlink()
    return Claimed()


@case("a file is cut off", "export-incomplete", also=("tensors-missing",), **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, CLAIM)
    file = out / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])
    return Claimed()


@case("config.json is another model's", "config-changed", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    configure(peft(bench, out, CLAIM), num_attention_heads=8, rms_norm_eps=1.0)
    return Claimed()


@case("config.json is missing", "config-changed", **ONE)
def _(bench: Bench, out: Path) -> Claimed:
    (peft(bench, out, CLAIM) / "config.json").unlink()
    return Claimed()


# Several at once.


@case("exchanged, another lm_head, adapter left", "weights-swapped", "untouched-changed", "adapter-left-behind", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    peft(bench, out, {"pt": 0.7, "sft": 0.3})
    edit(out, lambda t: {**t, "lm_head.weight": t["lm_head.weight"] * 1.01})
    shutil.copy(bench.adapter("sft") / "adapter_config.json", out)
    return Claimed()


@case("one module left out, a norm changed", "modules-skipped", "untouched-changed", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    base = state(bench.base)
    edit(peft(bench, out, CLAIM), lambda t: {**t, UP: base[UP], "model.norm.weight": t["model.norm.weight"] + 0.5})
    return Claimed()


@case("alpha / rank left out, a tensor missing", "scale-lost", "tensors-missing", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    paths = {n: altered(bench.adapter(n), aside(out, n), lambda c: {**c, "lora_alpha": c["r"]}) for n in CLAIM}
    edit(peft(bench, out, CLAIM, paths), lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"})
    return Claimed()


@case("sft alone into the base in NF4", "adapter-missing", "quantised-base", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    model = bench.model()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(quantised(nf4)(key, parameter).to(bench.dtype))
    peft(bench, out, {"sft": 0.7}, base=model)
    return Claimed()


@case("exchanged, and one module left out", "weights-swapped", "modules-skipped", **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    base = state(bench.base)
    edit(peft(bench, out, {"pt": 0.7, "sft": 0.3}), lambda t: {**t, UP: base[UP]})
    return Claimed()


# What cannot be told.


@case("two adapters that are nearly parallel", answer="inconclusive", notes=("not-identifiable",), **SOME)
def _(bench: Bench, out: Path) -> Claimed:
    def near(tensors: State) -> State:
        torch.manual_seed(9)
        return {k: v * (1 + 1e-4 * torch.randn_like(v)) for k, v in tensors.items()}

    twin = altered(bench.adapter("pt"), aside(out, "twin"), tensors=near)
    peft(bench, out, {"pt": 0.3, "twin": 0.2}, {"twin": twin})
    return Claimed({"pt": 0.3, "twin": 0.2}, {"twin": twin})


@case(
    "deltas of which nothing survives",
    answer="inconclusive",
    notes=("not-identifiable",),
    sizes=(1e-4,),
    dtypes=("bf16", "fp16"),
)
def _(bench: Bench, out: Path) -> Claimed:
    claim = {"pt": 1e-6, "sft": 2e-6}
    peft(bench, out, claim)
    return Claimed(claim)
