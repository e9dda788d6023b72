"""How fast a model is asked, beside lm-evaluation-harness and transformers' own generate, on the sample's model.

python benchmarks/evaluate.py           multiple choice (full texts, single letters), generation, change of weights
python benchmarks/evaluate.py --rounds 1

Choices: the same prompts and continuations are given to the harness's HF backend (0.4.13, batches of 16, in an
environment and a process of its own) and to ours; what is timed is the call, not the loading. Both must choose the same
option of every item. Generation: plain `generate` in batches of 16, in the order of the items; greedy, so that texts
can be compared. Rounds of all contenders alternate; the median counts. Beside seconds by the clock stand CPU seconds of
the process: on a machine with other work (and OMP_NUM_THREADS=1) these are what can be compared.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import merge
from merge import PEERS, TORCH

merge.INSTALL["lm-eval"] = [[TORCH], [TORCH, "transformers==5.23.0", "accelerate", "lm-eval==0.4.13"]]
HARNESS = """
import json, sys, time
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
asked = json.load(open(sys.argv[2]))
model = HFLM(pretrained=sys.argv[1], dtype="float32", device="cpu", batch_size=16)
requests = [
    Instance("loglikelihood", {}, (item["prompt"], option), i)
    for item in asked for i, option in enumerate(item["options"])
]
started, cpu = time.perf_counter(), time.process_time()
found = model.loglikelihood(requests, disable_tqdm=True)
spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
print(json.dumps({**spent, "values": [value for value, _ in found]}))
"""
TERMS, NEW, BATCH = 120, 64, 16


def model_and_items(root: Path) -> tuple[Path, dict[str, list[dict[str, Any]]], list[str]]:
    """The sample's model on the disk, its choices in two forms, and prompts of very different lengths."""
    from transformers import AutoTokenizer

    from crossmatch.data.prompt_templates import TEMPLATES
    from crossmatch.evaluation import load_suite
    from crossmatch.study.sample import SampleSize, write_base, write_data

    write_base(root / "base")
    write_data(root / "data", SampleSize(pt_terms=60, sft_terms=60, define=TERMS // 2, name=TERMS))
    choices, terms = load_suite(root / "data/name.yaml"), load_suite(root / "data/define.yaml")
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    plain = [(item, f"{item.question}\n") for item in choices.items]
    asked = {
        "full texts, as the study asks": [
            {
                "prompt": TEMPLATES["own"].prompt(tokenizer, choices.messages(item)),
                "options": list(choices.continuations(item)),
            }
            for item in choices.items
        ],
        "full texts, bare": [
            {"prompt": f"{text}Answer:", "options": [f" {option}" for option in item.options]} for item, text in plain
        ],
        "letters": [
            {
                "prompt": text + "\n".join(f"{'ABCD'[i]}. {o}" for i, o in enumerate(item.options)) + "\nAnswer:",
                "options": [f" {letter}" for letter in "ABCD"[: len(item.options)]],
            }
            for item, text in plain
        ],
    }
    # Every third question comes with others before it: lengths of 1 to 8.
    prompts = []
    for number, item in enumerate(terms.items):
        before = "\n".join(other.question for other in terms.items[: 7 * (number % 3 == 0) * (number % 5) // 4])
        prompts.append(f"{before}\n{item.question}" if before else item.question)
    return root / "base", asked, prompts


@dataclass(frozen=True)
class Spent:
    """Seconds of one call, by the clock and of CPU."""

    clock: float
    cpu: float


def since(clock: float, cpu: float) -> Spent:
    """What passed since the two readings."""
    return Spent(time.perf_counter() - clock, time.process_time() - cpu)


def median(runs: Sequence[Spent]) -> Spent:
    """Median of each."""
    return Spent(statistics.median(r.clock for r in runs), statistics.median(r.cpu for r in runs))


def harness(base: Path, items: list[dict[str, Any]], root: Path) -> tuple[Spent, list[list[float]]]:
    """Time and values of the harness."""
    (root / "asked.json").write_text(json.dumps(items))
    command = [str(PEERS / "lm-eval/bin/python"), "-c", HARNESS, str(base), str(root / "asked.json")]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    found = json.loads(done.stdout.splitlines()[-1])
    values = iter(found["values"])
    return Spent(found["seconds"], found["cpu"]), [[next(values) for _ in item["options"]] for item in items]


def ours(engine: Any, items: list[dict[str, Any]]) -> tuple[Spent, list[list[float]]]:
    """Time and values of this project."""
    found: dict[int, list[float]] = {}
    started = time.perf_counter(), time.process_time()
    engine.loglikelihoods([i["prompt"] for i in items], [i["options"] for i in items], found.__setitem__)
    return since(*started), [found[i] for i in range(len(items))]


def best(values: list[list[float]]) -> list[int]:
    """The option chosen for every item."""
    return [scores.index(max(scores)) for scores in values]


def choices(engine: Any, base: Path, asked: dict[str, list[dict[str, Any]]], root: Path, rounds: int) -> Iterator[str]:
    """Both on the same items."""
    reason = merge.install("lm-eval")
    yield (
        "| choices | items | lm-eval 0.4.13, s (CPU) | crossmatch, s (CPU) | times as fast (CPU) "
        "| same choice | largest difference |"
    )
    yield "|---" * 7 + "|"
    if reason:
        yield f"| all | | {reason} | | | | |"
        return
    for form, items in asked.items():
        theirs, mine = [], []
        for _ in range(rounds):
            theirs.append(harness(base, items, root))
            mine.append(ours(engine, items))
        them, us = (median([spent for spent, _ in runs]) for runs in (theirs, mine))
        first, second = theirs[0][1], mine[0][1]
        same = sum(a == b for a, b in zip(best(first), best(second), strict=True))
        apart = max(abs(x - y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))
        yield (
            f"| {form} | {len(items)} | {them.clock:.1f} ({them.cpu:.1f}) | {us.clock:.1f} ({us.cpu:.1f}) "
            f"| {them.clock / us.clock:.2f} ({them.cpu / us.cpu:.2f}) | {same} | {apart:.1e} |"
        )


def plain(engine: Any, prompts: list[str]) -> tuple[Spent, list[str]]:
    """transformers' generate in batches."""
    import torch
    from transformers import GenerationConfig

    tokenizer, texts = engine.tokenizer, []
    tokenizer.padding_side = "left"
    options = GenerationConfig(
        max_new_tokens=NEW, do_sample=False, eos_token_id=sorted(engine._stops), pad_token_id=tokenizer.pad_token_id
    )
    started = time.perf_counter(), time.process_time()
    for at in range(0, len(prompts), BATCH):
        inputs = tokenizer(prompts[at : at + BATCH], add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.inference_mode():
            made = engine.model.generate(**inputs, generation_config=options)
        for row in made[:, inputs["input_ids"].shape[1] :].tolist():
            stop = next((place for place, token in enumerate(row) if token in engine._stops), len(row))
            texts.append(tokenizer.decode(row[:stop]))
    return since(*started), texts


def pooled(engine: Any, prompts: list[str]) -> tuple[Spent, list[str]]:
    """Ours."""
    from crossmatch.evaluation.inference.protocol import Decoding

    found: dict[int, Any] = {}
    started = time.perf_counter(), time.process_time()
    engine.generate(prompts, NEW, Decoding(), [0] * len(prompts), found.__setitem__)
    return since(*started), [found[i].text for i in range(len(prompts))]


def generation(engine: Any, prompts: list[str], rounds: int) -> Iterator[str]:
    """Both on the same prompts, under the model's chat template."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    rendered = [engine.tokenizer.apply_chat_template(t, tokenize=False, add_generation_prompt=True) for t in turns]
    theirs, mine = [], []
    for _ in range(rounds):
        theirs.append(plain(engine, rendered))
        mine.append(pooled(engine, rendered))
    them, us = (median([spent for spent, _ in runs]) for runs in (theirs, mine))
    same = sum(a == b for a, b in zip(theirs[0][1], mine[0][1], strict=True))
    lengths = sorted(len(engine.tokenizer(text)["input_ids"]) for text in rendered)
    yield f"| generation | {len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {NEW} new at most |"
    yield "|---|---|"
    yield f"| generate, batches of {BATCH} | {them.clock:.1f} s ({them.cpu:.1f} of CPU) |"
    yield (
        f"| crossmatch | {us.clock:.1f} s ({us.cpu:.1f} of CPU), {them.clock / us.clock:.2f} ({them.cpu / us.cpu:.2f}) "
        f"times as fast, {same} of {len(prompts)} texts identical |"
    )


def weights(engine: Any, base: Any, rounds: int) -> Iterator[str]:
    """How long another merge weight takes, with two random adapters of rank 16 on all linear modules."""
    import torch

    from crossmatch import TuningVector
    from crossmatch.delta import low_rank

    def vector(seed: int) -> TuningVector:
        generator = torch.Generator().manual_seed(seed)
        names = [n for n in base.tensors if n.endswith("_proj.weight")]
        shapes = {n: base.tensors[n].shape for n in names}
        parts = {
            n: (torch.randn(s[0], 16, generator=generator), torch.randn(16, s[1], generator=generator))
            for n, s in shapes.items()
        }
        return TuningVector({n: low_rank(b * 1e-3, a) for n, (b, a) in parts.items()})

    pt, sft = vector(1), vector(2)
    engine.become({"pt": (pt, 0.3), "sft": (sft, 0.7)})
    spent = []
    for number in range(3 * rounds):
        started = time.perf_counter(), time.process_time()
        engine.become({"pt": (pt, 0.1 * number), "sft": (sft, 0.7)})
        spent.append(since(*started))
    middle = median(spent)
    yield f"another merge weight: {middle.clock:.2f} s ({middle.cpu:.2f} of CPU; median of {len(spent)})"
    engine.become({})


def main() -> None:
    """Print in Markdown."""
    parser = argparse.ArgumentParser(description="How fast a model is asked; the head of this file says how.")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    from crossmatch import Checkpoint
    from crossmatch.evaluation.inference.local_model import Engine
    from crossmatch.runtime import keep_heap

    keep_heap()
    versions = ", ".join(f"{name} {version(name)}" for name in ("crossmatch", "torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        path, asked, prompts = model_and_items(Path(scratch))
        base = Checkpoint(path)
        engine = Engine(base)
        for part in (
            weights(engine, base, rounds),
            generation(engine, prompts, rounds),
            choices(engine, path, asked, Path(scratch), rounds),
        ):
            for line in part:
                print(line, flush=True)
            print()


if __name__ == "__main__":
    sys.exit(main())
