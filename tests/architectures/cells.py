"""What is asked of every kind of model with every kind of adapter: one function a cell, which says what is wrong."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from architectures.zoo import MULTIMODAL, Tiny, tiny
from crossmatch import Adapter, Checkpoint, extract, identify, merge, open_vector, verify
from crossmatch.analysis import Wanted, assemble, open_vectors
from crossmatch.causal import open_model
from crossmatch.evaluation import Variant
from crossmatch.evaluation.conditions import Plan
from crossmatch.evaluation.inference.protocol import Windows
from crossmatch.evaluation.runner.kl import Answered, Divergences
from crossmatch.evaluation.runner.model_slot import Held
from crossmatch.merging import Storage
from crossmatch.vectors.facts import adapter_facts
from helpers import generated_texts, loglikelihoods, make_tokenizer

WEIGHT = 0.7
PROMPTS = ["what is the very old blood heart cell", "name", "the new disease of the blood"]
OPTIONS = [["heart", "the disease of the blood", "a"]] * len(PROMPTS)
NEW = 5
# Parts of a multimodal model that read no text.
_ELSEWHERE = ("vision", "visual", "audio", "image", "projector", "connector", "embed_", "speech")
_ATTENTION = ("attn", "attention", "mixer")


@dataclass(frozen=True)
class Bench:
    """A tiny model with an adapter on it. kind: model_type; adapter: all-linear, attention, experts, saved, tokens."""

    kind: str
    adapter: str
    root: Path

    @property
    def base(self) -> Checkpoint:
        """The base, in float32."""
        return Checkpoint(self.root / "base")

    @property
    def lora(self) -> Adapter:
        """The adapter as PEFT saved it."""
        return Adapter(self.root / "lora")

    @property
    def weight(self) -> float:
        """The weight of our merges: 1 where PEFT knows no other."""
        return 1.0 if self.adapter in ("saved", "tokens") else WEIGHT

    @cached_property
    def reference(self) -> Any:
        """PEFT's own merge at the weight, in float32: what everything else is held against."""
        return peft_merged(self.root, torch.float32, self.weight)

    def setup(self) -> None:
        """Write base and adapter. Raises what transformers and PEFT raise."""
        one: Tiny = tiny(self.kind)
        one.build().save_pretrained(self.root / "base")
        model = open_model(self.root / "base", torch.float32)
        make_adapter(model, self.adapter, self.kind).save_pretrained(self.root / "lora")


def make_adapter(model: Any, adapter: str, kind: str) -> Any:
    """PEFT's model with random factors. Raises LookupError if the model has nothing of the kind that is adapted."""
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "init_lora_weights": False}
    linear = list(linear_modules(model, kind))
    options["target_modules"] = linear
    if adapter == "attention":
        options["target_modules"] = [n for n in linear if any(part in n.lower() for part in _ATTENTION)]
    elif adapter == "all-linear" and kind not in MULTIMODAL:
        options["target_modules"] = "all-linear"
    elif adapter == "experts":
        names = [n for n, p in model.named_parameters() if ".experts." in n and p.ndim == 3]
        if not names:
            raise LookupError("no fused experts")
        options |= {"target_modules": [], "target_parameters": sorted({".".join(n.split(".")[-3:]) for n in names})}
    elif adapter == "saved":
        options["modules_to_save"] = ["lm_head"]
    elif adapter == "tokens":
        options["trainable_token_indices"] = [5, 9]
    if not options["target_modules"] and "target_parameters" not in options:
        raise LookupError(f"no {adapter} modules")
    torch.manual_seed(5)
    try:
        made = get_peft_model(model, LoraConfig(**options))
    except ValueError as error:
        if "incompatible with Mamba" not in str(error):
            raise
        options["target_modules"] = [n for n in linear if not n.endswith(("out_proj", "conv1d"))]
        made = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(0.15 * torch.randn_like(parameter))
            elif "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def linear_modules(model: Any, kind: str) -> Iterator[str]:
    """Names of the linear modules of the text's layers; the output embedding is none."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        text = kind not in MULTIMODAL or not any(part in name for part in _ELSEWHERE)
        if isinstance(module, nn.Linear | Conv1D) and module is not head and text:
            yield name


def peft_merged(root: Path, dtype: torch.dtype, weight: float = 1.0) -> Any:
    """The base in `dtype` with PEFT's merge of the adapter at a weight."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(open_model(root / "base", dtype), str(root / "lora"))
    if any("missing adapter keys" in str(w.message) for w in said):
        # Nothing to be held against: modules are left at random.
        raise LookupError("PEFT does not find keys of its own file as it loads the adapter again")
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {name: weight * value for name, value in module.scaling.items()}
    return model.merge_and_unload().eval()


@torch.inference_mode()
def logits(model: Any, ids: list[int]) -> Tensor:
    """(length, vocabulary) of one text, by a plain pass."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def apart(one: Any, other: Any) -> str:
    """How far the logits of two models are from each other, if that is more than rounding."""
    ids = [5, 9, 13, 21, 8, 30]
    first, second = logits(one, ids), logits(other, ids)
    distance = float((first - second).abs().max() / second.abs().max())
    return "" if distance < 1e-4 else f"logits differ by {distance:.1e}"


def said(verdict: Any, wanted: str) -> str:
    """What a verdict says instead of what is wanted."""
    if verdict.verdict == wanted:
        return ""
    return f"{verdict.verdict}: {', '.join(verdict.faults) or '; '.join(verdict.notes)}"


def inspect_cell(bench: Bench) -> str:
    """The adapter is read, every tensor of it known."""
    facts = adapter_facts(str(bench.root / "lora"), bench.root / "lora")
    return "" if facts["modules"] else "no modules"


def merge_cell(bench: Bench) -> str:
    """Our float32 merge gives what PEFT's gives."""
    out = merged(bench, torch.float32)
    return apart(open_model(out, torch.float32), bench.reference)


def merge_bf16_cell(bench: Bench) -> str:
    """Our bfloat16 merge is written and verified."""
    return said(verify(Checkpoint(merged(bench, torch.bfloat16)), bench.base, parts(bench)), "verified")


def verify_cell(bench: Bench) -> str:
    """Our float32 merge is verified."""
    return said(verify(Checkpoint(merged(bench, torch.float32)), bench.base, parts(bench)), "verified")


def verify_peft(bench: Bench, dtype: torch.dtype) -> str:
    """PEFT's own merge at weight 1, saved in a dtype, is verified."""
    out = bench.root / f"peft-{dtype}"
    peft_merged(bench.root, dtype).save_pretrained(out)
    return said(verify(Checkpoint(out), bench.base, {"lora": (bench.lora, 1.0)}), "verified")


def left_out_cell(bench: Bench) -> str:
    """A merge in which one module is the base's fails."""
    file = merged(bench, torch.float32) / "model.safetensors"
    out = bench.root / "hole"
    shutil.copytree(file.parent, out)
    tensors, base = load_file(file), load_file(bench.root / "base" / "model.safetensors")
    changed = next(n for n in tensors if n in base and not torch.equal(tensors[n], base[n]))
    save_file({**tensors, changed: base[changed]}, out / file.name, metadata={"format": "pt"})
    return said(verify(Checkpoint(out), bench.base, parts(bench)), "failed")


def identify_cell(bench: Bench) -> str:
    """The adapter is found in our merge, at its weight."""
    found = identify(Checkpoint(merged(bench, torch.float32)), bench.base, {"lora": bench.lora})
    return said(found, "identified")


def analyse_cell(bench: Bench) -> str:
    """The adapter's size and place are measured."""
    opened = open_vectors(str(bench.root / "base"), {"lora": str(bench.root / "lora")})
    facts = assemble(opened, Wanted(cache=bench.root / "cache"))
    return "" if facts["size"]["lora"] else "nothing is measured"


def vectors_cell(bench: Bench) -> str:
    """The vector extracted from our merge gives the merge back, bit for bit."""
    out, done = merged(bench, torch.float32), bench.root / "applied"
    extract(bench.base, Checkpoint(out), bench.root / "vector", dtype="float64")
    merge(bench.base, {"vector": (open_vector(bench.root / "vector"), 1.0)}, done)
    one, other = (load_file(place / "model.safetensors") for place in (out, done))
    unlike = [name for name in one if not torch.equal(one[name], other[name])]
    return f"{len(unlike)} tensors differ" if unlike else ""


def evaluate_cell(bench: Bench) -> str:
    """Options, answers, texts and KL of the adapter in place are those of PEFT's merge, one text at a time."""
    make_tokenizer(bench.root / "base")
    base, model = bench.base, bench.reference
    variant = Variant("lora", "merge", {"lora": bench.weight})
    held = Held(base, {"lora": bench.lora}, Plan())
    divergences: dict[int, Any] = {}
    items = [Answered(prompt, prompt, " heart of the cell") for prompt in PROMPTS]
    compared = Divergences(held, {"base": Variant("base", "base", {})})
    compared.ask(variant, "g", items, divergences.__setitem__)
    engine = held.become(variant)
    rows = [[*engine.token_ids(prompt, option)] for prompt in PROMPTS for option in OPTIONS[0]]
    found = [value for values in loglikelihoods(engine, PROMPTS, OPTIONS) for value in values]
    worst = max(abs(a - scored(model, *row)) for a, row in zip(found, rows, strict=True))
    if worst > 1e-2:
        return f"options differ by {worst:.1e}"
    ends = {engine.tokenizer.eos_token_id, model.generation_config.eos_token_id}
    answers = generated_texts(engine, PROMPTS, NEW)
    plain = [engine.tokenizer.decode(written(model, engine.token_ids(prompt, " a")[0], ends)) for prompt in PROMPTS]
    if answers != plain:
        return f"answers differ: {answers[0]!r} for {plain[0]!r}"
    texts: dict[int, Any] = {}
    engine.documents(PROMPTS, Windows(64, 8), texts.__setitem__)
    start = next(i for i in (engine.tokenizer.bos_token_id, engine.tokenizer.eos_token_id) if i is not None)
    ids = engine.tokenizer(PROMPTS[0], add_special_tokens=False)["input_ids"]
    if abs(texts[0].nats + scored(model, [start], ids)) > 1e-2:
        return "perplexity differs"
    before, after = engine.token_ids(PROMPTS[0], " heart of the cell")
    place = slice(len(before) - 1, len(before) + len(after) - 1)
    own = logits(model, before + after)[place].double().log_softmax(-1)
    other = logits(open_model(base.path, torch.float32), before + after)[place].double().log_softmax(-1)
    nats = float((own.exp() * (own - other)).sum())
    kl = divergences[0]["base"]
    return "" if kl is not None and abs(kl.nats - nats) < 1e-2 * max(1.0, nats) else "KL differs"


def scored(model: Any, before: list[int], after: list[int]) -> float:
    """ln P(after | before), by a plain pass."""
    log_p = logits(model, [*before, *after]).log_softmax(-1)[len(before) - 1 : -1]
    return float(log_p.gather(1, torch.tensor(after)[:, None]).sum())


def written(model: Any, ids: list[int], ends: set[Any]) -> list[int]:
    """The answer token by token, all computed again for each."""
    found: list[int] = []
    while len(found) < NEW:
        token = int(logits(model, [*ids, *found])[-1].argmax())
        if token in ends:
            break
        found.append(token)
    return found


def merged(bench: Bench, dtype: torch.dtype) -> Path:
    """Our merge, made when it is asked for first."""
    out = bench.root / f"merged-{dtype}"
    if not out.exists():
        merge(bench.base, parts(bench), out, storage=Storage(dtype))
    return out


def parts(bench: Bench) -> dict[str, Any]:
    """The claim of our merges."""
    return {"lora": (bench.lora, bench.weight)}


CELLS: dict[str, Callable[[Bench], str]] = {
    "inspect": inspect_cell,
    "merge": merge_cell,
    "merge bf16": merge_bf16_cell,
    "verify": verify_cell,
    "PEFT fp32": lambda bench: verify_peft(bench, torch.float32),
    "PEFT bf16": lambda bench: verify_peft(bench, torch.bfloat16),
    "one left out": left_out_cell,
    "identify": identify_cell,
    "analyse": analyse_cell,
    "vectors": vectors_cell,
    "evaluate": evaluate_cell,
}


def outcomes(bench: Bench, wanted: tuple[str, ...] = tuple(CELLS)) -> dict[str, str]:
    """Cell -> what is wrong there; empty: nothing. A bench that cannot be made has the one outcome `setup`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bench.setup()
        except Exception as error:
            return {"setup": line_of(error)}
        found = {}
        for name in wanted:
            try:
                found[name] = CELLS[name](bench)
            except Exception as error:
                found[name] = line_of(error)
    return {name: replace_paths(text, bench.root) for name, text in found.items()}


def line_of(error: Exception) -> str:
    """An error in one line, with its class."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def replace_paths(text: str, root: Path) -> str:
    """Without the temporary directory."""
    return text.replace(f"{root}/", "").replace(str(root), "")
