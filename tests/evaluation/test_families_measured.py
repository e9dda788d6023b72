"""Answers, options, first tokens and texts of a dozen families of models are those of plain transformers.

Every prompt is longer or shorter than the windows of those that have one, some share a beginning, one comes twice; plain
is one text at a time, computed whole for each token, without cache, mask or padding.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from architectures.zoo import tiny
from crossmatch import Checkpoint
from crossmatch.causal import open_model
from crossmatch.evaluation import Variant
from crossmatch.evaluation.conditions import Plan
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Windows
from crossmatch.evaluation.runner.kl import Answered, Divergences
from crossmatch.evaluation.runner.model_slot import Held
from helpers import WORDS, generate, make_tokenizer

# Experts, latent attention; states, states and attention, linear attention, convolutions, gated recurrence; windows,
# windows with caps on logits; learned and sinusoidal positions; ALiBi; text parts of multimodal models.
FAMILIES = (
    *("mixtral", "qwen3_moe", "deepseek_v3"),
    *("mamba", "jamba", "qwen3_next", "lfm2", "recurrent_gemma"),
    *("mistral", "gemma3_text", "gemma2"),
    *("gpt2", "opt", "xglm"),
    *("bloom", "mpt"),
    *("gemma3", "qwen2_vl"),
)
NEW = 6
PROMPTS = [" ".join(WORDS[begin:end]) for begin, end in ((5, 6), (0, 6), (0, 14), (0, 6), (8, 30))]
OPTIONS = [
    " heart",
    " the disease of the blood",
    " the disease",
    " lung kidney bone system level pressure high low answer",
]
WINDOWS = Windows(12, 5)
# Of log-likelihoods in nats, single precision summed in another order; of logits, as a share of the largest.
CLOSE, TIE = 2e-3, 1e-5


@torch.inference_mode()
def logits(model: Any, ids: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()


def loglikelihood(model: Any, before: list[int], after: list[int]) -> float:
    log_p = logits(model, [*before, *after]).log_softmax(-1)[len(before) - 1 : -1]
    return float(log_p.gather(1, torch.tensor(after)[:, None]).sum())


def greedy(model: Any, ids: list[int], ends: frozenset[int]) -> tuple[list[int], float]:
    """The answer, and how far the chosen token was ahead of the next where it was least."""
    found: list[int] = []
    least = float("inf")
    while len(found) < NEW:
        last = logits(model, [*ids, *found])[-1]
        first, second = last.topk(2).values.tolist()
        least = min(least, (first - second) / float(last.abs().max()))
        if int(last.argmax()) in ends:
            break
        found.append(int(last.argmax()))
    return found, least


def check(engine: Engine, plain: Any) -> None:
    """All that the engine says of the prompts is what plain passes say."""
    ids = [engine.token_ids(prompt, OPTIONS[0])[0] for prompt in PROMPTS]
    ends = frozenset({engine.tokenizer.eos_token_id, plain.generation_config.eos_token_id})
    for answer, before in zip(generate(engine, PROMPTS, NEW), ids, strict=True):
        wanted, ahead = greedy(plain, before, ends)
        assert answer.text == engine.tokenizer.decode(wanted) or ahead < TIE
    scores: dict[int, Any] = {}
    engine.openings(PROMPTS, [OPTIONS] * len(PROMPTS), lambda i, values, first: scores.__setitem__(i, (values, first)))
    for number, prompt in enumerate(PROMPTS):
        values, first = scores[number]
        wanted = [loglikelihood(plain, *engine.token_ids(prompt, option)) for option in OPTIONS]
        assert values == pytest.approx(wanted, abs=CLOSE)
        log_p = logits(plain, ids[number])[-1].log_softmax(-1)
        assert first.entropy == pytest.approx(float(-(log_p.exp() * log_p).sum()), abs=CLOSE)
    texts: dict[int, Any] = {}
    engine.documents(PROMPTS, WINDOWS, texts.__setitem__)
    before = next(i for i in (engine.tokenizer.bos_token_id, engine.tokenizer.eos_token_id) if i is not None)
    for number, own in enumerate(ids):
        whole = [before, *own]
        nats = -sum(loglikelihood(plain, whole[b : f + 1], whole[f + 1 : e + 1]) for b, f, e in WINDOWS.spans(len(own)))
        assert texts[number].nats == pytest.approx(nats, abs=CLOSE)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_measured_as_plain_transformers_has_it(kind: str, tmp_path: Path) -> None:
    tiny(kind).build().save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    # Three rows at a time: prompts come and go while others are answered.
    check(Engine(Checkpoint(tmp_path), rows=3), open_model(tmp_path, torch.float32))


@pytest.mark.parametrize("kind", ["mixtral", "jamba", "gemma2", "gpt2", "mpt", "qwen2_vl"])
def test_the_divergence_from_a_written_checkpoint_is_that_of_plain_distributions(kind: str, tmp_path: Path) -> None:
    """Experts, states and attention, windows with caps on logits, learned positions, ALiBi, a multimodal text part."""
    plain = {}
    for name in ("base", "tuned"):
        model: Any = tiny(kind).build()
        generator = torch.Generator().manual_seed(7)
        for parameter in model.parameters() if name == "tuned" else ():
            parameter.data += 0.05 * parameter.data.std() * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(tmp_path / name)
        make_tokenizer(tmp_path / name)
        plain[name] = open_model(tmp_path / name, torch.float32)
    base = Checkpoint(tmp_path / "base")
    tuned = Variant("tuned", "checkpoint", {}, checkpoint=Checkpoint(tmp_path / "tuned"))
    found: dict[int, Any] = {}
    items = [Answered(str(i), prompt, OPTIONS[1]) for i, prompt in enumerate(PROMPTS)]
    divergences = Divergences(Held(base, {}, Plan(batch_size=3)), {"base": Variant("base", "base", {})})
    divergences.ask(tuned, "ask", items, found.__setitem__)
    engine = Engine(base)
    for number, item in enumerate(items):
        before, after = engine.token_ids(item.prompt, item.answer)
        p, q = (
            logits(plain[name], [*before, *after])[len(before) - 1 : -1].log_softmax(-1) for name in ("tuned", "base")
        )
        wanted = (p.exp() * (p - q)).sum(-1)
        assert float(wanted.min()) > 1e-5
        assert found[number]["base"].first == pytest.approx(float(wanted[0]), rel=0.01, abs=1e-5)
        assert found[number]["base"].nats == pytest.approx(float(wanted.sum()), rel=0.01, abs=1e-5)


@pytest.mark.parametrize("kind", ["mixtral", "jamba", "gemma2"])
def test_a_base_in_bfloat16_is_computed_in_float32_on_cpu(kind: str, tmp_path: Path) -> None:
    """The stored weights are those of the file; what is computed with them is not rounded once more."""
    tiny(kind).build(torch.bfloat16).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    engine = Engine(Checkpoint(tmp_path), rows=3)
    assert engine.model.dtype == torch.float32
    check(engine, open_model(tmp_path, torch.float32))


def test_weights_asked_for_in_bfloat16_are_rounded_once(tmp_path: Path) -> None:
    tiny("mistral").build().save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    open_model(tmp_path / "base", torch.bfloat16).save_pretrained(tmp_path / "rounded")
    engine = Engine(Checkpoint(tmp_path / "base"), torch.bfloat16, rows=3)
    engine.become({})
    check(engine, open_model(tmp_path / "rounded", torch.float32))
