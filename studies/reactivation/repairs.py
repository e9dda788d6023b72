"""Question 9: what mends the worst point of the grid, and what does it cost?

    python studies/reactivation/repairs.py RUNS RESULTS

Asks both suites of every repair: changes of the weights (layers, projection, more SFT), a ban on the trace's tokens,
and a rank-1 change of the logits, each of the last two beside a random one of the same size. Writes into RESULTS what
each is, repairs.json, and the answers, repairs.jsonl.gz, in the form of `collect.py`. What is finished is not asked
again.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from answers import Results, name_of
from crossmatch import Checkpoint
from crossmatch.adapter import open_vector
from crossmatch.data.prompt_templates import Template
from crossmatch.data.suite_rendering import render_item
from crossmatch.data.suites import Item, Suite, load_suite
from crossmatch.data.turn_ends import turn_end
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Decoding, Generated
from crossmatch.evaluation.metrics.answer_extraction import extract_choice
from crossmatch.rules import parse_weight
from crossmatch.rules.combine import Recipe

HERE = Path(__file__).parent
# Added to the logits of the banned tokens: the published script's -5, doubled, so that weakness is no excuse.
BAN = -10.0
# Questions of the habit's own data, from which the direction is read; none of them is in a suite.
READ = 48

Hook = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Repair:
    """Weights of the two adapters as `merge` takes them, a rule, and what is done to the last hidden state or to the
    logits."""

    what: str
    weights: dict[str, str]
    rule: Recipe = field(default_factory=Recipe)
    hidden: Hook | None = None
    logits: Hook | None = None


class World:
    """The base in memory with its adapters, the two suites, and the template that forbids reasoning."""

    def __init__(self, runs: Path) -> None:
        data, grid = runs / "reactivation" / "data", runs / "reactivation-grid" / "adapters"
        self.engine = Engine(Checkpoint(runs / "reactivation-base" / "merges" / "habit1"))
        self.adapters = {name: open_vector(grid / name) for name in ("pt", "sft")}
        source = (HERE / "templates" / "answer-only.jinja").read_text(encoding="utf-8")
        self.template = Template("answer-only", source)
        tokenizer = self.engine.tokenizer
        self.stops = turn_end(tokenizer, source).stops(tokenizer, ())
        self.suites = {name: load_suite(str(data / f"{name}.yaml")) for name in ("define", "system")}
        rows = (data / "habit.jsonl").read_text(encoding="utf-8").splitlines()[:READ]
        self.habits = [json.loads(row)["prompt"] for row in rows]

    def become(self, repair: Repair) -> None:
        """Take on the weights of a repair."""
        self.engine.become(
            {name: (self.adapters[name], parse_weight(weight)) for name, weight in repair.weights.items()}, repair.rule
        )

    def prompt(self, suite: Suite, item: Item) -> str:
        """An item as the model reads it."""
        return render_item(suite, item, self.template, self.engine.tokenizer)

    @contextmanager
    def changed(self, repair: Repair) -> Iterator[None]:
        """The model's head with the repair's hooks."""
        head = self.engine.model.get_output_embeddings()
        hooks = []
        if change := repair.hidden:
            hooks.append(head.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:])))
        if shift := repair.logits:
            hooks.append(head.register_forward_hook(lambda _, args, out: shift(out)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def ask(self, repair: Repair, name: str) -> list[dict[str, Any]]:
        """The answers to both suites, in the form of `collect.py`."""
        self.become(repair)
        rows: list[dict[str, Any]] = []
        with self.changed(repair):
            for key, suite in self.suites.items():
                prompts = [self.prompt(suite, item) for item in suite.items]
                found: dict[int, Generated] = {}
                limit = suite.settings.max_new_tokens
                self.engine.generate(prompts, limit, Decoding(), [0] * len(prompts), found.__setitem__, self.stops)
                scores: dict[int, list[float]] = {}
                if suite.settings.kind == "choice":
                    letters = [list("ABCD"[: len(item.options)]) for item in suite.items]
                    self.engine.loglikelihoods(prompts, letters, scores.__setitem__)
                for n, item in enumerate(suite.items):
                    row = {"variant": name, "suite": key, "condition": "answer-only.greedy", "id": item.id}
                    rows.append(row | _fields(suite, item, found[n], scores.get(n)))
        return rows

    def direction(self, merged: Repair, alone: Repair) -> Tensor:
        """Unit vector: mean last hidden state where the answer begins, of the merge less that of SFT alone."""
        means = []
        for repair in (merged, alone):
            self.become(repair)
            head, seen = self.engine.model.get_output_embeddings(), []
            hook = head.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0][:, -1].float()))
            messages = [[{"role": "user", "content": text}] for text in self.habits]
            for one in messages:
                text = self.template.prompt(self.engine.tokenizer, one)
                ids = self.engine.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
                with torch.inference_mode():
                    self.engine.model(ids)
            hook.remove()
            means.append(torch.cat(seen).mean(0))
        found = means[0] - means[1]
        return found / found.norm()


def _fields(suite: Suite, item: Item, one: Generated, scores: list[float] | None) -> dict[str, Any]:
    said = {"output": one.text, "truncated": one.truncated, "tokens": one.tokens}
    if scores is None:
        return {"seed": 0, **said}
    best = max(range(len(scores)), key=scores.__getitem__)
    chosen = extract_choice(one.text, item.options, suite.settings.language)
    return {"chosen": best, "chosen_norm": best, "generated": [{"seed": 0, **said, "chosen": chosen}]}


def banned(tokenizer: Any) -> list[int]:
    """The pieces of the trace's markers, as a ban on them would name them."""
    texts = ("<think>", "</think>", "\n<think>", " <think>")
    ids = {i for text in texts for i in tokenizer(text, add_special_tokens=False).input_ids}
    return sorted(i for i in ids if tokenizer.decode([i]).strip())


def taken_out(direction: Tensor) -> Hook:
    """h -> h - (h u) u."""
    return lambda h: h - (h @ direction)[..., None] * direction


def pushed_down(ids: list[int]) -> Hook:
    """The logits of these tokens lowered by 10."""

    def shift(logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., ids] += BAN
        return logits

    return shift


def worst(results: Results) -> tuple[float, float]:
    """The point of the grid where most answers reason, in a block or in sentences; of several that with least PT."""
    shares = {
        (a, b): float(results.cell("grid", name_of(pt=a, sft=b)).both("sentences").mean())
        for b in results.weights
        for a in results.weights
    }
    return max(shares, key=lambda point: (shares[point], -point[0]))


def repairs(world: World, a: float, b: float) -> dict[str, Repair]:
    """Every repair of PT a + SFT b, by name."""
    pt, sft = f"{a:g}", f"{b:g}"
    both = {"pt": pt, "sft": sft}
    merged, alone = Repair("the merge itself", both), Repair("SFT alone", {"sft": sft})
    ids, vocabulary = banned(world.engine.tokenizer), world.engine.model.config.vocab_size
    drawn = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))[: len(ids)].tolist()
    direction = world.direction(merged, alone)
    random = torch.randn(len(direction), generator=torch.Generator().manual_seed(0))
    found = {"merge": merged, "sft": alone}
    for name, layers in (("lower", "0:15"), ("upper", "15:30")):
        other = "15:30" if name == "lower" else "0:15"
        weight = f"{pt},layers[{other}]:0"
        found[f"pt-{name}-half"] = Repair(f"PT in layers {layers} alone", {"pt": weight, "sft": sft})
    for part, other in (("attn", "mlp"), ("mlp", "attn")):
        found[f"pt-{part}"] = Repair(f"PT in {part} modules alone", {"pt": f"{pt},{other}:0", "sft": sft})
    found["half-pt"] = Repair("half of PT", {"pt": f"{a / 2:g}", "sft": sft})
    found["more-sft"] = Repair("SFT at 1.5 times its weight", {"pt": pt, "sft": f"{1.5 * b:g}"})
    off = Recipe("project", {"of": "pt", "off": "sft"})
    found["project"] = Repair("PT projected off SFT's subspace", both, off)
    found["ban"] = Repair("the trace's tokens banned", both, logits=pushed_down(ids))
    found["ban-null"] = Repair("as many random tokens banned", both, logits=pushed_down(drawn))
    found["rank1"] = Repair("the trace's direction taken out of the logits", both, hidden=taken_out(direction))
    found["rank1-null"] = Repair("a random direction taken out", both, hidden=taken_out(random / random.norm()))
    return found


def main(runs: Path, folder: Path) -> None:
    """Ask every repair, and keep the answers."""
    results, world = Results(folder), World(runs)
    a, b = worst(results)
    work = runs / "reactivation-repairs"
    work.mkdir(parents=True, exist_ok=True)
    wanted, lines = repairs(world, a, b), []
    for name, repair in wanted.items():
        part = work / f"{a:g}-{b:g}-{name}.jsonl"
        if not part.is_file():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in world.ask(repair, name))
            part.write_text(text, encoding="utf-8")
        lines.append(part.read_text(encoding="utf-8"))
        print(f"{name}: {repair.what}", flush=True)
    (folder / "repairs.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode("utf-8"), 9, mtime=0))
    facts = {"point": [a, b], "repairs": {name: repair.what for name, repair in wanted.items()}}
    (folder / "repairs.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
